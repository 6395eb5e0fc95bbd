"""Predictions at the gateway: which are believed, what status knows of them; and devices that train nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.home_assistant import Home
from support.raw_device import RawDevice

from aggregator.broker.access import Login, acl_file
from aggregator.cli.serve import _is_over
from aggregator.settings import load_settings
from aggregator.status import snapshot
from blossom_edge.codec.messages import UsedVersion
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation

HAR = load_federation("har")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "gateway", HAR)
    yield home
    home.close()


def last(home: Home) -> list[tuple[str, object]]:
    (device,) = [d for d in snapshot(home.service, home.clock.now)["devices"] if d["id"] == "watch-1"]
    return [(p["task"], p["state"]) for p in device["predictions"]]


def test_status_has_the_last_prediction_with_the_age_of_its_window(home: Home) -> None:
    assert last(home) == []
    home.device.predict("har", "PEN", age_s=2.0)
    home.run(5.0)
    (device,) = snapshot(home.service, home.clock.now)["devices"]
    (said,) = device["predictions"]
    assert (said["state"], said["confidence"], home.clock.now - said["window_end_s"]) == ("PEN", 0.925, 7.0)
    home.device.predict("har", "ABD")
    home.run()
    assert last(home) == [("har", "ABD")]
    assert device["role"] == "infer"


def test_an_old_or_doubled_prediction_is_dropped(home: Home) -> None:
    home.device.predict("har", "PEN", sequence=7)
    home.device.predict("har", "ABD", sequence=7)
    home.device.predict("har", "FEL", sequence=6)
    home.device.predict("har", "IR", sequence=8, epoch=2)
    home.run()
    assert last(home) == [("har", "PEN")]
    home.device.boot += 1
    home.device.sequence = 20
    home.device.hello()
    home.device.predict("har", "IR", sequence=20)
    home.run()
    assert last(home) == [("har", "PEN")], "it said in its hello that it had come to 20"


def test_states_and_predictions_share_one_sequence(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.device.state("evaluated", 1)
    home.device.predict("har", "ABD")
    home.run()
    assert last(home) == [("har", "ABD")]
    assert home.service.machine.state.members[home.device.device].evaluated == 1


def test_nobody_else_can_speak_for_a_device(home: Home) -> None:
    stranger = RawDevice(home.broker.link("stranger"), HAR, "stranger")
    stranger.predict("har", "PEN")
    forger = RawDevice(home.broker.link("forger"), HAR, "watch-1")
    forger.key = stranger.key
    forger.predict("har", "PEN")
    home.run()
    assert last(home) == []
    assert home.service.dropped == {"frame": 1, "signature": 1}


WRONG: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "a task that is not there": ("else", ("PEN",), {}),
    "a class that is not there": ("har", ("<b>PEN</b>",), {}),
    "two classes": ("har", ("PEN", "ABD"), {}),
    "no class": ("har", (), {}),
    "another kind": ("har", (), {"kind": "regression", "value": 1.0, "confidence": None}),
    "a value besides": ("har", ("PEN",), {"value": 1.0}),
    "no confidence": ("har", ("PEN",), {"confidence": None}),
    "a modality that is not there": ("har", ("PEN",), {"present": ("smell",)}),
    "a block that is not there": ("har", ("PEN",), {"versions": (UsedVersion(block="encoder/smell", version=1),)}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_federation_does_not_know_is_not_passed_on(name: str, home: Home) -> None:
    task, labels, more = WRONG[name]
    home.device.predict(task, *labels, **more)
    home.run()
    assert last(home) == []
    assert home.assistant.entities == {}
    assert sum(home.service.dropped.values()) == 1


# ---- the end, and settings


def test_a_gateway_that_ends_with_its_federation_waits_for_the_last_evaluation_of_devices_without_part(
    home: Home,
) -> None:
    assert not _is_over(home.service)
    home.service.control("finish")
    home.run()
    assert not _is_over(home.service), "the device is here and has said nothing of the last versions"
    home.device.state("evaluated", 0)
    home.run()
    assert not _is_over(home.service), "of an earlier round"
    home.device.state("evaluated", 1)
    home.device.state("waiting", 1)
    home.run()
    assert _is_over(home.service)
    trainer = home.meet("watch-2", role="train")
    trainer.state("evaluated", 1)
    home.run()
    assert not _is_over(home.service), "a device that trains leaves by itself"
    trainer.bye()
    home.run()
    assert _is_over(home.service)


def test_devices_that_only_use_blocks_own_none_of_them_and_keep_no_round_waiting(home: Home) -> None:
    state = home.service.machine.state
    assert [state.owners(key) for key in state.versions] == [[]] * len(state.versions)
    found = snapshot(home.service, home.clock.now)
    assert (
        "encoder/accel: no training device has accel, so nobody trains it; a device with it has to join"
        in found["warnings"]
    )
    assert not any("owner" in warning for warning in found["warnings"])
    home.run(home.federation.rounds.start_after_s + 1)
    assert state.round == 0


def test_the_settings_say_whether_and_below_what(tmp_path: Path) -> None:
    assert load_settings(None, {"data_dir": tmp_path}).mirror_prefix == "homeassistant"
    file = tmp_path / "gateway.toml"
    file.write_text('home_assistant = false\nhome_assistant_prefix = "ha/test"\n')
    settings = load_settings(file, {})
    assert (settings.home_assistant_prefix, settings.mirror_prefix) == ("ha/test", "")
    for prefix in ("", "a/#", "+", "bl/1", "blossom/x", "/a", "a b", "$SYS"):
        file.write_text(f'home_assistant_prefix = "{prefix}"\n')
        with pytest.raises(ConfigError, match="home_assistant_prefix"):
            load_settings(file, {})


def test_the_access_list_lets_a_viewer_read_what_is_mirrored_and_write_nothing() -> None:
    text = acl_file(Login("word", "view", "ha/test")).decode()
    viewer = text.partition("user viewer\n")[2].partition("user ")[0]
    assert viewer.split("\n")[:2] == ["topic read blossom/#", "topic read ha/test/#"]
    assert "write" not in viewer
    assert "viewer" not in acl_file(Login("word")).decode()
    assert "viewer" not in Login("word").users
    assert Login(None, "view").users == {}
