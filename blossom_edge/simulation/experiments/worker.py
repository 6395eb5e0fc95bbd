"""A process that does one run after another: `python -m ...worker`, told by lines of JSON on its standard input.

The first line is the job (settings, folders), each further one names a run; each answer is one line. It ends when its
input ends, also in the middle of a run: a parent that was killed leaves nobody behind.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from blossom_edge.core.errors import BlossomError
from blossom_edge.durable import atomic_write
from blossom_edge.simulation.experiments.plan import Plan
from blossom_edge.simulation.experiments.reading import RUNS
from blossom_edge.simulation.experiments.running import run_one
from blossom_edge.simulation.experiments.settings import parse


def record_path(folder: Path, key: str) -> Path:
    """The file of a run's record."""
    return folder / RUNS / f"{key}.json"


def work(
    job: Mapping[str, Any], next_key: Callable[[], str | None], answer: Callable[[Mapping[str, Any]], None]
) -> None:
    """Do the runs that `next_key` names until it gives None; each record is written before its answer.

    An answer is {"key", "cpu_s"}, or {"key", "error", "message"} for a run that failed.
    """
    plan = Plan(parse(job["settings"]), folder=Path(job["folder"]))
    out, scratch = Path(job["out"]), Path(job["scratch"])
    while (key := next_key()) is not None:
        run = plan.runs[key]
        try:
            record = run_one(plan, run, scratch=scratch, digest=plan.digest(run))
            text = json.dumps(record.to_dict(), separators=(",", ":"), allow_nan=False)
            atomic_write(record_path(out, key), text.encode(), name="record", mode=0o644)
        except BlossomError as error:
            answer({"key": key, "error": error.error_id, "message": str(error)})
        except Exception as error:  # the outermost loop: one broken run must not take the others with it
            answer({"key": key, "error": "unexpected", "message": f"{type(error).__name__}: {error}"})
        else:
            answer({"key": key, "cpu_s": record.cpu_s})


def main(stdin: TextIO = sys.stdin, stdout: TextIO = sys.stdout) -> None:
    """Work for the process that holds the other ends of stdin and stdout; Ctrl-C is left to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = json.loads(stdin.readline())
    keys: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def listen() -> None:
        for line in stdin:
            keys.put(json.loads(line)["run"])
        shutil.rmtree(job["scratch"], ignore_errors=True)
        os._exit(0)

    def answer(values: Mapping[str, Any]) -> None:
        stdout.write(json.dumps(values) + "\n")
        stdout.flush()

    threading.Thread(target=listen, daemon=True, name="listen").start()
    work(job, keys.get, answer)


if __name__ == "__main__":
    main()
