"""The microphone driver on a stand-in for PortAudio: rates, times, lost sound, a card that goes and comes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.core.errors import BlossomError, HardwareError
from blossom_edge.sensors.driver import Host
from blossom_edge.sensors.drivers.microphone import MicrophoneDriver
from tests.hil.microphone_bench import HZ_1000, FakeCard, Time, make, speak, tone


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCard:
    fake = FakeCard()
    monkeypatch.setitem(sys.modules, "sounddevice", fake.module)
    return fake


@pytest.fixture
def opened(card: FakeCard) -> Iterator[tuple[FakeCard, MicrophoneDriver, Time]]:
    time = Time()
    driver = make(time, device="USB")
    driver.open()
    yield card, driver, time
    driver.close()


def test_a_card_that_knows_only_48_khz_is_brought_to_16(opened: tuple[FakeCard, MicrophoneDriver, Time]) -> None:
    card, driver, time = opened
    assert card.opened == [("USB", 48000, 1)]  # 16000 was tried before
    speak(card, time, tone(1000, 1.0, 48000) + tone(15000, 1.0, 48000))
    heard = driver.read(0.0)
    assert len(heard) == pytest.approx(97, abs=1)  # the filter keeps back some ms
    assert (heard.values.argmax(axis=1) == HZ_1000).all()
    assert 10 * np.log10((10 ** (heard.values[5:] / 10)).sum(axis=1)) == pytest.approx(20 * np.log10(0.5), abs=0.05)
    assert heard.times[0] == pytest.approx(100.0125)
    assert np.diff(heard.times) == pytest.approx(0.01)


def test_the_rate_that_is_asked_for_is_taken_or_the_card_is_refused(card: FakeCard) -> None:
    driver = make(Time(), capture_hz=44100)
    driver.open()
    driver.close()
    assert card.opened == [(None, 44100, 1)]
    with pytest.raises(HardwareError, match=r"16000 Hz.*Invalid sample rate") as error:
        make(Time(), capture_hz=16000, device="USB").open()
    assert error.value.error_id == "sensor-missing"


def test_a_card_that_knows_only_stereo_is_opened_with_two_channels(card: FakeCard) -> None:
    card.channels = {2}
    driver = make(Time())
    driver.open()
    driver.close()
    assert card.opened == [(None, 48000, 2)]


def test_jitter_of_the_blocks_does_not_reach_the_times(opened: tuple[FakeCard, MicrophoneDriver, Time]) -> None:
    card, driver, time = opened
    late = [0.0, 0.03, 0.0, 0.04, 0.02, 0.1, 0.0, 0.0, 0.05, 0.01]
    parts = []
    for late_s in late * 4:
        speak(card, time, tone(1000, 0.05, 48000), late_s=late_s)
        parts.append(driver.read(0.0).times)
    times = np.concatenate(parts)
    assert len(times) == pytest.approx(197, abs=1)
    assert np.diff(times) == pytest.approx(0.01, rel=0.003)
    assert times[-1] == pytest.approx(102.0 - 0.03, abs=0.02)


def test_lost_sound_is_counted_and_is_a_gap_in_the_times(opened: tuple[FakeCard, MicrophoneDriver, Time]) -> None:
    card, driver, time = opened
    speak(card, time, tone(1000, 0.5, 48000))
    before = driver.read(0.0)
    time.now += 0.35
    card.say(tone(1000, 0.05, 48000), overflow=True)
    speak(card, time, tone(1000, 0.2, 48000))
    after = driver.read(0.0)
    assert driver.num_overflows == 1
    assert after.times[0] - before.times[-1] == pytest.approx(0.3 + 0.03, abs=0.025)
    assert (after.values.argmax(axis=1) == HZ_1000).all()  # no frame is made of what lies on both sides


def test_sound_that_nobody_reads_is_dropped_after_five_seconds(opened: tuple[FakeCard, MicrophoneDriver, Time]) -> None:
    card, driver, time = opened
    speak(card, time, tone(1000, 7.0, 48000))
    assert driver.read(0.0).times[-1] == pytest.approx(105.0, abs=0.05)
    speak(card, time, tone(1000, 0.5, 48000))
    assert driver.read(0.0).times[0] == pytest.approx(107.0, abs=0.05)
    assert driver.num_overflows == 1
    driver.close()
    assert driver.num_overflows == 1


def test_a_card_that_falls_silent_has_failed_after_two_seconds(opened: tuple[FakeCard, MicrophoneDriver, Time]) -> None:
    card, driver, time = opened
    speak(card, time, tone(1000, 0.5, 48000))
    driver.read(0.0)
    time.now += 1.9
    assert len(driver.read(0.0)) == 0
    time.now += 0.2
    with pytest.raises(HardwareError, match="nothing for 2 s") as error:
        driver.read(0.0)
    assert error.value.error_id == "sensor-failed"


def test_a_card_that_is_pulled_out_has_failed_and_is_found_again(card: FakeCard) -> None:
    time = Time()
    driver = make(time, device="USB")
    driver.open()
    assert card.stream is not None
    speak(card, time, tone(1000, 0.5, 48000))
    card.stream.active = card.there = False
    assert len(driver.read(0.0)) > 40  # first what came before
    with pytest.raises(HardwareError, match="has stopped"):
        driver.read(0.0)
    driver.close()
    with pytest.raises(HardwareError, match="No input device matching"):
        driver.open()
    card.there = True
    begun = card.num_begun
    driver.open()
    assert card.num_begun == begun + 1  # PortAudio looked for devices anew
    speak(card, time, tone(1000, 0.5, 48000))
    assert len(driver.read(0.0)) > 40
    driver.close()
    driver.close()
    assert card.module._initialized == 1


def test_portaudio_is_not_begun_anew_under_a_card_that_is_open(card: FakeCard) -> None:
    first, second = make(Time()), make(Time(), device="other")
    first.open()
    begun = card.num_begun
    second.open()
    assert card.num_begun == begun
    second.close()
    first.close()


def test_reading_waits_for_the_callback(card: FakeCard) -> None:
    driver = make(device="USB")
    driver.open()
    timer = threading.Timer(0.05, card.say, [tone(1000, 0.1, 48000)])
    timer.start()
    assert len(driver.read(5.0)) > 0
    timer.join()
    driver.close()


def test_without_portaudio_the_package_and_the_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_more: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(BlossomError, match="PortAudio library not found") as error:
        make().open()
    assert error.value.error_id == "package-missing"
    assert error.value.hint == "pip install 'blossom-edge[audio]'; apt install libportaudio2"


def test_cards_that_can_record_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "proc" / "asound"
    folder.mkdir(parents=True)
    (folder / "cards").write_text(
        " 0 [Headphones     ]: bcm2835_headpho - bcm2835 Headphones\n"
        "                      bcm2835 Headphones\n"
        " 2 [Device         ]: USB-Audio - USB PnP Sound Device\n"
        "                      C-Media Electronics Inc. USB PnP Sound Device at usb-3f980000.usb-1.3, full spe\n"
    )
    (folder / "pcm").write_text(
        "00-00: bcm2835 Headphones : bcm2835 Headphones : playback 8\n"
        "02-00: USB Audio : USB Audio : playback 1 : capture 1\n"
    )
    (found,) = MicrophoneDriver.find(Host(tmp_path))
    assert found.options == {"device": "USB PnP Sound Device"}
    assert found.what == "sound card 2 [Device] USB PnP Sound Device"
    make(shape=(40,), **found.options)  # the proposed line is a valid one
    assert list(MicrophoneDriver.find(Host(tmp_path / "empty"))) == []
