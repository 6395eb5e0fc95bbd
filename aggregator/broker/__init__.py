"""The broker that a gateway brings along, or the address of another. Never looks into a message."""

from aggregator.broker.start import Broker, start_broker

__all__ = ["Broker", "start_broker"]
