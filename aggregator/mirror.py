"""What is mirrored of predictions, and when: configs before states, availability as the gateway sees its devices.

Only devices that publish are mirrored. Nothing is kept on disk: after a start of the gateway a device appears again
with its next prediction. A state goes out at most every `GAP_S` per device and task, the newest one always does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from aggregator.home_assistant import (
    HEARTBEAT_S,
    OFFLINE,
    ONLINE,
    About,
    availability_topic,
    device_configs,
    gateway_configs,
    gateway_topic,
    retained_topics,
    state_of,
    state_topic,
)
from aggregator.predictions import Heard
from aggregator.rounds import Member
from blossom_edge.codec.messages import Hello
from blossom_edge.console.logs import log_event
from blossom_edge.core.errors import LinkError
from blossom_edge.core.names import DeviceId
from blossom_edge.federation.schema import Federation
from blossom_edge.transport.link import Link

log = logging.getLogger("aggregator")

GAP_S = 0.2
SILENT_S, SILENT_HOPS = 60.0, 10
"""A device without a new window for so long, in seconds and in hops of its slowest modality, is not available."""
_SOFTWARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,63}\Z")


@dataclass(slots=True)
class _State:
    """The newest state of a task, and what of it is out."""

    payload: bytes
    is_out: bool = False
    config_is_out: bool = False
    sent_at: float = float("-inf")


@dataclass(slots=True)
class _Mirrored:
    """A device that publishes. `said`: the availability that is out, None when none is.

    `window_end_s`: the end of its newest window since its start `boot`, on the gateway's clock.
    """

    about: About
    boot: int
    window_end_s: float = float("-inf")
    tasks: dict[str, _State] = field(default_factory=dict)
    said: bool | None = None


class Mirror:
    """Mirrors what `take` is given through a link of the gateway.

    `prefix` is Home Assistant's discovery prefix; without one nothing is mirrored.
    """

    def __init__(self, federation: Federation, link: Link, *, prefix: str) -> None:
        self._federation = federation
        self._link = link
        self._prefix = prefix
        self._devices: dict[DeviceId, _Mirrored] = {}
        self._hellos: dict[DeviceId, tuple[int, str]] = {}
        hops = [modality.hop / modality.rate_hz for modality in federation.modalities.values()]
        self._silent_s = max(SILENT_S, SILENT_HOPS * max(hops))
        self._beat_at: float | None = None
        """When the gateway says next that it is here; None while nobody is mirrored or it has to be said at once."""

    def hello(self, device: DeviceId, hello: Hello) -> None:
        """A device said which software it runs; what does not look like one is not passed on."""
        software = hello.software if _SOFTWARE.match(hello.software) else ""
        self._hellos[device] = (hello.boot, software)
        mirrored = self._devices.get(device)
        if mirrored is not None and mirrored.boot != hello.boot:
            mirrored.boot, mirrored.window_end_s = hello.boot, float("-inf")

    def take(self, member: Member, heard: Heard) -> None:
        """A device predicted something."""
        if not self._prefix:
            return
        boot, software = self._hellos.get(member.device, (0, ""))
        about = About(member.device, member.profile, software)
        mirrored = self._devices.get(member.device)
        if mirrored is None:
            mirrored = self._devices[member.device] = _Mirrored(about, boot)
        elif mirrored.about != about:
            mirrored.about = about
            for state in mirrored.tasks.values():
                state.config_is_out = False
        mirrored.window_end_s = max(mirrored.window_end_s, heard.window_end_s)
        payload = state_of(self._federation.name, member.device, heard)
        task = mirrored.tasks.setdefault(heard.task, _State(payload))
        task.payload, task.is_out = payload, False

    def connected(self) -> None:
        """The link is up (again): the broker may have forgotten everything."""
        self._beat_at = None
        for mirrored in self._devices.values():
            mirrored.said = None
            for state in mirrored.tasks.values():
                state.config_is_out = state.is_out = False
                state.sent_at = float("-inf")

    def forget(self, device: DeviceId) -> None:
        """Take back all that is retained of a device, also what an earlier run of the gateway published."""
        self._devices.pop(device, None)
        self._hellos.pop(device, None)
        for topic in retained_topics(self._federation, device, self._prefix) if self._prefix else ():
            self._publish(topic, b"")

    def goodbye(self) -> None:
        """The gateway stops: nothing that is shown is of now any more."""
        if self._devices:
            self._publish(gateway_topic(self._federation.name), OFFLINE, retain=False)

    def next_due(self, now: float) -> float | None:
        """When `tick` has something to do."""
        if not self._devices:
            return None
        waiting = (s.sent_at + GAP_S for m in self._devices.values() for s in m.tasks.values() if not s.is_out)
        return min((now if self._beat_at is None else self._beat_at, *waiting))

    def tick(self, now: float, members: Mapping[DeviceId, Member]) -> None:
        """Send what is due."""
        if not self._devices:
            return
        if self._beat_at is None:
            for topic, config in gateway_configs(self._federation, self._prefix):
                self._publish(topic, config)
        for device, mirrored in self._devices.items():
            speaks = now - mirrored.window_end_s <= self._silent_s
            online = device in members and members[device].online and speaks
            self._states(device, mirrored, now)
            if online and not mirrored.said and not all(state.is_out for state in mirrored.tasks.values()):
                continue  # what it said before is not shown as new
            if mirrored.said is not online:
                mirrored.said = online
                self._publish(availability_topic(self._federation.name, device), ONLINE if online else OFFLINE)
        if self._beat_at is None or now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_S
            self._publish(gateway_topic(self._federation.name), ONLINE, retain=False)

    def _states(self, device: DeviceId, mirrored: _Mirrored, now: float) -> None:
        for task, state in mirrored.tasks.items():
            if not state.config_is_out:
                state.config_is_out = True
                for topic, config in device_configs(self._federation, mirrored.about, task, self._prefix):
                    self._publish(topic, config)
            if not state.is_out and now >= state.sent_at + GAP_S:
                state.is_out, state.sent_at = True, now
                self._publish(state_topic(self._federation.name, device, task), state.payload)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """While the link is down nothing goes out; `connected` says everything again."""
        try:
            self._link.publish(topic, payload, qos=1, retain=retain)
        except LinkError as error:
            log_event(log, "mirror-failed", level=logging.WARNING, topic=topic, reason=str(error))
