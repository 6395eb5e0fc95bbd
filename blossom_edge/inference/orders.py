"""What a person wants of the model of a running device: a file per order, with an answer. Decides nothing.

`blossom-edge blocks rollback|pin` puts `ID.ask`; the device carries it out between two windows and puts `ID.answer`.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blossom_edge.codec.strict_json import parse_object
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import BlossomError, RemoteError
from blossom_edge.durable import atomic_write, make_folder, sweep_temporary

WORDS = ("rollback", "pin", "unpin")
MAX_ORDER_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted: one of `WORDS`, and of which blocks (a rollback of none of them means all)."""

    word: str
    blocks: tuple[BlockKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """How it went: `done` with what was done, or why not, with error id and next step."""

    done: bool
    message: str = ""
    error_id: str = ""
    hint: str = ""


class Ask:
    """One order, from the side that gives it."""

    def __init__(self, folder: Path, order: Order) -> None:
        """Put the order into `folder`, which is made if it is missing.

        Raises:
            StorageError: `disk-failed`.
        """
        make_folder(folder)
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(2)}"
        self._ask = folder / f"{name}.ask"
        words = {"word": order.word, "blocks": [str(key) for key in order.blocks]}
        atomic_write(self._ask, json.dumps(words).encode(), name="order")

    def answer(self) -> Answer | None:
        """The answer, None before there is one."""
        try:
            return Answer(**json.loads(self._ask.with_suffix(".answer").read_text("utf-8")))
        except FileNotFoundError:
            return None

    def withdraw(self) -> None:
        """Take order and answer away; what was not carried out yet will not be."""
        self._ask.unlink(missing_ok=True)
        self._ask.with_suffix(".answer").unlink(missing_ok=True)


class Orders:
    """The orders that wait for this process. Those from before its start, whose givers have given up, are dropped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        sweep_temporary(folder)
        for left in (*folder.glob("*.ask"), *folder.glob("*.answer")):
            left.unlink(missing_ok=True)

    def carry_out(self, do: Callable[[Order], str]) -> int:
        """Do what was asked for, in the order of asking, and answer; returns how many were done.

        `do` says in words what it did; a BlossomError of it is the answer.

        Raises:
            StorageError: `disk-failed`: the answer cannot be written.
        """
        num_done = 0
        for path, order in self._waiting():
            try:
                if isinstance(order, BlossomError):
                    raise order
                answer = Answer(True, do(order))
                num_done += 1
            except BlossomError as error:
                answer = Answer(False, str(error), error.error_id, error.hint)
            path.unlink(missing_ok=True)
            atomic_write(path.with_suffix(".answer"), json.dumps(asdict(answer)).encode(), name="order")
        return num_done

    def _waiting(self) -> Iterator[tuple[Path, Order | BlossomError]]:
        with os.scandir(self._folder) as entries:  # the loop comes here after every step: mostly there is nothing
            names = sorted(entry.name for entry in entries if entry.name.endswith(".ask"))
        for name in names:
            path = self._folder / name
            try:
                if path.stat().st_size > MAX_ORDER_BYTES:
                    raise RemoteError(f"an order has at most {MAX_ORDER_BYTES} bytes")
                yield path, _order(parse_object(path.read_bytes(), "an order"))
            except FileNotFoundError:  # withdrawn
                continue
            except BlossomError as error:
                yield path, error


def _order(values: dict[str, Any]) -> Order:
    word, blocks = values.get("word"), values.get("blocks")
    if word not in WORDS or not isinstance(blocks, list) or not all(isinstance(block, str) for block in blocks):
        raise RemoteError(f"an order is one of {', '.join(WORDS)}, with a list of blocks")
    return Order(word, tuple(map(BlockKey.parse, blocks)))
