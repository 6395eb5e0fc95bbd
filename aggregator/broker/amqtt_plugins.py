"""What amqtt asks us: who may log in, who may do what; and a cure for the cost of its debug lines."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

from amqtt.contexts import Action, BaseContext
from amqtt.mqtt.publish import PublishPacket
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session

from blossom_edge.transport import topics


class LoginPlugin(BaseAuthPlugin):  # type: ignore[misc]  # amqtt comes without types
    """Lets in who knows a password, everybody when there are none."""

    @dataclass
    class Config:
        """Passwords by user."""

        users: dict[str, str] = field(default_factory=dict, repr=False)

    async def authenticate(self, *, session: Session) -> bool | None:
        """Whether the login is right."""
        users: dict[str, str] = self.config.users
        if not users:
            return True
        wanted = users.get(session.username or "")
        given = session.password or ""
        return wanted is not None and hmac.compare_digest(wanted.encode(), given.encode())


class AccessPlugin(BaseTopicPlugin):  # type: ignore[misc]  # amqtt comes without types
    """The access list of `access.py`. As in mosquitto any filter may be subscribed to; delivery is what is checked."""

    @dataclass
    class Config:
        """By user: the filters that it `reads` and `writes`."""

        may: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        """Whether the session may do this."""
        if session is None or topic is None:
            return False
        if action == Action.SUBSCRIBE:
            return True
        may: dict[str, tuple[str, ...]] = self.config.may.get(session.username or "", {})
        allowed = may.get("writes" if action == Action.PUBLISH else "reads", ())
        return any(topics.matches(topic_filter, topic) for topic_filter in allowed)


class ShortPayloadPlugin(BasePlugin[BaseContext]):  # type: ignore[misc]  # amqtt comes without types
    """Gives payloads a short repr: amqtt formats each into a debug line several times, even when nobody logs it.

    Runs as a task started before amqtt's own for the packet; were it late one day, only speed would suffer.
    """

    async def on_mqtt_packet_received(self, *, packet: Any, session: Session | None = None) -> None:
        """Exchange the payload of a PUBLISH for an equal one."""
        if isinstance(packet, PublishPacket) and packet.payload is not None and packet.payload.data is not None:
            packet.payload.data = ShortBytes(packet.payload.data)


class ShortBytes(bytes):
    """Bytes that print their length only."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"
