"""amqtt inside this process, in a thread with an event loop of its own: where no mosquitto is installed.

What it cannot do: MQTT 5, a limit on packets, and noticing a client that vanished without closing its connection.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from importlib.metadata import version
from typing import Any

from amqtt.broker import Broker as AmqttBroker
from amqtt.contexts import Action, BrokerConfig, ListenerConfig
from amqtt.errors import AMQTTError
from amqtt.session import Session

from aggregator.broker.access import Login
from blossom_edge.core.errors import LinkError
from blossom_edge.transport import topics

log = logging.getLogger(__name__)

START_S = 10.0
STOP_S = 10.0

_PLUGINS = "aggregator.broker.amqtt_plugins"


class _Broker(AmqttBroker):  # type: ignore[misc]  # amqtt comes without types
    """amqtt, but what is retained goes only to who subscribed to it and may read it.

    amqtt 0.12 sends every client that connects all that is retained and that anybody subscribed to, and asks no access
    list; and a client that subscribes meanwhile breaks the connection of the first.
    """

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        topic_filter, qos = subscription
        if all(s.client_id != session.client_id for s, _ in self._subscriptions.get(topic_filter, ())):
            return
        handler = self._get_handler(session)
        found = [r for r in self._retained_messages.values() if topics.matches(topic_filter, r.topic)]
        allowed = [r for r in found if await self._topic_filtering(session, r.topic, Action.RECEIVE)]
        if handler is not None:
            sending = (handler.mqtt_publish(r.topic, r.data, min(qos, r.qos or qos), retain=True) for r in allowed)
            await asyncio.gather(*sending)


class AmqttServer:
    """A running amqtt."""

    kind = "amqtt"

    def __init__(self, *, listen: str, port: int, login: Login) -> None:
        """Start the thread and wait until it listens.

        Raises:
            LinkError: `broker-failed`.
        """
        for name in ("amqtt", "transitions"):  # they warn of each client that tries MQTT 5 first, as ours do
            logging.getLogger(name).setLevel(logging.ERROR)
        plugins: dict[str, Any] = {
            f"{_PLUGINS}.LoginPlugin": {"users": dict(login.users)},
            f"{_PLUGINS}.ShortPayloadPlugin": {},
        }
        if login.users:
            may = {user: {"reads": login.reads(user), "writes": login.writes(user)} for user in login.users}
            plugins[f"{_PLUGINS}.AccessPlugin"] = {"may": may}
        self._config = BrokerConfig(listeners={"default": ListenerConfig(bind=f"{listen}:{port}")}, plugins=plugins)
        self._ready = threading.Event()
        self._failure = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._goodbye: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="amqtt", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_S) or self._failure:
            why = self._failure or f"not ready within {START_S:g} s"
            self.stop()
            raise LinkError("broker-failed", f"amqtt did not start: {why}", hint="install mosquitto instead")

    def text(self) -> str:
        """What it is, for the log."""
        return f"amqtt {version('amqtt')} inside this process (broker and aggregator end together)"

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Close all connections, end the thread and wait for that."""
        if self._loop is not None and self._goodbye is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._goodbye.set)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (AMQTTError, OSError) as error:
            self._failure = str(error) or type(error).__name__
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._goodbye = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_on_loop_error)
        broker = _Broker(self._config, loop=self._loop)
        await broker.start()
        self._ready.set()
        await self._goodbye.wait()
        await broker.shutdown()


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What amqtt lets escape: mostly a client that was gone before its answer."""
    error = context.get("exception")
    if isinstance(error, OSError):
        log.debug("amqtt: %s: %s", context.get("message"), error)
    else:
        log.error("amqtt: %s: %r", context.get("message"), error)
