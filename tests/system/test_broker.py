"""Brokers that a gateway starts: who is let in, what stands in the folder, which port, and that none is left behind."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.broker import Broker, start_broker
from aggregator.broker.access import Login, password_file
from aggregator.broker.mosquitto import MAX_PACKET_BYTES, find_mosquitto
from blossom_edge.core.errors import ConfigError, LinkError
from blossom_edge.transport.address import DEFAULT_PORT, Address
from blossom_edge.transport.link import MAX_PAYLOAD_BYTES, Connected, Disconnected, Message
from blossom_edge.transport.mqtt import MqttLink

pytestmark = pytest.mark.broker

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
KINDS = [
    pytest.param("mosquitto", marks=needs_mosquitto),
    pytest.param("amqtt", marks=pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "amqtt":
        pytest.importorskip("amqtt")
    return request.param


@pytest.fixture
def locked(kind: str, tmp_path: Path) -> Iterator[Broker]:
    with start_broker(kind, tmp_path, port=0, device_password="federation-word") as broker:
        yield broker


def device(broker: Broker, password: str = "federation-word", client_id: str = "dev") -> MqttLink:
    return MqttLink(Address(broker.address.host, broker.port, "device", password), client_id=client_id)


def test_a_broker_takes_links_and_is_gone_after_stop(kind: str, tmp_path: Path) -> None:
    with start_broker(kind, tmp_path, port=0) as broker:
        assert broker.kind == kind
        assert broker.alive()
        assert kind in broker.describe()
        assert str(broker.port) in broker.describe()
        with MqttLink(broker.address, client_id="a") as link:
            assert link.receive(10) == Connected(1)
            assert link.protocol == {"mosquitto": "5", "amqtt": "3.1.1"}[kind]
    assert not broker.alive()
    broker.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.port), 1)


def test_the_port_is_kept_for_the_next_start_and_a_flag_replaces_it(kind: str, tmp_path: Path) -> None:
    with start_broker(kind, tmp_path, port=0) as first:
        pass
    with start_broker(kind, tmp_path) as again:
        assert again.port == first.port
    with start_broker(kind, tmp_path, port=0) as other:
        assert other.port != first.port
    assert (tmp_path / "broker.port").read_text() == f"{other.port}\n"


def test_a_taken_port_is_refused_with_its_number_its_holder_and_the_next_step(kind: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(LinkError) as refusal:
            start_broker(kind, tmp_path, port=port, port_wait_s=0.1)
    assert refusal.value.error_id == "port-taken"
    assert str(port) in refusal.value.line()
    assert f"pid {os.getpid()}" in refusal.value.line()
    assert "--port" in refusal.value.hint
    assert not (tmp_path / "broker.port").exists()


def test_a_predecessor_that_is_dying_is_waited_for(kind: str, tmp_path: Path) -> None:
    holder = socket.create_server(("127.0.0.1", 0))
    timer = threading.Timer(0.3, holder.close)
    timer.start()
    with start_broker(kind, tmp_path, port=holder.getsockname()[1]) as broker:
        assert broker.alive()
    timer.join()


def test_a_wrong_password_is_refused_and_named_so(locked: Broker) -> None:
    with device(locked, "wrong") as link:
        event = link.receive(10)
    assert isinstance(event, Disconnected)
    assert event.error_id == "login-refused"
    with MqttLink(Address("127.0.0.1", locked.port), client_id="nobody") as link:
        assert link.receive(10).error_id == "login-refused"


def test_a_device_writes_below_up_alone_and_hears_what_the_gateway_says(locked: Broker) -> None:
    with MqttLink(locked.address, client_id="gw") as gateway, device(locked) as link:
        assert gateway.receive(10) == Connected(1)
        assert link.receive(10) == Connected(1)
        gateway.subscribe("#")
        for topic in ("bl/1/f/cast/plan", "bl/1/f/down/dev/grant", "bl/1/f/head", "other", "bl/1/f/up/dev/hello"):
            assert link.publish(topic, topic.encode())
        assert gateway.receive(10) == Message("bl/1/f/up/dev/hello", b"bl/1/f/up/dev/hello")
        for topic_filter in ("bl/1/f/down/dev/+", "bl/1/f/cast/+", "bl/1/f/head", "bl/1/f/up/#", "secret/#"):
            link.subscribe(topic_filter)
        for topic in ("secret/1", "bl/1/f/up/x/hello", "bl/1/f/down/dev/grant", "bl/1/f/cast/plan", "bl/1/f/head"):
            assert gateway.publish(topic, b"from the gateway")
        heard = [link.receive(10).topic for _ in range(3)]
        assert heard == ["bl/1/f/down/dev/grant", "bl/1/f/cast/plan", "bl/1/f/head"]
        assert link.num_refused == (4 if locked.kind == "mosquitto" else 0)  # only MQTT 5 tells


def test_a_refused_message_is_logged_with_its_topic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    broker = start_broker("mosquitto", tmp_path, port=0, device_password="word")
    with broker, device(broker, "word") as link:
        assert link.receive(10) == Connected(1)
        assert link.publish("bl/1/f/cast/plan", b"")
        assert link.publish("bl/1/f/up/dev/hello", b"")  # the window is 1 at first: waits for the answer
        assert link.num_refused == 1
    assert "bl/1/f/cast/plan refused by the broker: Not authorized" in caplog.text


def test_no_password_stands_in_the_folder_and_only_we_may_read_it(locked: Broker, tmp_path: Path) -> None:
    for file in tmp_path.iterdir():
        assert b"federation-word" not in file.read_bytes(), file
        assert locked.address.password.encode() not in file.read_bytes(), file
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 or file.suffix == ".pid", file
    assert "federation-word" not in locked.describe()
    assert locked.address.password not in f"{locked.describe()} {locked.address!r} {locked.address}"


def test_each_start_makes_a_new_password_for_the_gateway() -> None:
    one, other = Login("word"), Login("word")
    assert one.users["device"] == other.users["device"] == "word"
    assert one.users["gateway"] != other.users["gateway"]
    assert "word" not in repr(one)
    assert password_file({"device": "word"}) != password_file({"device": "word"}), "salted"


@needs_mosquitto
def test_mosquitto_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from aggregator.broker import start_broker\n"
        "broker = start_broker('mosquitto', pathlib.Path(sys.argv[1]), port=0)\n"
        "print(broker.pid, broker.port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pid, port = map(int, parent.stdout.readline().split())
        assert "(mosquitto)" in Path(f"/proc/{pid}/stat").read_text()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError("mosquitto still listens")


@needs_mosquitto
def test_a_mosquitto_that_dies_is_noticed(tmp_path: Path) -> None:
    with start_broker("mosquitto", tmp_path, port=0) as broker:
        os.kill(broker.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while broker.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not broker.alive()


@needs_mosquitto
def test_a_mosquitto_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LinkError) as failure:
        start_broker("mosquitto", tmp_path, listen="192.0.2.1", port=0, port_wait_s=0.1)
    assert failure.value.error_id == "broker-failed"
    assert "192.0.2.1" in str(failure.value)


def test_the_broker_takes_every_packet_that_a_link_sends() -> None:
    assert MAX_PACKET_BYTES >= MAX_PAYLOAD_BYTES + 1024


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_without_mosquitto_amqtt_runs_in_the_process_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("amqtt")
    monkeypatch.setattr("aggregator.broker.start.find_mosquitto", lambda: None)
    with start_broker("auto", tmp_path, port=0) as broker:
        assert broker.kind == "amqtt"
        assert broker.pid is None
        assert "end together" in broker.describe()
        assert "no mosquitto is installed" in broker.describe()
    with pytest.raises(ConfigError, match="mosquitto is not installed"):
        start_broker("mosquitto", tmp_path, port=0)


def test_without_any_broker_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.broker.start.find_mosquitto", lambda: None)
    for name in [name for name in sys.modules if name.startswith(("amqtt", "aggregator.broker.amqtt"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "amqtt", None)
    with pytest.raises(ConfigError) as failure:
        start_broker("auto", tmp_path, port=0)
    assert failure.value.error_id == "package-missing"
    assert "apt install mosquitto" in failure.value.hint
    assert "blossom-edge[gateway]" in failure.value.hint


def test_amqtt_never_formats_a_payload_into_its_debug_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("amqtt")
    with start_broker("amqtt", tmp_path, port=0) as broker:
        caplog.set_level(logging.DEBUG, "amqtt")  # the lines that it makes even when nobody reads them
        with MqttLink(broker.address, client_id="a") as link:
            assert link.receive(10) == Connected(1)
            link.subscribe("t")
            assert link.publish("t", b"\xff" * 100_000)
            assert len(link.receive(10).payload) == 100_000
    text = caplog.text
    assert "<100000 bytes>" in text
    assert "xff" not in text


def test_another_broker_is_used_as_it_is(tmp_path: Path) -> None:
    with start_broker("mqtt://user:word@broker.example:1884", tmp_path / "unused") as broker:
        assert (broker.kind, broker.port, broker.alive()) == ("external", 1884, True)
        assert broker.address == Address("broker.example", 1884, "user", "word")
        assert "word" not in broker.describe()
    assert not (tmp_path / "unused").exists()


def test_a_kind_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        start_broker("mosquito", tmp_path)
    assert failure.value.error_id == "settings-invalid"


def test_the_default_port_is_tried_when_none_is_kept_or_the_kept_one_is_damaged(tmp_path: Path) -> None:
    from aggregator.broker.ports import choose_port

    assert choose_port(tmp_path, None) == DEFAULT_PORT == 18830
    (tmp_path / "broker.port").write_text("nonsense")
    assert choose_port(tmp_path, None) == 18830
    (tmp_path / "broker.port").write_text("20000\n")
    assert choose_port(tmp_path, None) == 20000
    assert choose_port(tmp_path, 1884) == 1884


def test_a_link_says_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with MqttLink(Address("127.0.0.1", port), client_id="a") as link:
        event = link.receive(10)
    assert event == Disconnected(f"cannot reach 127.0.0.1:{port}: Connection refused", "gateway-unreachable")
