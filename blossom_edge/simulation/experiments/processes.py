"""All runs of a plan in worker processes: finished ones are skipped, a worker that dies is noticed and replaced.

Computes no result itself; what is there after any interruption is what the next call goes on from.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import make_folder
from blossom_edge.simulation.experiments.plan import Plan
from blossom_edge.simulation.experiments.reading import RUNS, read_record
from blossom_edge.simulation.experiments.worker import record_path

WORKER = "blossom_edge.simulation.experiments.worker"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of a random name is made in it
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def sort_runs(plan: Plan, out: Path) -> tuple[list[str], list[str]]:
    """Keys of the runs without a record in `out`, and of those whose record is of other settings or other data.

    Raises:
        ConfigError: as `Plan.digest`: a combination cannot be.
        StorageError: a record is damaged.
    """
    missing, other = [], []
    for key, run in plan.runs.items():
        digest, path = plan.digest(run), record_path(out, key)
        if not path.exists():
            missing.append(key)
        elif read_record(path).digest != digest:
            other.append(key)
    return missing, other


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that has no result, and why."""

    key: str
    error_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is; `ended` is the key of the run that ended last, "" before the first."""

    done: int
    total: int
    workers: int
    ended: str = ""
    failure: Failure | None = None


def missing_runs(plan: Plan, out: Path) -> list[str]:
    """Keys of the plan's runs that have no record in `out` yet, in order.

    Raises:
        ConfigError: `experiment-changed`; a record is there that other settings or other data gave.
        ConfigError: as `Plan.digest`: a combination cannot be.
        StorageError: a record is damaged.
    """
    missing, other = sort_runs(plan, out)
    if other:
        raise ConfigError(
            "experiment-changed",
            f"{out / RUNS} has {len(other)} results of other settings or data, the first is {other[0]}",
            hint="name another folder with --out, or delete these results",
        )
    return missing


def run_missing(
    plan: Plan,
    out: Path,
    keys: list[str],
    *,
    folder: Path,
    workers: int,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> list[Failure]:
    """Do the runs `keys` of `plan` in at most so many processes of one thread; those that failed. `tell` hears of each.

    folder: where relative paths of the settings begin. On KeyboardInterrupt all workers are ended first.

    Raises:
        StorageError: `disk-failed`; the folder cannot be made.
    """
    make_folder(out / RUNS)
    shared = SHARED_MEMORY if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="blossom-edge-", dir=shared) as scratch:
        job = {"settings": plan.settings.to_dict(), "folder": str(folder), "out": str(out), "scratch": scratch}
        pool = _Pool(job, min(workers, len(keys)))
        try:
            return pool.run(deque(keys), tell)
        finally:
            pool.end()


class _Worker:
    """One process, and the run that it does now."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.key = ""
        self.buffer = b""
        self._said = TemporaryFile()  # noqa: SIM115 - closed by end()
        environ = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environ,
            bufsize=0,
        )
        if self.process.stdout is None or self.process.stdin is None:
            raise RuntimeError("a process without pipes")
        self.stdout, self._stdin = self.process.stdout, self.process.stdin
        self._send(job)

    def give(self, key: str) -> None:
        self.key = key
        self._send({"run": key})

    def answers(self) -> list[dict[str, Any]] | None:
        """What it said since; None when it is dead."""
        data = self.stdout.read(65_536)
        if not data:
            return None
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def obituary(self) -> str:
        code = self.process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._said.seek(max(self._said.seek(0, os.SEEK_END) - 2_000, 0))
        last = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process was {how}{f': {last[-1]}' if last else ''}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self._stdin, self.stdout, self._said):
            with suppress(OSError):
                stream.close()

    def _send(self, values: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it is dead: the end of its output says so
            self._stdin.write(json.dumps(values).encode() + b"\n")


class _Pool:
    def __init__(self, job: dict[str, Any], size: int) -> None:
        self._job, self._size = job, size
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def run(self, waiting: deque[str], tell: Callable[[Progress], None]) -> list[Failure]:
        total, done, failures = len(waiting), 0, []
        tell(Progress(0, total, self._size))
        while waiting or self._workers:
            while waiting and len(self._workers) < self._size:
                self._start().give(waiting.popleft())
            for selected, _ in self._selector.select():
                worker: _Worker = selected.data
                answers = worker.answers()
                if answers is None:
                    answers = [{"key": worker.key, "error": "experiment-failed", "message": worker.obituary()}]
                    self._remove(worker)
                for said in answers:
                    done += 1
                    failure = Failure(said["key"], said["error"], said["message"]) if "error" in said else None
                    failures += [failure] if failure else []
                    tell(Progress(done, total, self._size, said["key"], failure))
                    if worker in self._workers:
                        if waiting:
                            worker.give(waiting.popleft())
                        else:
                            self._remove(worker)
        return failures

    def end(self) -> None:
        """End every process that is left."""
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()

    def _start(self) -> _Worker:
        worker = _Worker(self._job)
        self._workers.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        return worker

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.stdout)
        worker.end()
