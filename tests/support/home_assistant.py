"""What Home Assistant does with MQTT messages, as far as its documentation says it; a stand-in, not the real one.

Sources: home-assistant.io, pages integrations/mqtt, integrations/sensor.mqtt and integrations/binary_sensor.mqtt; and
what homeassistant/components/mqtt/sensor.py does with a state (unknown options and states above 255 are ignored).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.home_assistant import plain_id
from aggregator.recovery import open_truth
from aggregator.service import Service
from blossom_edge.federation.schema import Federation
from blossom_edge.transport.link import Message
from blossom_edge.transport.loopback import LoopbackBroker
from support.raw_device import RawDevice

KEYS = {
    "sensor": {
        "availability", "availability_mode", "availability_template", "availability_topic", "default_entity_id",
        "device", "device_class", "enabled_by_default", "encoding", "entity_category", "entity_picture", "expire_after",
        "force_update", "icon", "json_attributes_template", "json_attributes_topic", "last_reset_value_template",
        "name", "options", "payload_available", "payload_not_available", "suggested_display_precision", "qos",
        "state_class", "state_topic", "unique_id", "unit_of_measurement", "value_template", "origin",
    },
    "binary_sensor": {
        "availability", "availability_mode", "availability_topic", "device", "device_class", "enabled_by_default",
        "encoding", "entity_category", "expire_after", "force_update", "icon", "name", "off_delay",
        "payload_available", "payload_not_available", "payload_off", "payload_on", "qos", "state_topic", "unique_id",
        "value_template", "origin",
    },
}  # fmt: skip
DEVICE_KEYS = {
    "configuration_url", "connections", "hw_version", "identifiers", "manufacturer", "model", "model_id", "name",
    "serial_number", "suggested_area", "sw_version", "via_device",
}  # fmt: skip
UNKNOWN, UNAVAILABLE = "unknown", "unavailable"


@dataclass
class Entity:
    """An entity that a config made, and what it shows."""

    component: str
    config: dict[str, Any]
    value: str = UNKNOWN
    attributes: dict[str, Any] = field(default_factory=dict)
    available: dict[str, bool] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """What a person sees."""
        topics = [entry["topic"] for entry in self.config.get("availability", ())]
        return self.value if all(self.available.get(topic, False) for topic in topics) else UNAVAILABLE

    def take(self, topic: str, payload: str) -> None:
        """A message on a topic of the config; an empty one changes nothing."""
        if not payload:
            return
        if topic in [entry["topic"] for entry in self.config.get("availability", ())]:
            words = {
                self.config.get("payload_available", "online"): True,
                self.config.get("payload_not_available", "offline"): False,
            }
            self.available[topic] = words.get(payload, self.available.get(topic, False))
        if topic == self.config.get("json_attributes_topic"):
            self.attributes = json.loads(render(self.config.get("json_attributes_template"), payload))
        if topic == self.config["state_topic"]:
            self._take_state(render(self.config.get("value_template"), payload))

    def _take_state(self, text: str) -> None:
        config = self.config
        if self.component == "binary_sensor":
            words = {config.get("payload_on", "ON"): "on", config.get("payload_off", "OFF"): "off"}
            self.value = words.get(text, self.value)
        elif text == "None":
            self.value = UNKNOWN
        elif "unit_of_measurement" in config or "state_class" in config:
            float(text)
            self.value = text
        elif (text in config["options"] if "options" in config else True) and len(text) <= 255:
            self.value = text


class HomeAssistant:
    """Takes messages; `entities` by unique id."""

    def __init__(self, prefix: str = "homeassistant") -> None:
        self.prefix = prefix
        self.entities: dict[str, Entity] = {}
        self._by_topic: dict[str, str] = {}
        self._last: dict[str, str] = {}

    def take(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """A message from the broker; a config without the retain flag would be lost, so `retained` is its last word."""
        text = payload.decode()
        if topic.startswith(f"{self.prefix}/"):
            self._discover(topic, text)
            return
        self._last[topic] = text
        for entity in self.entities.values():
            entity.take(topic, text)

    def _discover(self, topic: str, text: str) -> None:
        found = re.fullmatch(
            rf"{self.prefix}/(sensor|binary_sensor)/(?:[a-zA-Z0-9_-]+/)?([a-zA-Z0-9_-]+)/config", topic
        )
        assert found, f"no discovery topic: {topic}"
        if not text:
            self.entities.pop(self._by_topic.pop(topic, ""), None)
            return
        config = json.loads(text)
        check_config(found[1], config)
        unique_id = config["unique_id"]
        assert self._by_topic.setdefault(topic, unique_id) == unique_id
        assert list(self._by_topic.values()).count(unique_id) == 1, f"two configs of {unique_id}"
        entity = self.entities[unique_id] = Entity(found[1], config)
        for heard, last in self._last.items():
            entity.take(heard, last)


def check_config(component: str, config: dict[str, Any]) -> None:
    """Hold a config against the documentation: known keys, required ones, and what goes together."""
    assert set(config) <= KEYS[component], set(config) - KEYS[component]
    assert config["state_topic"], "required"
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", config["unique_id"])
    device = config["device"]
    assert set(device) <= DEVICE_KEYS
    assert device["identifiers"], "identifiers or connections are required"
    assert {"name"} <= set(config["origin"]) <= {"name", "sw_version", "support_url"}
    assert config.get("entity_category", "diagnostic") == "diagnostic", "a sensor has no other category"
    assert not {"availability", "availability_topic"} <= set(config), "one of the two"
    assert config.get("availability_mode", "latest") in ("all", "any", "latest")
    assert all(
        set(entry) <= {"topic", "payload_available", "payload_not_available"}
        for entry in config.get("availability", ())
    )
    if "options" in config:
        assert config["device_class"] == "enum"
        assert config["options"], "an empty list is not allowed"
        assert not {"state_class", "unit_of_measurement"} & set(config)
    if component == "binary_sensor":
        assert config["device_class"] == "connectivity"
    else:
        assert config.get("state_class", "measurement") == "measurement"


def render(template: str | None, payload: str) -> str:
    """A value template, of the only forms that we use: `{{ value_json.name }}`, and with `| tojson`."""
    if template is None:
        return payload
    found = re.fullmatch(r"\{\{ value_json\.(\w+)( \| tojson)? \}\}", template)
    assert found, template
    value = json.loads(payload)[found[1]]
    return json.dumps(value) if found[2] else str(value)


class Clock:
    """The gateway's time, in the test's hands."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Home:
    """A gateway, a device, and somebody who looks on like Home Assistant does."""

    def __init__(self, folder: Path, federation: Federation, prefix: str = "homeassistant") -> None:
        self.clock, self.broker, self.federation = Clock(), LoopbackBroker(), federation
        self.sent: list[tuple[str, bytes]] = []
        self.broker.watch(lambda topic, payload: self.sent.append((topic, payload)))
        self.truth = open_truth(folder, federation)
        self.service = self.start(prefix)
        self.assistant = HomeAssistant(prefix or "homeassistant")
        self._ear = self.broker.link("assistant")
        for topic_filter in ("blossom/#", f"{self.assistant.prefix}/#"):
            self._ear.subscribe(topic_filter)
        self.device = self.meet("watch-1")

    def close(self) -> None:
        """Close all files."""
        self.truth.ledger.close()

    def start(self, prefix: str = "homeassistant") -> Service:
        """A gateway that knows only what is on its disk."""
        self.service = Service(self.truth, self.broker.link("gateway"), clock=self.clock, mirror_prefix=prefix)
        return self.service

    def meet(self, name: str, **more: Any) -> RawDevice:
        """A device says hello."""
        device = RawDevice(self.broker.link(name), self.federation, name, **more)
        device.hello()
        self.run()
        return device

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass; the gateway does what is due, and the looker-on hears it."""
        end = self.clock.now + seconds
        while True:
            while self.service.step(0.0):
                pass
            while (event := self._ear.receive(0.0)) is not None:
                if isinstance(event, Message):
                    self.assistant.take(event.topic, event.payload, retained=event.retained)
            due = self.service.next_due()
            if due is None or due > end:
                self.clock.now = end
                return
            self.clock.now = max(self.clock.now, due)

    def later(self) -> HomeAssistant:
        """One more looker-on that starts now, from what is retained."""
        assistant = HomeAssistant(self.assistant.prefix)
        for message in (*self.broker.retained(f"{assistant.prefix}/#"), *self.broker.retained("blossom/#")):
            assistant.take(message.topic, message.payload, retained=True)
        return assistant

    def states(self) -> dict[str, str]:
        """What a person sees, by the id of the entity without the federation's."""
        return {
            name.removeprefix(f"{plain_id('blossom', self.federation.name)}__"): e.state
            for name, e in self.assistant.entities.items()
        }
