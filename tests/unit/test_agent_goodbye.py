"""A device that fails after it said hello says goodbye, so that no round waits for it; and what its screen tells."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.learning import NoiseTrainer, tiny

from blossom_edge.cli.screen import QUIET_EVERY_S, Screen
from blossom_edge.client.actions import DeviceFacts
from blossom_edge.client.agent import Agent
from blossom_edge.client.learner import Learner
from blossom_edge.client.session import Session
from blossom_edge.client.store import Store
from blossom_edge.codec import messages
from blossom_edge.codec.envelope import decode, encode
from blossom_edge.codec.keys import SigningKey, fingerprint
from blossom_edge.console.output import Output
from blossom_edge.core.errors import BlossomError, ConfigError
from blossom_edge.federation.schema import Federation
from blossom_edge.transport import topics
from blossom_edge.transport.link import Connected, Disconnected, LinkEvent, Message

FEDERATION = tiny()
GATEWAY = SigningKey.generate()
_UP = {message.NAME: message for message in messages.UP}


class Wire:
    """A link in memory: events to come, messages that went out."""

    def __init__(self) -> None:
        self.events: deque[LinkEvent] = deque([Connected(1)])
        self.sent: list[Any] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        kind = _UP[topic.rpartition("/")[2]]
        self.sent.append(decode(payload, allowed=(kind,)).message)
        return True

    def subscribe(self, topic_filter: str) -> None: ...

    def receive(self, timeout_s: float) -> LinkEvent | None:
        return self.events.popleft() if self.events else None

    def close(self) -> None: ...

    def down(self, message: messages.WireMessage) -> None:
        """What the gateway says to the device next."""
        topic = topics.down(FEDERATION.name, "a", message.NAME)
        self.events.append(Message(topic, encode(message, scope=f"{FEDERATION.name}/a", sign=GATEWAY)))

    def byes(self) -> list[str]:
        return [message.reason for message in self.sent if isinstance(message, messages.Bye)]


def welcome() -> messages.Welcome:
    return messages.Welcome(
        key=GATEWAY.public_hex, protocol=1, epoch=1, round=0, running="waiting", federation_digest=FEDERATION.digest,
        federation=FEDERATION.to_dict(), versions=(), sequence=0, ledger_seq=5, ledger_hash="0" * 64, boot=1,
        come_back_s=0.0,
    )  # fmt: skip


class Bench:
    """An agent on a wire, with a clock of the test and a screen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wire, self.now = folder, Wire(), 100.0
        self.store = Store(folder, "a")
        self.sensors: dict[str, Any] = {"imu": {"state": "ok", "reason": "", "since_utc": None, "samples": {}}}

    def learner(self, federation: Federation) -> Learner:
        return Learner(NoiseTrainer("a", ("accel",)), sensors=lambda: self.sensors)

    def agent(self, make_learner: Callable[[Federation], Learner] | None = None, **more: Any) -> Agent:
        facts = DeviceFacts("a", self.store.boot, self.store.key.public_hex, "test", "0" * 64, ("accel",))
        return Agent(
            self.wire,
            Session(facts),
            self.store,
            federation_name=FEDERATION.name,
            make_learner=make_learner or self.learner,
            clock=lambda: self.now,
            observe=Screen(Output(environ={"NO_COLOR": "1"}), "127.0.0.1:1", clock=lambda: self.now),
            **more,
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "devices/a/status.json").read_text())
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()


def refuse(federation: Federation) -> Learner:
    raise ConfigError("usage", "label move=dance: found dance, expected one of rest, walk")


def test_who_fails_while_it_joins_says_goodbye_without_telling_a_label(bench: Bench) -> None:
    agent = bench.agent(refuse)
    bench.wire.down(welcome())
    stop = agent.run()
    assert isinstance(stop.error, ConfigError)
    agent.leave("join has ended")
    assert bench.wire.byes() == ["join has ended: usage"]
    assert bench.status()["error"]["message"].startswith("label move=dance")  # it stays here


def test_who_does_not_trust_the_gateway_says_goodbye_too(bench: Bench) -> None:
    other = fingerprint(SigningKey.generate().public_hex)
    agent = bench.agent(gateway_key=other)
    bench.wire.down(welcome())
    stop = agent.run()
    assert isinstance(stop.error, BlossomError)
    assert stop.error.error_id == "gateway-key"
    agent.leave("join has ended")
    assert bench.wire.byes() == ["join has ended: gateway-key"]


def test_who_was_refused_or_never_said_hello_on_this_connection_says_no_goodbye(bench: Bench) -> None:
    agent = bench.agent()
    no = "the name is taken"
    refused = messages.Reject(key=GATEWAY.public_hex, type="key", final=True, reason=no, hint="choose another --id")
    bench.wire.down(refused)
    stop = agent.run()
    assert stop.error is not None
    agent.leave("join has ended")
    assert bench.wire.byes() == []
    error = {"id": "rejected", "message": "the gateway says no: the name is taken", "hint": "choose another --id"}
    assert bench.status()["error"] == error


def test_a_connection_that_broke_heard_no_hello(bench: Bench) -> None:
    agent = bench.agent()
    agent.step(0.0)
    bench.wire.events.append(Disconnected("gone"))
    agent.step(0.0)
    agent.leave("join has ended")
    assert [type(message).__name__ for message in bench.wire.sent] == ["Hello"]


def test_a_sensor_that_goes_and_comes_is_told_and_written_though_nothing_comes_from_the_link(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = bench.agent()
    bench.wire.down(welcome())
    agent.step(0.0)
    agent.step(0.0)
    bench.now += 1.0
    agent.step(0.0)
    bench.sensors = {"imu": {"state": "unplugged", "reason": "no device", "since_utc": None, "samples": {}}}
    capsys.readouterr()
    bench.now += 1.0
    agent.step(0.0)
    assert bench.status()["sensors"]["imu"]["state"] == "unplugged"
    bench.now += 1.0
    agent.step(0.0)
    bench.sensors = {"imu": {"state": "ok", "reason": "", "since_utc": None, "samples": {}}}
    bench.now += 1.0
    agent.step(0.0)
    assert bench.status()["sensors"]["imu"]["state"] == "ok"
    assert capsys.readouterr().err.splitlines() == ["imu is absent: unplugged, no device", "imu is back"]


def test_counts_of_samples_alone_are_written_rarely(bench: Bench) -> None:
    agent = bench.agent()
    bench.wire.down(welcome())
    agent.step(0.0)
    agent.step(0.0)
    bench.now += 1.0
    agent.step(0.0)  # the state after the welcome is on disk

    def taken(count: int, after_s: float) -> dict[str, int]:
        bench.sensors["imu"]["samples"] = {"taken": count}
        bench.now += after_s
        agent.step(0.0)
        found: dict[str, int] = bench.status()["sensors"]["imu"]["samples"]
        return found

    assert taken(100, 1.0) == {}
    assert taken(200, QUIET_EVERY_S) == {"taken": 200}


def test_a_device_waits_for_the_new_windows_that_it_wants_itself(bench: Bench) -> None:
    trainer = NoiseTrainer("a", ("accel",))
    seen = 3
    agent = bench.agent(lambda federation: Learner(trainer, num_seen=lambda: seen, min_new_windows=10))
    bench.wire.down(welcome())
    agent.step(0.0)
    agent.step(0.0)
    plan(bench, agent, 1)
    assert trainer.trained == []
    assert said(bench)[-1] == ("skipped", "3 new windows, waits for 10")
    seen = 10
    plan(bench, agent, 2)
    assert [number for number, _, _ in trainer.trained] == [2]
    seen = 19
    plan(bench, agent, 3)
    assert said(bench)[-1] == ("skipped", "9 new windows since round 2, waits for 10")
    assert [number for number, _, _ in trainer.trained] == [2]


def plan(bench: Bench, agent: Agent, number: int) -> None:
    training = FEDERATION.local_training(number)
    planned = messages.PlannedTraining.model_validate({f: getattr(training, f) for f in training.__slots__})
    bench.wire.down(
        messages.Plan(epoch=1, round=number, remaining_s=100.0, blocks=(), codec="float32", training=planned,
                      min_new_windows=0)
    )  # fmt: skip
    agent.step(0.0)


def said(bench: Bench) -> list[tuple[str, str]]:
    return [(m.phase, m.reason) for m in bench.wire.sent if isinstance(m, messages.State)]
