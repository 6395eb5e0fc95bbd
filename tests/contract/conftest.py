"""Networks for the contract of `Link`: the same tests run over loopback, amqtt and mosquitto."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import MqttNetwork

from aggregator.broker import Broker, start_broker
from aggregator.broker.mosquitto import find_mosquitto
from blossom_edge.transport.loopback import LoopbackBroker


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Broker]]:
    """Started when first asked for, stopped at the end of the session."""
    started: dict[str, Broker] = {}
    yield started
    for broker in started.values():
        broker.stop()


@pytest.fixture(
    params=[
        "loopback",
        pytest.param("mosquitto", marks=pytest.mark.broker),
        pytest.param(
            "amqtt", marks=[pytest.mark.broker, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]
        ),
    ]
)
def network(request: pytest.FixtureRequest, brokers: dict[str, Broker], tmp_path_factory: pytest.TempPathFactory):
    kind = request.param
    if kind == "loopback":
        yield LoopbackBroker()
        return
    mqtt = MqttNetwork(broker_of_kind(kind, brokers, tmp_path_factory.mktemp(kind)))
    yield mqtt
    mqtt.close()
    if kind == "amqtt":  # it forgets to close the sockets of connections that were reset; not in somebody else's test
        gc.collect()


@pytest.fixture
def mosquitto_network(brokers: dict[str, Broker], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttNetwork]:
    mqtt = MqttNetwork(broker_of_kind("mosquitto", brokers, tmp_path_factory.mktemp("mosquitto")))
    yield mqtt
    mqtt.close()


def broker_of_kind(kind: str, brokers: dict[str, Broker], folder: Path) -> Broker:
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    if kind == "amqtt":
        pytest.importorskip("amqtt")
    if kind not in brokers:
        brokers[kind] = start_broker(kind, folder, port=0)
    return brokers[kind]
