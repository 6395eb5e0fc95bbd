"""The local optimiser: made anew each round, with the kept state of private blocks put back. Keeps nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from blossom_edge.core.blocks import Array, BlockId
from blossom_edge.core.rounds import LocalTraining

Named = tuple[BlockId, str, nn.Parameter]
_ADAM = ("exp_avg", "exp_avg_sq", "step")
_SLOTS = {"sgd": ("momentum_buffer",), "adam": _ADAM, "adamw": _ADAM}


def make_optimizer(
    parameters: Iterable[Named], training: LocalTraining, *, kept: Mapping[str, Array]
) -> torch.optim.Optimizer:
    """SGD with momentum, Adam or AdamW, fused where this torch can.

    Every parameter starts from zero state, or from `kept` (keys `BLOCK:TENSOR:SLOT`); what does not fit, because the
    federation changed its optimiser or the block, is passed over.
    """
    named = list(parameters)
    optimizer = _fused_or_plain([p for _, _, p in named], training)
    for block, name, parameter in named:
        slots = _slots(training)
        saved = {slot: kept.get(_key(block, name, slot)) for slot in slots}
        for slot in slots:
            shape = (1,) if slot == "step" else tuple(parameter.shape)
            values = saved[slot]
            whole = all(v is not None for v in saved.values()) and values is not None and values.shape == shape
            start = torch.from_numpy(np.array(values, np.float32)) if whole else torch.zeros(shape)
            target = start.reshape(()) if slot == "step" else start
            optimizer.state[parameter][slot] = target.to(parameter.device)
    return optimizer


def keep_state(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Named], training: LocalTraining
) -> dict[str, Array]:
    """The state of these parameters, float32 on the CPU, in the keys that `make_optimizer` takes back."""
    return {
        _key(block, name, slot): _array(optimizer.state[parameter][slot])
        for block, name, parameter in parameters
        for slot in _slots(training)
    }


def _slots(training: LocalTraining) -> tuple[str, ...]:
    if training.optimizer == "sgd" and training.momentum == 0.0:
        return ()
    return _SLOTS[training.optimizer]


def _key(block: BlockId, name: str, slot: str) -> str:
    return f"{block}:{name}:{slot}"


def _array(state: Tensor) -> Array:
    return state.detach().to("cpu", torch.float32, copy=True).reshape(state.shape or (1,)).numpy()


def _fused_or_plain(parameters: list[nn.Parameter], training: LocalTraining) -> torch.optim.Optimizer:
    for fused in (True, False):
        try:
            return _optimizer(parameters, training, fused=fused)
        except (RuntimeError, TypeError):  # an older torch has no fused kernel for this device
            if not fused:
                raise
    raise AssertionError("unreachable")


def _optimizer(parameters: list[nn.Parameter], training: LocalTraining, *, fused: bool) -> torch.optim.Optimizer:
    if training.optimizer != "sgd":
        kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=fused)
    return torch.optim.SGD(
        parameters, lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay, fused=fused
    )
