"""Predictions at the gateway, seen from outside: what Home Assistant makes of what is mirrored, and other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.home_assistant import UNAVAILABLE, UNKNOWN, Home

from aggregator.home_assistant import HEARTBEAT_S, gateway_will, plain_id
from aggregator.mirror import GAP_S, SILENT_S
from blossom_edge.federation.load import load_federation

HAR = load_federation("har")
TWO = load_federation("two-tasks")
MANY = load_federation("har", sets=["tasks.har={type='multilabel', classes=['calm', 'loud', 'odd']}"])
PEN = "blossom__har__watch-1__har"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "gateway", HAR)
    yield home
    home.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "gateway", TWO)
    yield home
    home.close()


# ---- what Home Assistant shows


def test_a_device_appears_by_itself_with_its_class_and_how_sure_it_is(home: Home) -> None:
    assert home.assistant.entities == {}, "nobody publishes yet"
    home.device.predict("har", "PEN")
    home.run()
    assert home.states() == {
        "blossom__har": "on",
        "watch-1__har": "PEN",
        "watch-1__har__confidence": "92.5",
        "watch-1__har__latency": "1.5",
    }
    entity = home.assistant.entities[PEN]
    assert entity.attributes == {
        "versions": {"encoder/accel": 3},
        "own_head": False,
        "present": ["accel"],
        "labels": ["PEN"],
    }
    assert (entity.config["device_class"], entity.config["options"]) == ("enum", list(HAR.tasks["har"].classes))
    assert entity.config["device"] == {
        "identifiers": ["blossom__har__watch-1"],
        "name": "watch-1",
        "manufacturer": "blossom-edge",
        "model": "watch",
        "sw_version": "blossom-edge 0.4.0",
        "via_device": "blossom__har",
    }
    assert home.assistant.entities["blossom__har"].config["device"]["identifiers"] == ["blossom__har"]
    assert home.assistant.entities[f"{PEN}__latency"].config["enabled_by_default"] is False


def test_the_state_is_plain_json_that_needs_no_home_assistant(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run()
    (state,) = home.broker.retained("blossom/har/watch-1/har")
    said = json.loads(state.payload)
    assert said["state"] == "PEN"
    assert (said["federation"], said["device"], said["task"], said["kind"]) == (
        "har",
        "watch-1",
        "har",
        "classification",
    )
    assert (said["confidence"], said["confidence_percent"], said["latency_ms"]) == (0.925, 92.5, 1.5)
    assert (said["versions"], said["present"]) == ({"encoder/accel": 3}, ["accel"])


def test_a_regression_has_its_unit_and_a_second_task_is_an_entity_of_the_same_device(two: Home) -> None:
    two.device.predict("activity", "walk")
    two.device.predict("speed", kind="regression", value=1.25, confidence=None, unit="furlong")
    two.run()
    speed = two.assistant.entities["blossom__two-tasks__watch-1__speed"]
    assert speed.state == "1.25"
    assert speed.config["unit_of_measurement"] == "m/s", "the federation's unit, whatever a device says"
    assert speed.config["device"] == two.assistant.entities["blossom__two-tasks__watch-1__activity"].config["device"]
    assert "watch-1__speed__confidence" not in two.states()


def test_a_multilabel_task_is_one_text(tmp_path: Path) -> None:
    home = Home(tmp_path / "gateway", MANY)
    home.device.predict("har", "calm", "odd", kind="multilabel")
    home.run()
    assert home.states()["watch-1__har"] == "calm, odd"
    home.device.predict("har", kind="multilabel", confidence=None)
    home.run(1.0)
    assert home.states()["watch-1__har"] == "none"
    assert home.states()["watch-1__har__confidence"] == UNKNOWN
    assert "options" not in home.assistant.entities[PEN].config
    home.close()


def test_more_labels_than_a_state_may_have_letters_are_cut(tmp_path: Path) -> None:
    names = [f"class number {n:03}" for n in range(40)]
    home = Home(
        tmp_path / "gateway", load_federation("har", sets=[f"tasks.har={{type='multilabel', classes={names}}}"])
    )
    home.device.predict("har", *names, kind="multilabel")
    home.run()
    assert len(home.states()["watch-1__har"]) == 255
    assert home.assistant.entities[PEN].attributes["labels"] == names
    home.close()


def test_a_device_that_leaves_is_unavailable_and_back_when_it_is_back(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run()
    home.device.bye()
    home.run()
    assert home.states()["watch-1__har"] == UNAVAILABLE
    assert home.states()["blossom__har"] == "on"
    home.device.connection += 1
    home.device.hello()
    home.run()
    assert home.states()["watch-1__har"] == "PEN"


def test_a_device_whose_windows_stop_is_unavailable_though_it_is_connected(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run(SILENT_S - 1)
    assert home.states()["watch-1__har"] == "PEN"
    home.run(1 + HEARTBEAT_S)
    assert home.states()["watch-1__har"] == UNAVAILABLE
    home.device.predict("har", "ABD", age_s=SILENT_S + 1)
    home.run(1.0)
    assert home.states()["watch-1__har"] == UNAVAILABLE, "an old window is no news"
    home.device.predict("har", "ABD")
    home.run()
    assert home.states()["watch-1__har"] == "ABD"


def test_a_device_that_starts_again_is_available_with_its_next_prediction(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run()
    home.device.connection += 1
    home.device.hello()
    home.run()
    assert home.states()["watch-1__har"] == "PEN", "it only connected again"
    home.device.boot += 1
    home.device.hello()
    home.run()
    assert home.states()["watch-1__har"] == UNAVAILABLE, "perhaps it does not publish any more"
    home.device.predict("har", "ABD")
    home.run()
    assert home.states()["watch-1__har"] == UNAVAILABLE, "never the old state as a new one"
    home.run(GAP_S)
    assert home.states()["watch-1__har"] == "ABD"


def test_who_looks_later_finds_configs_and_states_and_the_gateway_with_its_next_beat(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run()
    later = home.later()
    assert later.entities[PEN].value == "PEN"
    assert later.entities[PEN].state == UNAVAILABLE, "nobody said yet that the gateway lives"
    before = len(home.sent)
    home.run(HEARTBEAT_S)
    beats = [(topic, payload) for topic, payload in home.sent[before:] if topic == "blossom/har/_gateway"]
    assert beats == [("blossom/har/_gateway", b"online")]
    later.take(*beats[0], retained=False)
    assert later.entities[PEN].state == "PEN"
    assert not home.broker.retained("blossom/har/_gateway"), "a broker must not keep it alive"


def test_a_gateway_that_stops_or_breaks_off_is_seen(home: Home) -> None:
    assert gateway_will("har")(7) == ("blossom/har/_gateway", b"offline")
    home.service.goodbye()
    home.run()
    assert home.sent[-1][0] != "blossom/har/_gateway", "nothing was mirrored, so nothing is said"
    home.device.predict("har", "PEN")
    home.run()
    home.service.goodbye()
    home.run()
    assert home.states()["watch-1__har"] == UNAVAILABLE
    assert home.states()["blossom__har"] == "off"


def test_after_the_link_was_down_everything_is_said_again(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run()
    first = {message.topic for message in home.broker.retained("#")}
    for topic in first:
        home.broker.deliver(topic, b"", retain=True)
    home.broker.cut("gateway")
    home.broker.restore("gateway")
    home.run()
    again = {message.topic for message in home.broker.retained("#")}
    assert again == first
    assert home.later().entities[PEN].value == "PEN"
    (available,) = home.broker.retained("blossom/har/watch-1/_availability")
    assert available.payload == b"offline", "until it says hello again"


def test_forgetting_a_device_takes_back_all_that_is_retained_of_it_also_of_an_earlier_run(two: Home) -> None:
    two.device.predict("activity", "walk")
    two.device.predict("speed", kind="regression", value=1.25, confidence=None)
    other = two.meet("watch-2")
    other.predict("activity", "run")
    two.run()
    assert len(two.broker.retained("blossom/two-tasks/watch-1/#")) == 3
    two.start()  # nothing of the earlier run is in memory
    assert two.service.forget(two.device.device)
    two.run()
    assert two.broker.retained("blossom/two-tasks/watch-1/#") == []
    assert [m.topic for m in two.broker.retained("homeassistant/#") if "watch-1" in m.topic] == []
    assert {"watch-2__activity", "watch-2__activity__confidence"} <= set(two.states())
    assert not any("watch-1" in name for name in two.states())


def test_states_come_at_most_every_gap_and_the_newest_always_does(home: Home) -> None:
    home.device.predict("har", "PEN")
    home.run()
    before = len(home.sent)
    for label in ("ABD", "FEL", "IR"):
        home.device.predict("har", label)
    home.run()
    said = [topic for topic, _ in home.sent[before:] if topic == "blossom/har/watch-1/har"]
    assert said == []
    home.run(GAP_S)
    said = [payload for topic, payload in home.sent[before:] if topic == "blossom/har/watch-1/har"]
    assert [json.loads(payload)["state"] for payload in said] == ["IR"]


def test_a_config_is_said_once_and_again_when_the_device_has_changed(home: Home) -> None:
    for _ in range(3):
        home.device.predict("har", "PEN")
        home.run(1.0)
    assert sum(topic == f"homeassistant/sensor/{PEN}/config" for topic, _ in home.sent) == 1
    home.device.boot += 1
    home.device.hello(software="blossom-edge 0.5.0")
    home.device.predict("har", "PEN")
    home.run(1.0)
    assert home.assistant.entities[PEN].config["device"]["sw_version"] == "blossom-edge 0.5.0"
    home.device.boot += 1
    home.device.hello(software="<script>")
    home.device.predict("har", "PEN")
    home.run(1.0)
    assert "sw_version" not in home.assistant.entities[PEN].config["device"]


def test_without_home_assistant_nothing_is_mirrored_and_status_knows_it_all_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path / "gateway", HAR, prefix="")
    home.device.predict("har", "PEN")
    home.run(60.0)
    home.service.forget(home.device.device)
    home.service.goodbye()
    assert [topic for topic, _ in home.sent if not topic.startswith("bl/1/")] == []
    home.close()


def test_ids_are_plain_and_different_for_different_names() -> None:
    names = [("a.b", "c"), ("a", "b.c"), ("a.b.c",), ("a", "b", "c"), ("a.", "b"), ("a", "0b"), ("a.0b",), ("a..b",)]
    ids = [plain_id(*parts) for parts in names]
    assert len(set(ids)) == len(ids)
    assert all(part.replace("_", "").isalnum() for part in ids)
