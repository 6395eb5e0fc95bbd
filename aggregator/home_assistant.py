"""Predictions in the words of Home Assistant: topics, discovery configs and states. Pure functions, they send nothing.

One config per entity (`PREFIX/sensor/ID/config`): every version with MQTT discovery understands that form, while one
config per device needs 2024.11 or newer. The state is one plain JSON object per device and task below `blossom/`, which
a program reads that knows nothing of Home Assistant.

    blossom/{federation}/_gateway                     online, said again every HEARTBEAT_S; offline
    blossom/{federation}/{device}/_availability       online or offline, retained
    blossom/{federation}/{device}/{task}              the state, retained

Source: https://www.home-assistant.io/integrations/mqtt (discovery, availability), /sensor.mqtt and /binary_sensor.mqtt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aggregator.predictions import Heard
from blossom_edge import __version__
from blossom_edge.federation.schema import Federation
from blossom_edge.transport.link import WillMaker

ROOT = "blossom"
"""Below it stands what is mirrored; no topic of the protocol does."""
ONLINE, OFFLINE = b"online", b"offline"
HEARTBEAT_S = 15.0
"""The gateway's `online` is never retained: it is said again, so that no broker keeps it alive when nobody does."""
MAX_STATE_CHARS = 255
"""Longer states are ignored by Home Assistant."""


@dataclass(frozen=True, slots=True)
class About:
    """What Home Assistant is told of a device: who it is, what profile, which software."""

    device: str
    profile: str
    software: str = ""


def gateway_topic(federation: str) -> str:
    """Where the gateway says that it is there; the underscore keeps it apart from every device's name."""
    return f"{ROOT}/{federation}/_gateway"


def availability_topic(federation: str, device: str) -> str:
    """Whether the gateway sees a device."""
    return f"{ROOT}/{federation}/{device}/_availability"


def state_topic(federation: str, device: str, task: str) -> str:
    """The last prediction of a device for a task."""
    return f"{ROOT}/{federation}/{device}/{task}"


def gateway_will(federation: str) -> WillMaker:
    """What the broker says when the gateway's connection breaks; not retained, like its heartbeat."""
    return lambda connection: (gateway_topic(federation), OFFLINE)


def plain_id(*names: str) -> str:
    """One id of letters, digits, `_` and `-` from several names, different for different names.

    A dot becomes `_0`, and names are joined by `__`: no name has an underscore of its own.
    """
    return "__".join(name.replace(".", "_0") for name in names)


def state_of(federation: str, device: str, heard: Heard) -> bytes:
    """A prediction as JSON; `state` is a class, classes joined by commas, or a number."""
    shown = heard.shown()
    if isinstance(heard.state, str) and len(heard.state) > MAX_STATE_CHARS:
        shown["state"] = heard.state[: MAX_STATE_CHARS - 3] + "..."
    shown["attributes"] = {
        "versions": heard.versions,
        "own_head": heard.personal,
        "present": list(heard.present),
        "labels": list(heard.labels),
    }
    return json.dumps({"federation": federation, "device": device, **shown}, ensure_ascii=False).encode()


def gateway_configs(federation: Federation, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Topic and config of the gateway itself: the devices hang below it, so it has to be there first."""
    name = federation.name
    config = {
        "name": "Connected",
        "unique_id": plain_id(ROOT, name),
        "state_topic": gateway_topic(name),
        "payload_on": ONLINE.decode(),
        "payload_off": OFFLINE.decode(),
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "expire_after": round(4 * HEARTBEAT_S),
        "device": {
            "identifiers": [plain_id(ROOT, name)],
            "name": f"blossom-edge gateway {name}",
            "manufacturer": "blossom-edge",
            "model": "blossom-aggregator",
            "sw_version": __version__,
        },
    }
    yield _config(prefix, "binary_sensor", config)


def device_configs(federation: Federation, about: About, task: str, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Topic and config of each entity of a device's task: its prediction, how sure it is, how long it took."""
    kind = federation.tasks[task]
    prediction: dict[str, Any] = {
        "value_template": "{{ value_json.state }}",
        "json_attributes_topic": state_topic(federation.name, about.device, task),
        "json_attributes_template": "{{ value_json.attributes | tojson }}",
    }
    if kind.type == "classification":
        prediction |= {"device_class": "enum", "options": list(kind.classes)}
    elif kind.type == "regression":
        prediction |= {"state_class": "measurement"}
        if kind.unit:
            prediction |= {"unit_of_measurement": kind.unit}
    yield _entity(federation, about, task, prefix, "", prediction)
    if kind.type != "regression":
        percent = {"unit_of_measurement": "%", "state_class": "measurement", "suggested_display_precision": 0}
        template = {"value_template": "{{ value_json.confidence_percent }}"}
        yield _entity(federation, about, task, prefix, "confidence", percent | template)
    latency = {"unit_of_measurement": "ms", "state_class": "measurement", "entity_category": "diagnostic"}
    shown = {"enabled_by_default": False, "value_template": "{{ value_json.latency_ms }}"}
    yield _entity(federation, about, task, prefix, "latency", latency | shown)


def retained_topics(federation: Federation, device: str, prefix: str) -> Iterator[str]:
    """Every topic on which something of a device may be retained, configs first."""
    for task in sorted(federation.tasks):
        yield from (topic for topic, _ in device_configs(federation, About(device, ""), task, prefix))
    for task in sorted(federation.tasks):
        yield state_topic(federation.name, device, task)
    yield availability_topic(federation.name, device)


def _entity(
    federation: Federation, about: About, task: str, prefix: str, what: str, values: dict[str, Any]
) -> tuple[str, bytes]:
    names = (ROOT, federation.name, about.device, task)
    device: dict[str, Any] = {
        "identifiers": [plain_id(ROOT, federation.name, about.device)],
        "name": about.device,
        "manufacturer": "blossom-edge",
        "model": about.profile,
        "via_device": plain_id(ROOT, federation.name),
    }
    if about.software:
        device["sw_version"] = about.software
    config = {
        "name": f"{task} {what}".strip(),
        "unique_id": plain_id(*names, *([what] if what else ())),
        "state_topic": state_topic(federation.name, about.device, task),
        "availability": [
            {"topic": gateway_topic(federation.name)},
            {"topic": availability_topic(federation.name, about.device)},
        ],
        "availability_mode": "all",
        "payload_available": ONLINE.decode(),
        "payload_not_available": OFFLINE.decode(),
        "device": device,
        **values,
    }
    return _config(prefix, "sensor", config)


def _config(prefix: str, component: str, config: dict[str, Any]) -> tuple[str, bytes]:
    body = {**config, "origin": {"name": "blossom-edge", "sw_version": __version__}}
    return f"{prefix}/{component}/{config['unique_id']}/config", json.dumps(body, ensure_ascii=False).encode()
