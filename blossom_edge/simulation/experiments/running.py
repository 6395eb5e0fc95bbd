"""One run, from a plan to its record. Everything random comes from the run's seed."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from blossom_edge import __version__
from blossom_edge.simulation.experiments.baselines import centralised, local, majority
from blossom_edge.simulation.experiments.bench import Bench, Outcome, behaviour_words, make_bench
from blossom_edge.simulation.experiments.client import Counts
from blossom_edge.simulation.experiments.division import Seat
from blossom_edge.simulation.experiments.federated import federated
from blossom_edge.simulation.experiments.plan import Plan, Run
from blossom_edge.simulation.experiments.records import ClientRecord, RunRecord
from blossom_edge.simulation.experiments.scores import accuracy, macro_f1


def run_one(plan: Plan, run: Run, *, scratch: Path, digest: str) -> RunRecord:
    """Do one run. `scratch` takes what gateway and devices keep, and is left as it was.

    Raises:
        BlossomError: the combination cannot be, or what stopped a device.
    """
    began = time.process_time()
    bench = make_bench(plan, run)
    visibility = plan.mode(run).visibility
    if visibility == "majority":
        outcomes = majority(bench)
    elif visibility == "local":
        outcomes = local(bench)
    elif visibility == "centralised":
        outcomes = centralised(bench)
    else:
        with TemporaryDirectory(dir=scratch) as folder:
            outcomes = federated(bench, Path(folder))
    return RunRecord(
        key=run.key,
        experiment=plan.settings.name,
        cell=run.cell,
        mode=run.mode,
        seed=run.seed,
        rounds=bench.rounds,
        classes=bench.dataset.classes,
        clients=tuple(
            _record(bench, seat, outcomes[seat.id])
            for seat in bench.division.seats
            if not (seat.id in bench.behaviours and bench.behaviours[seat.id].attack)
        ),
        cpu_s=time.process_time() - began,
        software=__version__,
        digest=digest,
        reference=plan.mode(run).reference,
    )


def _record(bench: Bench, seat: Seat, outcome: Outcome) -> ClientRecord:
    plain = [confusion.tolist() for confusion in outcome.confusions]
    size, behaviour = len(bench.dataset.classes), bench.behaviours.get(seat.id)
    return ClientRecord(
        id=seat.id,
        modalities=seat.modalities,
        num_train=len(seat.train),
        train_labels=tuple(np.bincount(bench.dataset.labels[seat.train], minlength=size).tolist()),
        confusion=_tuples(outcome.confusions[-1]),
        unseen=() if outcome.unseen is None else _tuples(outcome.unseen),
        accuracy=tuple(round(accuracy(one), 6) for one in plain),
        macro_f1=tuple(round(macro_f1(one), 6) for one in plain),
        bytes_up_per_round=outcome.bytes_up,
        bytes_down_per_round=outcome.bytes_down,
        gate=outcome.gate,
        join_round=behaviour.join_round if behaviour is not None else 1,
        behaviour=behaviour_words(behaviour) if behaviour is not None else "",
    )


def _tuples(counts: Counts) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in counts.tolist())
