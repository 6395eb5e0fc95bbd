"""The log lines of what the gateway says to a device. Names and reasons only, never a value."""

from __future__ import annotations

import logging

from blossom_edge.codec import messages
from blossom_edge.console.logs import log_event


def log_received(log: logging.Logger, message: messages.WireMessage) -> None:
    """Log a message that tells what became of an update or a round; others are passed over."""
    if isinstance(message, messages.Receipt):
        log_event(log, "update-kept", round=message.round, block=message.block)
    elif isinstance(message, messages.Refusal):
        log_event(
            log,
            "update-refused",
            level=logging.WARNING,
            round=message.round,
            block=message.block,
            kind=message.type,
            reason=message.reason,
        )
    elif isinstance(message, messages.Commit):
        log_event(log, "round-committed", round=message.round, running=message.running)
