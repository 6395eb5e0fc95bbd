"""`TorchTrainer`: one device's local training and scoring. Never sees the network, never makes deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blossom_edge.core.blocks import Array, BlockId, BlockKind, Visibility
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.gate import ValidationWindows, choose_gate
from blossom_edge.core.metrics import Metric, MetricSums
from blossom_edge.core.names import TaskName
from blossom_edge.core.rounds import LocalTraining
from blossom_edge.core.training import Blocks, TrainResult
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import gate_id
from blossom_edge.models.block_model import BlockModel
from blossom_edge.training.batches import Stacked, batch_rows, count_samples, seed_bytes, stack, usable
from blossom_edge.training.compute import choose_device, set_threads
from blossom_edge.training.losses import gate_losses, score_sums, training_loss
from blossom_edge.training.optimizers import Named, keep_state, make_optimizer
from blossom_edge.training.regularisers import add_pull, drop_modalities, pulled_to_start
from blossom_edge.training.scaling import Measured, measured_scales

EVALUATION_BATCH = 256
_NOT_TRAINED = (BlockKind.GATE, BlockKind.SCALE)
"""Chosen or measured; no gradient moves them."""


class TorchTrainer:
    """Learns from the windows that `train` returns, scores on those of `holdout`; both are asked anew each time.

    `tasks` are those that the device serves (empty: all of the federation). `compute_note` says where it runs.
    On the CPU with one number of threads, equal calls give equal bits; other users of torch's random numbers in the
    process are not disturbed.

    Raises:
        HardwareError: `device-unavailable`, CUDA was asked for and is not there.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        device_id: str,
        train: Callable[[], WindowSet],
        holdout: Callable[[], WindowSet],
        compute: str = "auto",
        threads: int | None = None,
        tasks: Sequence[str] = (),
    ) -> None:
        self._federation = federation
        self._device_id = device_id
        self._train = train
        self._holdout = holdout
        self._tasks = tuple(sorted(tasks or federation.tasks))
        self._device, where = choose_device(compute)
        self.num_threads = set_threads(threads)
        plural = "" if self.num_threads == 1 else "s"
        self.compute_note = where if self._device.type == "cuda" else f"{where}, {self.num_threads} thread{plural}"
        self.gates: Mapping[TaskName, float] = {}
        """By task with dual blocks, the gate that the last training or scoring used."""
        self._validation = ValidationWindows()
        self._model: BlockModel | None = None
        self._stacked: dict[str, tuple[WindowSet, BlockModel, Stacked]] = {}

    def present_modalities(self) -> frozenset[str]:
        """Modalities with labelled windows right now."""
        windows = self._train()
        return frozenset(
            m
            for task in self._tasks
            for m in self._federation.task_modalities(task)
            if m in windows.present and bool((windows.present[m] & windows.labelled(task)).any())
        )

    def num_windows(self) -> int:
        """Windows with a label of a served task and one of its modalities present."""
        windows = self._train()
        masks = [usable(windows, t, self._federation.task_modalities(t)) for t in self._tasks]
        return int(np.logical_or.reduce(masks).sum()) if masks else 0

    def evaluate(self, blocks: Blocks) -> MetricSums:
        """Score on the holdout: `TASK.loss` with `TASK.accuracy`, or for a regression `TASK.mae`; empty without one."""
        sums = _Sums(self._federation)
        for outputs, labels in self.answers(blocks, self._holdout()):
            sums.add(outputs, labels)
        return sums.metrics("")

    def answers(
        self, blocks: Blocks, windows: WindowSet
    ) -> Iterator[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]:
        """Batch by batch the outputs and labels by task, of the windows that have a label and a modality of it.

        A task with dual blocks is mixed by the gate that its validation windows choose for these blocks.
        """
        model = self._load(blocks)
        self._measure(model, blocks)
        self._choose_gates(model)
        stacked = self._stack("holdout", windows, model)
        model.eval()
        with torch.inference_mode():
            for rows in _in_order(np.arange(stacked.num_windows)):
                branches, labels = _forward(model, stacked, rows.to(self._device), rows.numpy())
                yield {t: model.mixed(t, found) for t, found in branches.items()}, labels

    def train(
        self,
        blocks: Blocks,
        training: LocalTraining,
        *,
        round_number: int,
        frozen: frozenset[BlockId],
        optimizer: Mapping[str, Array],
        keep_going: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train copies of `blocks` for one round; those in `frozen` are used but not changed.

        `keep_going` is asked between two steps; after a no the result is that of the steps done until then.
        The loss is the sum over the tasks, and over the branches of a task with dual blocks, of the mean over a batch's
        labelled windows. With dual blocks a fifth of the windows choose the gate and are not trained on. Shared blocks'
        momentum starts anew, that of private blocks goes on from `optimizer`. `num_samples` counts each window once,
        not per epoch.
        Blocks that nothing exercised are not in the result. Metrics are `TASK.train_loss` and so on, over all steps.

        Raises:
            BlossomError: `local-value`, the values are not finite any more.
        """
        model = self._load(blocks)
        scales = self._measure(model, blocks)
        stacked = self._stack("train", self._train(), model)
        named = _trainable(model, frozen)
        if stacked.num_windows == 0 or not named:
            return TrainResult({}, {}, 0, {}, dict(optimizer))
        gates = self._choose_gates(model)
        learn = np.flatnonzero(~self._validation.rows(stacked.times)) if gates else np.arange(stacked.num_windows)
        private = [row for row in named if model.specs[row[0]].visibility is Visibility.PRIVATE]
        at_home = {str(block) for block, _, _ in private}
        kept = {key: values for key, values in optimizer.items() if key.partition(":")[0] in at_home}
        sums, seen, num_steps = _Sums(self._federation), np.zeros(stacked.num_windows, dtype=np.bool_), 0
        steps = make_optimizer(named, training, kept=kept)
        shared = [parameter for block, _, parameter in named if model.specs[block].leaves_device]
        pulled = pulled_to_start(shared) if training.prox_mu > 0 else []
        model.train()
        with _seeded(seed_bytes(training, round_number, self._device_id), self._device):
            for chosen in batch_rows(len(learn), training, round_number=round_number, device_id=self._device_id):
                if num_steps and keep_going is not None and not keep_going():
                    break
                rows = torch.from_numpy(learn[chosen.numpy()])
                drop = training.modality_dropout
                branches, labels = _forward(model, stacked, rows.to(self._device), rows.numpy(), drop=drop)
                losses = [
                    training_loss(self._federation.tasks[t], outputs, labels[t])
                    for t, found in branches.items()
                    for outputs in found.values()
                ]
                steps.zero_grad(set_to_none=True)
                torch.autograd.backward([loss for loss in losses if loss.requires_grad])
                add_pull(pulled, training.prox_mu)
                if training.clip_norm > 0:
                    torch.nn.utils.clip_grad_norm_([p for _, _, p in named], training.clip_norm)
                steps.step()
                sums.add({t: model.mixed(t, found) for t, found in branches.items()}, labels)
                seen[rows.numpy()] = True
                num_steps += 1
        counts = count_samples(tuple(model.specs.values()), stacked, seen)
        counts |= {b: 0 for b in model.specs if b.kind in _NOT_TRAINED}
        counts |= {gate_id(task): stacked.num_windows - len(learn) for task in gates}
        counts |= {block: one.num_windows for block, one in scales.items()}
        trained = [b for b in model.specs if b not in frozen and counts[b] > 0]
        values = {b: scales[b].added if b in scales else model.values(b) for b in trained}
        self._check_finite(values, round_number)
        return TrainResult(
            blocks=values,
            num_samples={b: counts[b] for b in trained},
            num_steps=num_steps,
            metrics=sums.metrics("train_"),
            optimizer={**optimizer, **keep_state(steps, private, training)},
        )

    def _load(self, blocks: Blocks) -> BlockModel:
        if self._model is None or set(self._model.specs) != set(blocks):
            self._model = BlockModel(self._federation, blocks).to(self._device)
            self._stacked.clear()
        self._model.load(blocks)
        return self._model

    def _measure(self, model: BlockModel, blocks: Blocks) -> dict[BlockId, Measured]:
        """Put the own figures into scales that nobody agreed on yet; what was measured, by scale."""
        if not any(block.kind is BlockKind.SCALE for block in model.specs):
            return {}
        found = measured_scales(self._federation, blocks, self._train(), self._tasks)
        model.load({block: one.own for block, one in found.items()})
        return found

    def _choose_gates(self, model: BlockModel) -> dict[TaskName, float]:
        """Put the gate of every task with dual blocks where the validation windows want it; by task."""
        tasks = [t for t in model.tasks if gate_id(t) in model.specs and t in self._tasks]
        if not tasks:
            return {}
        stacked = self._stack("train", self._train(), model)
        losses: dict[TaskName, list[np.ndarray[Any, np.dtype[np.float64]]]] = {task: [] for task in tasks}
        model.eval()
        with torch.inference_mode():
            for rows in _in_order(np.flatnonzero(self._validation.rows(stacked.times))):
                branches, labels = _forward(model, stacked, rows.to(self._device), rows.numpy())
                for task in (t for t in tasks if t in branches):
                    losses[task].append(gate_losses(self._federation.tasks[task], branches[task], labels[task]))
        gates = {task: choose_gate(np.concatenate(found, axis=1)) for task, found in losses.items() if found}
        for task, gate in gates.items():
            model.load({gate_id(task): {"gate": np.full(1, gate, dtype=np.float32)}})
        self.gates = gates
        return gates

    def _stack(self, name: str, windows: WindowSet, model: BlockModel) -> Stacked:
        """The stacked windows; made again only when the set or the model is another one."""
        kept = self._stacked.get(name)
        if kept is not None and kept[0] is windows and kept[1] is model:
            return kept[2]
        wiring = {t: model.task_modalities(t) for t in self._tasks if t in model.tasks}
        stacked = stack(windows, wiring, self._device)
        self._stacked[name] = (windows, model, stacked)
        return stacked

    def _check_finite(self, values: Blocks, round_number: int) -> None:
        for block, tensors in values.items():
            for name, tensor in tensors.items():
                if not np.isfinite(tensor).all():
                    raise BlossomError(
                        "local-value",
                        f"training diverged in round {round_number}: {block} {name} is not finite",
                        hint="lower training.lr or set training.clip_norm in the federation",
                    )


class _Sums:
    """Scores added over batches."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._totals: dict[str, list[Tensor]] = {}
        self._counts: dict[str, int] = {}

    def add(self, outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
        for task, out in outputs.items():
            for measure, total in score_sums(self._federation.tasks[task], out.detach(), labels[task]).items():
                name = f"{task}.{measure}"
                self._totals.setdefault(name, []).append(total)
                self._counts[name] = self._counts.get(name, 0) + len(out)

    def metrics(self, prefix: str) -> dict[str, Metric]:
        result: dict[str, Metric] = {}
        for name, totals in sorted(self._totals.items()):
            task, _, measure = name.partition(".")
            total = float(torch.stack(totals).sum())
            result[f"{task}.{prefix}{measure}"] = Metric(total, float(self._counts[name]))
        return result


def _forward(
    model: BlockModel,
    stacked: Stacked,
    rows: Tensor,
    rows_cpu: np.ndarray[Any, np.dtype[np.int64]],
    *,
    drop: float = 0.0,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """What the branches say and the labels, per task, only for the windows among `rows` that count for it.

    drop: the chance that a window loses one of its modalities here.
    """
    used = {t: mask[rows_cpu] for t, mask in stacked.used.items()}
    tasks = [t for t, mask in used.items() if mask.any()]
    present = {m: x[rows] for m, x in stacked.present.items()}
    if drop and len(present) > 1:
        present = drop_modalities(present, drop)
    found = model.branches({m: x[rows] for m, x in stacked.inputs.items()}, present, tasks)
    labels = {t: stacked.labels[t][rows] for t in found}
    for task in found:
        if not used[task].all():
            mask = torch.from_numpy(used[task]).to(rows.device)
            found[task] = {branch: outputs[mask] for branch, outputs in found[task].items()}
            labels[task] = labels[task][mask]
    return found, labels


def _trainable(model: BlockModel, frozen: frozenset[BlockId]) -> list[Named]:
    """The parameters to be trained; those of frozen blocks take no gradient."""
    named: list[Named] = []
    for block in model.specs:
        if block.kind in _NOT_TRAINED:
            continue
        module = model.module(block).requires_grad_(block not in frozen)
        if block not in frozen:
            named += [(block, name, parameter) for name, parameter in module.named_parameters()]
    return named


def _in_order(rows: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[Tensor]:
    """Rows in batches for scoring."""
    for start in range(0, len(rows), EVALUATION_BATCH):
        yield torch.from_numpy(rows[start : start + EVALUATION_BATCH])


@contextmanager
def _seeded(seed: bytes, device: torch.device) -> Iterator[None]:
    """Dropout's random numbers from `seed`; the generators of the process are put back afterwards."""
    number = int.from_bytes(seed[16:24], "little") >> 1
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(number)
        if cuda:
            torch.cuda.manual_seed(number)
        yield
