"""The mqtt-topic driver: payloads by themselves, and the driver with a real mosquitto that something publishes to."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from live import until

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Request, Samples
from blossom_edge.sensors.drivers import mqtt_topic as driver_module
from blossom_edge.sensors.drivers.mqtt_payload import MAX_BYTES, Item, PayloadFormat, WrongPayload
from blossom_edge.sensors.drivers.mqtt_topic import MqttTopicDriver
from firmware_profiles.schema import ProfileChannel

TWO = PayloadFormat(("ax", "ay"))
real_broker = [
    pytest.mark.broker,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]
needs_broker = lambda test: real_broker[0](real_broker[1](test))  # noqa: E731


@pytest.mark.parametrize(
    ("form", "payload", "items"),
    [
        (TWO, '{"t": 12.5, "values": [1, 2.5]}', [Item(12.5, (1.0, 2.5))]),
        (TWO, '{"ay": 2, "ax": 1, "other": "x"}', [Item(None, (1.0, 2.0))]),
        (TWO, '[{"t": 1, "values": [1, 2]}, {"t": 2, "values": [3, 4]}]', [Item(1.0, (1, 2)), Item(2.0, (3, 4))]),
        (PayloadFormat(("v",), time="ms"), '{"t": 1500, "v": 7}', [Item(1.5, (7.0,))]),
        (PayloadFormat(("v",), time="none"), '{"t": 1500, "v": 7}', [Item(None, (7.0,))]),
        (PayloadFormat(("v",), label=True), '{"v": 7, "label": "walk"}', [Item(None, (7.0,), "walk")]),
        (PayloadFormat(("v",), label=True), '{"v": 7, "label": null}', [Item(None, (7.0,), "")]),
        (PayloadFormat(("v", "w"), "csv"), "12.5,1,2\r\n13,3,4\n# end", [Item(12.5, (1, 2)), Item(13.0, (3, 4))]),
        (PayloadFormat(("v",), "csv", "none", label=True), "7, walk", [Item(None, (7.0,), "walk")]),
    ],
)
def test_a_payload_is_read(form: PayloadFormat, payload: str, items: list[Item]) -> None:
    assert form.read(payload.encode()) == items


@pytest.mark.parametrize("payload", ['{"values": [null, NaN]}', '{"ax": null, "ay": NaN}'])
def test_null_and_nan_are_no_numbers_but_a_sample(payload: str) -> None:
    (item,) = TWO.read(payload.encode())
    assert all(map(math.isnan, item.values))


@pytest.mark.parametrize(
    ("form", "payload", "why"),
    [
        (TWO, b"\xff", "no text"),
        (TWO, b"{", "no JSON"),
        (TWO, b"[" * 100_000, "no JSON"),
        (TWO, b"7", "expected an object"),
        (TWO, b'{"ax": 1}', "there is no 'ay'"),
        (TWO, b'{"values": [1]}', "found 1 values, expected 2"),
        (TWO, b'{"values": "12"}', "expected an array"),
        (TWO, b'{"values": [1, true]}', "found True"),
        (TWO, b'{"values": [1, [2]]}', "expected a number"),
        (TWO, b'{"values": [1, 1e999], "t": 1e999}', "expected a time"),
        (TWO, b'{"values": [1, 2], "t": null}', ""),
        (PayloadFormat(("v",), "csv"), b"7", "found 0 values, expected 1"),
        (PayloadFormat(("v",), "csv"), b"1,7,8", "found 2 values, expected 1"),
        (PayloadFormat(("v",), "csv"), b"1,1_0", "found '1_0'"),
        (TWO, b" " * (MAX_BYTES + 1), "bytes"),
    ],
)
def test_a_wrong_payload_says_what_is_wrong(form: PayloadFormat, payload: bytes, why: str) -> None:
    if not why:  # a time that is not there is none
        assert form.read(payload) == [Item(None, (1.0, 2.0))]
        return
    with pytest.raises(WrongPayload, match=why):
        form.read(payload)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker("mosquitto", tmp_path_factory.mktemp("broker"), port=0) as running:
        yield running


class Publisher:
    """Something else that publishes samples, connected to a broker."""

    def __init__(self, port: int, *, username: str = "", password: str = "") -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        if username:
            self._client.username_pw_set(username, password)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def say(self, topic: str, *payloads: str | dict[str, Any], retain: bool = False) -> None:
        for payload in payloads:
            text = payload if isinstance(payload, str) else json.dumps(payload)
            self._client.publish(topic, text, qos=1, retain=retain).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def publisher(broker: Broker) -> Iterator[Publisher]:
    made = Publisher(broker.port)
    yield made
    made.close()


@pytest.fixture
def drivers() -> Iterator[Callable[..., MqttTopicDriver]]:
    made: list[MqttTopicDriver] = []

    def make(channels: tuple[str, ...] = ("ax", "ay"), rate_hz: float = 100.0, **options: Any) -> MqttTopicDriver:
        columns = tuple(ProfileChannel(name=name, unit="m/s2", range=(-20.0, 20.0)) for name in channels)
        made.append(
            MqttTopicDriver(Request("imu", columns, rate_hz, options={"topic": "imu", "start_s": 0, **options}))
        )
        return made[-1]

    yield make
    for driver in made:
        driver.close()


def take(driver: MqttTopicDriver, num_samples: int) -> Samples:
    parts: list[Samples] = []

    def enough() -> bool:
        parts.append(driver.read(0.1))
        return sum(map(len, parts)) >= num_samples

    until(enough, f"{num_samples} samples", [], timeout_s=10)
    labels = {task: np.concatenate([p.labels[task] for p in parts if len(p)]) for task in parts[-1].labels}
    times, values = np.concatenate([p.times for p in parts]), np.concatenate([p.values for p in parts])
    return Samples(times, values, labels)


@needs_broker
def test_samples_of_another_program_come_with_its_times(broker: Broker, publisher: Publisher, drivers: Any) -> None:
    driver = drivers(port=broker.port, columns=["ay", "ax"], units=["m/s2", "g"])
    assert driver.units == ("g", "m/s2")
    driver.open()
    wrong_clock = 1_000_000.0  # 1970: only differences count
    # ten at once: the publisher's times keep them apart
    publisher.say("imu", json.dumps([{"t": wrong_clock + n / 100, "values": [n, -n]} for n in range(10)]))
    together = take(driver, 10)
    assert np.diff(together.times) == pytest.approx(0.01)
    assert together.values.tolist() == [[-n, n] for n in range(10)]
    publisher.say("imu", {"t": wrong_clock + 0.1, "ax": 1, "ay": 2})
    alone = take(driver, 1)
    assert alone.values.tolist() == [[1.0, 2.0]]
    assert together.times[-1] < alone.times[0] <= time.monotonic()


@needs_broker
def test_without_a_time_each_sample_is_of_its_arrival(broker: Broker, publisher: Publisher, drivers: Any) -> None:
    driver = drivers(("ax",), port=broker.port, payload="csv", time="none", label="har", rate_hz=5.0)
    driver.open()
    before = time.monotonic()
    publisher.say("imu", "1,walk", "2,")
    found = take(driver, 2)
    assert found.values.ravel().tolist() == [1.0, 2.0]
    assert found.labels["har"].tolist() == ["walk", "nan"]
    assert before <= found.times[0] < found.times[1]
    assert found.times[1] - 0.2 <= time.monotonic()


@needs_broker
def test_wrong_messages_are_counted_and_retained_ones_passed_over(
    broker: Broker, publisher: Publisher, drivers: Any
) -> None:
    publisher.say("kept", {"values": [9, 9]}, retain=True)
    driver = drivers(port=broker.port, topic="kept")
    driver.open()
    publisher.say("kept", "{", {"values": [1]}, {"values": [1, 2]})
    assert take(driver, 1).values.tolist() == [[1.0, 2.0]]
    assert driver.num_wrong == 2


@needs_broker
def test_what_is_not_read_is_bounded_and_the_newest_kept(
    broker: Broker, publisher: Publisher, drivers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "MAX_WAITING", 10)
    driver = drivers(("ax",), port=broker.port)
    driver.open()
    publisher.say("imu", *[{"t": n, "ax": n} for n in range(25)])
    until(lambda: driver.num_dropped == 15, "15 messages to be dropped", [])
    assert take(driver, 10).values.ravel().tolist() == list(range(15, 25))


@needs_broker
def test_a_topic_that_falls_silent_fails(
    broker: Broker, publisher: Publisher, drivers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "SILENT_S", 0.3)
    driver = drivers(port=broker.port)
    driver.open()
    publisher.say("imu", "{", {"values": [1, 2]})
    take(driver, 1)
    with pytest.raises(HardwareError, match=r"none as declared, for 0\.3 s; the last: b'\{'") as caught:
        take(driver, 1)
    assert caught.value.error_id == "sensor-failed"


@needs_broker
def test_a_topic_without_samples_is_no_source(broker: Broker, drivers: Any) -> None:
    with pytest.raises(HardwareError, match=r"nothing came for 0\.2 s") as caught:
        drivers(port=broker.port, topic="nobody/here", start_s=0.2).open()
    assert caught.value.error_id == "sensor-missing"
    assert f"mosquitto_sub -h 127.0.0.1 -p {broker.port} -t 'nobody/here'" in caught.value.hint


@pytest.mark.slow
@needs_broker
def test_a_broker_that_ends_and_comes_back_is_found_again_and_one_that_stays_away_fails(
    tmp_path: Path, drivers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "GONE_S", 3.0)
    with start_broker("mosquitto", tmp_path, port=0) as first:
        port = first.port
        driver = drivers(port=port)
        driver.open()
    with start_broker("mosquitto", tmp_path, port=port):
        publisher = Publisher(port)

        def came() -> int:
            publisher.say("imu", {"values": [1, 2]})
            return len(driver.read(0.1))

        until(came, "a sample of the new broker", [], timeout_s=10)
        publisher.close()
    started = time.monotonic()
    with pytest.raises(HardwareError, match="is gone for 3 s") as caught:
        take(driver, 1000)
    assert caught.value.error_id == "sensor-failed"
    assert time.monotonic() - started >= 2.5
    driver.close()
    with pytest.raises(HardwareError, match="no broker at 127"):
        driver.open()


@needs_broker
def test_the_password_comes_from_the_environment(tmp_path: Path, drivers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_broker("mosquitto", tmp_path, port=0, device_password="secret") as locked:
        user, topic = locked.address.username, "bl/1/x/up/device/1"
        mine = {"port": locked.port, "topic": topic, "username": user, "password_env": "TEST_MQTT"}
        with pytest.raises(ConfigError, match="no environment variable TEST_MQTT"):
            drivers(**mine).open()
        monkeypatch.setenv("TEST_MQTT", "wrong")
        with pytest.raises(HardwareError, match=f"broker 127.0.0.1:{locked.port}: .*[Nn]ot authori[sz]ed"):
            drivers(**mine).open()
        monkeypatch.setenv("TEST_MQTT", locked.address.password)
        driver = drivers(**mine)
        driver.open()
        publisher = Publisher(locked.port, username="device", password="secret")
        publisher.say(topic, {"values": [1, 2]})
        publisher.close()
        assert len(take(driver, 1)) == 1


def test_no_broker_is_no_source(drivers: Any) -> None:
    with pytest.raises(HardwareError, match="no broker at 127") as caught:
        drivers(port=1).open()
    assert caught.value.error_id == "sensor-missing"


@pytest.mark.parametrize("options", [{"topic": ""}, {"password": "x"}, {"payload": "xml"}, {"columns": ["ax"]}])
def test_wrong_options_are_refused_before_anything_is_opened(drivers: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        drivers(**options)
    assert caught.value.error_id == "profile-invalid"
