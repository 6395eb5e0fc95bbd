"""Predictions over a real broker, looked at by a client of its own (plain paho), as Home Assistant would.

A real Home Assistant is not part of it: what one does with a config is in `support.home_assistant`, from its
documentation.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from support.home_assistant import UNAVAILABLE, HomeAssistant
from support.raw_device import RawDevice, make_skeleton

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.codec.messages import Skeleton
from blossom_edge.core.blocks import BlockId
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.transport.address import Address
from blossom_edge.transport.link import Connected
from blossom_edge.transport.mqtt import MqttLink
from tests.live import AGGREGATOR, Place, call, call_json, until

pytestmark = pytest.mark.broker
needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
MOVE = "blossom__tiny__watch-1__move"


class Looker:
    """A client that knows nothing of blossom-edge but host, port and login, and keeps what it hears."""

    def __init__(
        self, port: int, user: str = "", password: str = "", *filters: str, prefix: str = "homeassistant"
    ) -> None:
        self.assistant = HomeAssistant(prefix)
        self.heard: list[tuple[str, bytes, bool]] = []
        self.refused = False
        self._missing = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"looker-{id(self)}")
        if user:
            self._client.username_pw_set(user, password)
        self._filters = filters or (f"{prefix}/#", "blossom/#")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._missing.release()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        for _ in self._filters:
            assert self._missing.acquire(timeout=10), "no answer to a subscription"

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, reason: object, _properties: object
    ) -> None:
        self.refused = getattr(reason, "is_failure", False)
        if self.refused:
            self._missing.release(len(self._filters))
        for topic_filter in self._filters:
            client.subscribe(topic_filter, qos=1)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        with self._lock:
            self.heard.append((message.topic, message.payload, message.retain))
            if message.topic.startswith(("blossom/", f"{self.assistant.prefix}/")):
                self.assistant.take(message.topic, message.payload, retained=message.retain)

    def state(self, unique_id: str) -> str:
        with self._lock:
            entity = self.assistant.entities.get(unique_id)
            return entity.state if entity is not None else ""

    def value(self, unique_id: str) -> str:
        """The state but for availability."""
        with self._lock:
            entity = self.assistant.entities.get(unique_id)
            return entity.value if entity is not None else ""

    def topics(self) -> set[str]:
        with self._lock:
            return {topic for topic, _, _ in self.heard}

    def say(self, topic: str, payload: bytes = b"x") -> None:
        self._client.publish(topic, payload, qos=1, retain=payload == b"forged").wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Called at the end, in reverse order."""
    todo: list[Callable[[], None]] = []
    yield todo.append
    for close in reversed(todo):
        close()


def raw_device(place: Place, name: str = "watch-1", password: str = "") -> RawDevice:
    login = ("device", password) if password else ()
    link = MqttLink(Address("127.0.0.1", place.port, *login), client_id=name)
    assert link.receive(10) == Connected(1)
    device = RawDevice(link, place.federation(), name, profile="rpi4-accel")
    device.hello()
    place.wait_for(lambda: place.at_gateway(name).get("online"), f"{name} is known")
    return device


@needs_mosquitto
def test_a_device_shows_up_by_itself_and_goes_when_it_goes(place: Place, later: Callable[..., None]) -> None:
    serve = place.serve("--set=rounds.min_devices=5")
    device = raw_device(place)
    later(device.link.close)
    looker = Looker(place.port)
    later(looker.close)
    device.predict("move", "walk")
    until(lambda: looker.state(MOVE) == "walk", "the class", [serve])
    assert looker.state(f"{MOVE}__confidence") == "92.5"
    config = looker.assistant.entities[MOVE].config
    assert config["options"] == ["rest", "walk", "run"]
    assert (config["device"]["model"], config["device"]["name"]) == ("rpi4-accel", "watch-1")
    until(lambda: looker.state("blossom__tiny") == "on", "the gateway", [serve])

    second = Looker(place.port, "")  # starts later: all but the gateway's beat is retained
    later(second.close)
    until(lambda: second.value(f"{MOVE}__latency") == "1.5", "configs and states for who comes later", [serve])
    assert {topic for topic, _, retained in second.heard if retained} >= {
        f"homeassistant/sensor/{MOVE}/config",
        f"homeassistant/sensor/{MOVE}__confidence/config",
        "homeassistant/binary_sensor/blossom__tiny/config",
        "blossom/tiny/watch-1/move",
        "blossom/tiny/watch-1/_availability",
    }
    assert not any(retained for topic, _, retained in second.heard if topic == "blossom/tiny/_gateway")

    place.wait_for(lambda: place.at_gateway("watch-1").get("predictions"), "status has it")
    shown = call_json([*AGGREGATOR], "status", "--data-dir", str(place.gateway_folder))
    (said,) = shown["devices"][0]["predictions"]
    assert (said["state"], said["confidence_percent"]) == ("walk", 92.5)
    assert said["age_s"] < 60
    text = call([*AGGREGATOR], "status", "--data-dir", str(place.gateway_folder)).stdout
    assert "infer" in text
    assert "92 %" in text or "93 %" in text

    why = call([*AGGREGATOR], "why", "watch-1", "--data-dir", str(place.gateway_folder)).stdout
    assert "role infer: it uses the shared blocks and sends no updates" in why

    device.bye()
    until(lambda: looker.state(MOVE) == UNAVAILABLE, "a device that left", [serve])
    done = call([*AGGREGATOR], "devices", "forget", "watch-1", "--data-dir", str(place.gateway_folder))
    assert done.returncode == 0, done.stderr
    until(lambda: looker.state(MOVE) == "", "a device that was forgotten", [serve])
    assert set(looker.assistant.entities) == {"blossom__tiny"}
    third = Looker(place.port, "", "", "#")
    later(third.close)
    until(lambda: "homeassistant/binary_sensor/blossom__tiny/config" in third.topics(), "what is retained", [serve])
    until(lambda: "bl/1/tiny/head" in third.topics(), "all of it", [serve])
    assert not any("watch-1" in topic for topic, _, retained in third.heard if retained)


@needs_mosquitto
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_gateway_that_ends_is_seen_at_a_broker_that_lives_on(
    number: int, place: Place, tmp_path: Path, later: Callable[..., None]
) -> None:
    broker = start_broker("mosquitto", tmp_path / "broker", port=0)
    later(broker.stop)
    serve = place.serve(f"--broker=mqtt://127.0.0.1:{broker.port}")
    place.port = 0
    looker = Looker(broker.port)
    later(looker.close)
    link = MqttLink(broker.address, client_id="watch-1")
    later(link.close)
    assert link.receive(10) == Connected(1)
    device = RawDevice(link, place.federation(), "watch-1")
    device.hello()
    place.wait_for(lambda: place.at_gateway("watch-1").get("online"), "the device is known")
    device.predict("move", "rest")
    until(lambda: looker.state(MOVE) == "rest", "the class", [serve])
    serve.send(number)
    until(lambda: looker.state(MOVE) == UNAVAILABLE, "the gateway has ended", [serve])
    assert looker.state("blossom__tiny") == "off"
    second = Looker(broker.port)
    later(second.close)
    until(lambda: second.state(MOVE), "what is retained", [serve])
    assert second.state(MOVE) == UNAVAILABLE, "nobody says that the gateway is there"


@needs_mosquitto
def test_a_skeleton_that_is_added_while_the_gateway_runs_reaches_the_device(
    place: Place, later: Callable[..., None]
) -> None:
    place.serve("--set=rounds.min_devices=5")
    federation = place.federation("rounds.min_devices=5")
    device = raw_device(place)
    later(device.link.close)
    digest = skeleton_digest(federation, BlockId.parse("encoder/accel"))
    device.want(digest)
    (none,) = place.wait_for(lambda: device.heard(Skeleton), "an answer")
    assert none.data == b""
    assert "add-skeleton" in none.reason
    file = place.folder / "accel.onnx"
    file.write_bytes(make_skeleton(federation, "encoder/accel"))
    done = call([*AGGREGATOR], "federations", "add-skeleton", str(file), "--data-dir", str(place.gateway_folder))
    assert done.returncode == 0, done.stderr
    got: list[Skeleton] = []

    def asked_again() -> bool:
        device.want(digest)
        got.extend(message for message in device.heard(Skeleton) if message.data)
        return bool(got)

    place.wait_for(asked_again, "the skeleton")
    assert got[0].data == file.read_bytes()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("mosquitto", marks=needs_mosquitto),
        pytest.param("amqtt", marks=pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")),
    ],
)
def test_a_viewer_reads_what_is_mirrored_and_writes_nothing_and_a_device_does_neither(
    kind: str, tmp_path: Path, later: Callable[..., None]
) -> None:
    if kind == "amqtt":
        pytest.importorskip("amqtt")
    broker: Broker = start_broker(
        kind, tmp_path, port=0, device_password="for-devices", viewer_password="for-viewers", viewer_prefix="ha"
    )
    later(broker.stop)
    with MqttLink(broker.address, client_id="gw") as gateway:
        assert gateway.receive(10) == Connected(1)
        gateway.subscribe("#")
        for topic in ("blossom/f/dev/t", "ha/sensor/x/config", "bl/1/f/head", "bl/1/f/down/dev/skeleton"):
            assert gateway.publish(topic, b"retained", retain=True)
            assert gateway.receive(10).topic == topic
        viewer = Looker(broker.port, "viewer", "for-viewers", "blossom/#", "ha/#", "bl/#", "#", prefix="none")
        later(viewer.close)
        device = Looker(broker.port, "device", "for-devices", "blossom/#", "ha/#", "bl/#", prefix="none")
        later(device.close)
        until(lambda: {"blossom/f/dev/t", "ha/sensor/x/config"} <= viewer.topics(), "what a viewer reads", [])
        until(lambda: "bl/1/f/head" in device.topics(), "what a device reads", [])
        for who in (viewer, device):
            for topic in ("blossom/f/dev/t", "ha/sensor/x/config", "ha/status", "bl/1/f/head", "bl/1/f/down/dev/plan"):
                who.say(topic, b"forged")
        viewer.say("bl/1/f/up/dev/hello", b"forged")
        device.say("bl/1/f/up/dev/end")
        heard: list[tuple[str, bytes]] = []

        def everything() -> bool:
            event = gateway.receive(1)
            heard.append((event.topic, event.payload))
            return event.topic == "bl/1/f/up/dev/end"

        until(everything, "the last word of the device", [])
        assert [topic for topic, payload in heard if payload == b"forged"] == []
        for topic in ("blossom/f/other/t", "ha/sensor/y/config", "bl/1/f/up/other/prediction", "bl/1/f/cast/end"):
            assert gateway.publish(topic, b"now")
        assert gateway.publish("blossom/f/end", b"now")
        until(lambda: "blossom/f/end" in viewer.topics(), "the last word of the gateway", [])
        until(lambda: "bl/1/f/cast/end" in device.topics(), "the last word for devices", [])
        assert viewer.topics() == {
            "blossom/f/dev/t",
            "ha/sensor/x/config",
            "blossom/f/other/t",
            "ha/sensor/y/config",
            "blossom/f/end",
        }
        assert device.topics() <= {"bl/1/f/head", "bl/1/f/down/dev/skeleton", "bl/1/f/cast/end"}
    stranger = Looker(broker.port, "viewer", "for-devices")
    later(stranger.close)
    until(lambda: stranger.refused, "a wrong password", [])


@needs_mosquitto
def test_serve_prints_the_viewers_login_where_a_password_is_in_use_and_only_there(
    place: Place, later: Callable[..., None]
) -> None:
    serve = place.serve("--listen=0.0.0.0")
    password = (place.gateway_folder / "viewer.password").read_text()
    assert password != (place.gateway_folder / "device.password").read_text()
    assert (place.gateway_folder / "viewer.password").stat().st_mode & 0o077 == 0
    (line,) = [line for line in serve.out.splitlines() if password in line]
    assert line.startswith("Home Assistant")
    assert f"port {place.port}, user viewer, password {password}" in line
    looker = Looker(place.port, "viewer", password)
    later(looker.close)
    device = raw_device(place, password=(place.gateway_folder / "device.password").read_text())
    later(device.link.close)
    device.predict("move", "run")
    until(lambda: looker.state(MOVE) == "run", "the class", [serve])
    assert json.loads(next(p for t, p, _ in looker.heard if t == "blossom/tiny/watch-1/move"))["state"] == "run"
    serve.end(signal.SIGTERM)
    again = place.serve("--listen=127.0.0.1")
    assert "user viewer" not in again.out
    assert password not in again.out + again.err
