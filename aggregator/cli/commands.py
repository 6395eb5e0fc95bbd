"""What an operator tells a running gateway: each command a file of its own in the data folder, with an answer.

The commands `pause`, `resume`, `finish` and `devices forget` put `ID.ask`; the gateway carries it out and puts
`ID.answer`, first to say that it waits, then to say how it ended. Never decides what a round does.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blossom_edge.core.names import DeviceId
from blossom_edge.durable import atomic_write, make_folder, sweep_temporary

if TYPE_CHECKING:
    from aggregator.service import Service

FOLDER = "control"
WORDS = {"pause": "paused", "resume": "yes", "finish": "finished"}
"""What the machine's `running` is after each."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command went: `done`, `waits` (another answer follows) or `refused`, with the next step in `hint`."""

    state: str
    message: str = ""
    hint: str = ""


class Ask:
    """One command, from the side that gives it."""

    def __init__(self, data_folder: Path, words: Mapping[str, str]) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(2)}"
        self._ask = data_folder / FOLDER / f"{name}.ask"
        self._answer = self._ask.with_suffix(".answer")
        atomic_write(self._ask, json.dumps(words).encode(), name="control")

    def answer(self) -> Answer | None:
        """The newest answer, None before there is one."""
        try:
            return Answer(**json.loads(self._answer.read_text("utf-8")))
        except FileNotFoundError:
            return None

    def withdraw(self) -> None:
        """Take command and answer away; what was not carried out yet will not be."""
        self._ask.unlink(missing_ok=True)
        self._answer.unlink(missing_ok=True)


class Commands:
    """The commands that wait for this gateway. Those from before its start, whose givers have given up, are dropped."""

    def __init__(self, data_folder: Path) -> None:
        self._folder = data_folder / FOLDER
        make_folder(self._folder)
        sweep_temporary(self._folder)
        for left in (*self._folder.glob("*.ask"), *self._folder.glob("*.answer")):
            left.unlink(missing_ok=True)
        self._waiting: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether a command waits for the end of the round: the next one must not open before it is carried out."""
        return bool(self._waiting)

    def carry_out(self, service: Service) -> None:
        """Do what was asked for, in the order of asking, and answer."""
        waiting = set()
        for path in sorted(self._folder.glob("*.ask")):
            try:
                words = json.loads(path.read_text("utf-8"))
            except FileNotFoundError:  # withdrawn
                continue
            except ValueError:
                words = {}
            answer = _do(service, words)
            if answer.state != "waits" or path.name not in self._waiting:
                atomic_write(path.with_suffix(".answer"), json.dumps(_plain(answer)).encode(), name="control")
            if answer.state == "waits":
                waiting.add(path.name)
            else:
                path.unlink(missing_ok=True)
        self._waiting = waiting


def _do(service: Service, words: Mapping[str, Any]) -> Answer:
    state, word = service.machine.state, words.get("word")
    if word == "forget":
        device = DeviceId(str(words.get("device")))
        if device not in state.members:
            known = ", ".join(sorted(state.members)) or "none"
            return Answer("refused", f"no device {device!r}", f"there is {known}")
        if service.forget(device):
            return Answer("done")
        return Answer("waits", f"until round {state.round} has ended")
    if word not in WORDS:
        return Answer("refused", f"the gateway knows no command {word!r}", f"it knows {', '.join(WORDS)} and forget")
    service.control(word)
    if state.running.value != WORDS[word]:
        return Answer("refused", f"the federation is {state.running.value}: {state.stop_reason}", "resume it first")
    return Answer("done")


def _plain(answer: Answer) -> dict[str, str]:
    return {"state": answer.state, "message": answer.message, "hint": answer.hint}
