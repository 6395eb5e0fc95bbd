"""A whole federation on this machine, from nothing to a report: recordings, processes, comparison, files.

The block-wise federation is live: a gateway, a broker and six devices as processes. What it is compared with, the
same devices alone and with the full model, is computed beside it in two processes more.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.errors import ConfigError
from blossom_edge.durable import FolderLock, atomic_write, make_folder
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation import demo_modes
from blossom_edge.simulation.demo_files import private_blocks, read_device, read_shared, write_block
from blossom_edge.simulation.demo_live import GATEWAY, Lived, LiveFederation
from blossom_edge.simulation.demo_processes import Children, Interrupts
from blossom_edge.simulation.demo_view import Picture, View
from blossom_edge.simulation.modes import (
    CAST,
    MEASURE,
    Seat,
    demo_federation,
    demo_sets,
    evaluate_model,
    majority_scores,
)
from blossom_edge.simulation.results import DeviceResult, Results
from blossom_edge.simulation.watch import write_people

LIVE_MODE = "private_head_fusion"
WATCH_EVERY_S = 0.2
MARKER = ".made-by-blossom-edge-demo"
MADE = ("run", "report", "blocks", "results.json")


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What to run, and the folder that takes everything: run/ while it runs, report/, blocks/ and results.json."""

    folder: Path
    rounds: int
    seed: int
    labels_per_class: int | None
    keep: bool

    @property
    def run_folder(self) -> Path:
        """What the processes work in; removed at the end unless it is to be kept."""
        return self.folder / "run"


@contextmanager
def demo_folder(plan: DemoPlan) -> Iterator[None]:
    """Have the folder for this demo alone, without what an earlier one left in it.

    Raises:
        ConfigError: `usage`: there is something in it that no demo made.
        StorageError: `folder-in-use`.
    """
    folder = plan.folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        hint = "name a new one with --data-dir"
        raise ConfigError("usage", f"{folder} is not empty, and no demo has made it", hint=hint)
    make_folder(folder)
    with FolderLock.acquire(folder, what="demo"):
        atomic_write(folder / MARKER, b"the next demo here replaces what stands beside this file\n", name="marker")
        _remove(folder, MADE)
        yield


def run_demo(plan: DemoPlan, view: View, interrupts: Interrupts, *, say: Callable[[str], None]) -> Results:
    """Run it to its end; the caller holds the folder. No process is left, however it ends.

    Its report is still to be written. `say` takes a line for the person when it is stopped.

    Raises:
        KeyboardInterrupt: it was stopped.
        BlossomError: `demo-failed`, `package-missing`; run/ is kept then, for its logs.
    """
    _need_torch()
    demo = _Demo(plan, view, interrupts)
    try:
        results = demo.run()
    except KeyboardInterrupt:
        view.close()
        say("stopping gateway and devices; Ctrl-C once more does not wait for their goodbye")
        demo.stop()
        if not plan.keep:
            _remove(plan.folder, ("run",))
        raise
    except BaseException:
        demo.stop()
        raise
    if not plan.keep:
        _remove(plan.folder, ("run",))
    return results


class _Demo:
    def __init__(self, plan: DemoPlan, view: View, interrupts: Interrupts) -> None:
        self._plan = plan
        self._view = view
        self._interrupts = interrupts
        self._began = time.monotonic()
        make_folder(plan.run_folder)
        self._children = Children(plan.run_folder.absolute(), interrupts, keeper=GATEWAY)
        self._live = LiveFederation(plan.run_folder.absolute(), CAST, self._children, measure=MEASURE)
        self._phase = "writing the recordings of ten people"

    def run(self) -> Results:
        plan = self._plan
        federation = demo_federation(LIVE_MODE, rounds=plan.rounds, seed=plan.seed)
        self._watch()
        people = plan.run_folder / "people"
        write_people(people)
        self._phase = "starting the gateway"
        self._live.start_gateway(federation.name, demo_sets(LIVE_MODE, rounds=plan.rounds, seed=plan.seed))
        self._live.wait_for_gateway(self._watch)
        self._phase = "starting six devices"
        self._live.start_devices(seed=plan.seed, labels_per_class=plan.labels_per_class)
        for mode in demo_modes.MODES:
            words = demo_modes.arguments(
                mode, rounds=plan.rounds, seed=plan.seed, labels_per_class=plan.labels_per_class
            )
            self._children.start(f"compared-{mode}", words)
        while self._children.running():
            self._watch()
        self._children.check()
        self._phase = "scoring on new people"
        self._watch()
        results = self._results(federation, people)
        self._phase = "done"
        self._watch()
        return results

    def stop(self) -> None:
        """End all processes and wait for it."""
        self._children.stop(also=self._live.broker_pid)

    def _watch(self) -> None:
        """Show how it is now, see that nobody has failed, and wait a moment."""
        self._children.check()
        self._interrupts.check()
        plan = self._plan
        over = self._live.rounds_over()
        if over and self._phase.startswith("starting"):
            self._phase = "federation at work"
        if self._live.over() and self._children.running():
            self._phase = "waiting for the comparison"
        done, mode = demo_modes.read_progress(plan.run_folder)
        self._view.show(
            Picture(
                devices=self._live.rows(),
                round=over,
                rounds=plan.rounds,
                phase=self._phase,
                done=done,
                total=len(demo_modes.MODES) * plan.rounds,
                comparing=mode,
                seconds=time.monotonic() - self._began,
            )
        )
        if self._children.running():
            time.sleep(WATCH_EVERY_S)

    def _results(self, federation: Federation, people: Path) -> Results:
        plan, compared = self._plan, demo_modes.read_compared(self._plan.run_folder)
        own, new = majority_scores(
            federation, people, seed=plan.seed, labels_per_class=plan.labels_per_class, cast=CAST
        )
        gateway = self._live.gateway()
        devices = []
        for seat in CAST:
            model = read_device(plan.run_folder, seat.id, seat.modalities, federation)
            self._export_private(seat, model, federation)
            live = evaluate_model(federation, model, seat.profile, people)
            curves = {mode: found[seat.id].curve for mode, found in compared.items()}
            new_people = {mode: found[seat.id].new_people_score for mode, found in compared.items()}
            devices.append(self._device(seat, self._live.lived(seat.id), curves, {**new_people, LIVE_MODE: live}))
            self._watch()
        self._export_shared(federation)
        return Results(
            seed=plan.seed,
            rounds=plan.rounds,
            labels_per_class=plan.labels_per_class,
            federation=federation.name,
            digest=federation.digest,
            majority_score=own,
            new_people_majority=new,
            devices=tuple(devices),
            seconds=time.monotonic() - self._began,
            versions={block["block"]: block["sha256"] for block in gateway["blocks"]},
            warnings=tuple(gateway["warnings"]),
        )

    def _device(
        self, seat: Seat, lived: Lived, curves: dict[str, tuple[float, ...]], new_people: dict[str, float]
    ) -> DeviceResult:
        rounds = self._plan.rounds
        curves = {**curves, LIVE_MODE: tuple(score for _, score in sorted(lived.scores.items()))}
        return DeviceResult(
            id=seat.id,
            profile=seat.profile,
            modalities=seat.modalities,
            person=seat.person,
            score={mode: curve[-1] for mode, curve in curves.items()},
            new_people_score=new_people,
            curve=curves,
            bytes_up_per_round=sum(lived.bytes_up.get(n, 0) for n in range(1, rounds + 1)) / rounds,
            bytes_down_per_round=sum(lived.bytes_down.get(n, 0) for n in range(1, rounds + 1)) / rounds,
            private_blocks_sent=lived.private_sent,
            private_blocks=lived.private,
            private_place=str(self._plan.folder / "blocks" / seat.id),
        )

    def _export_private(self, seat: Seat, model: dict[BlockId, Tensors], federation: Federation) -> None:
        facts = {"federation": federation.name, "device": seat.id, "visibility": "private"}
        for block in private_blocks(seat.modalities, federation):
            write_block(self._plan.folder / "blocks" / seat.id, str(block), model[block], facts)

    def _export_shared(self, federation: Federation) -> None:
        for name, (version, values) in read_shared(self._plan.run_folder / "gateway", federation).items():
            facts = {"federation": federation.name, "version": str(version), "visibility": "shared"}
            write_block(self._plan.folder / "blocks" / "shared", name, values, facts)


def keep_results(plan: DemoPlan, results: Results, *, report: str) -> None:
    """Write results.json, what --json prints.

    Raises:
        StorageError: the disk refuses.
    """
    text = json.dumps(results.to_json(report=report), indent=2, allow_nan=False)
    atomic_write(plan.folder / "results.json", text.encode(), name="results", mode=0o644)


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        hint = "pip install 'blossom-edge[torch]'"
        raise ConfigError("package-missing", "the devices learn with the package torch, which is missing", hint=hint)


def _remove(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = folder / name
        remove: Callable[[Path], object] = shutil.rmtree if path.is_dir() else Path.unlink
        if path.exists():
            remove(path)
