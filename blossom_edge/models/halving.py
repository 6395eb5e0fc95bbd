"""Convolution over time, ReLU, halving and dropout as one step that is quick to train on a CPU.

Never another function than `dropout(max_pool1d(relu(conv1d(x)), 2))` computes. Time stays the second axis and channels
the last: the convolution is one matrix product, the maximum of two steps compares rows that lie beside each other, and
ReLU and dropout only see the half that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def halve(steps: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
    """(batch, time, channel) -> (batch, time // 2, output), padded with kernel // 2 zeros at both ends.

    weight (output, channel, kernel) and bias (output,) are those of `nn.Conv1d`; keep is of the result's shape, 0 or
    1 / (1 - p), or None for no dropout. Of two equal steps the first takes the gradient, as in `max_pool1d`.
    """
    result: Tensor = _Halve.apply(steps, weight, bias, keep)  # type: ignore[no-untyped-call]  # torch gives Function.apply no types
    return result


def dropout_masks(sizes: Sequence[tuple[int, ...]], probability: float, *, like: Tensor) -> list[Tensor]:
    """Masks of these shapes, 0 with the probability and else 1 / (1 - p), from one draw of torch's generator.

    A window of 32 bits decides each value: the probability is met to 2**-33.
    """
    counts = [int(torch.Size(size).numel()) for size in sizes]
    words = torch.empty((sum(counts) + 1) // 2, dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int32)[: sum(counts)]
    border = min(round(probability * 2**32) - 2**31, 2**31 - 1)
    kept = torch.ge(drawn, border, out=torch.empty_like(drawn))  # numbers instead of truth values: torch is quicker
    masks = torch.split(kept.to(like.dtype).mul_(1 / (1 - probability)), counts)
    return [mask.view(size) for mask, size in zip(masks, sizes, strict=True)]


class _Halve(Function):
    """B windows, T steps out of the convolution, C channels, K kernel, O outputs."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
        batch, time, channels = steps.shape
        outputs, _, kernel = weight.shape
        pad = kernel // 2
        long = steps.new_zeros(batch, time + 2 * pad, channels)
        long[:, pad : pad + time] = steps
        count = long.shape[1] - kernel + 1
        size, strides = (batch, count, kernel * channels), (long.stride(0), channels, 1)
        columns = long.as_strided(size, strides).reshape(batch * count, kernel * channels)
        flat = weight.transpose(1, 2).reshape(outputs, kernel * channels)
        found = torch.addmm(bias, columns, flat.t()).view(batch, count, outputs)
        first, second = found[:, 0 : count - 1 : 2], found[:, 1:count:2]
        top = torch.maximum(first, second).relu_()
        earlier = torch.ge(first, second, out=torch.empty_like(top))
        ctx.save_for_backward(columns, flat, earlier, top, keep)
        ctx.shape = (batch, time, channels, kernel, count, pad)
        return top if keep is None else top * keep

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        columns, flat, earlier, top, keep = ctx.saved_tensors
        batch, time, channels, kernel, count, pad = ctx.shape
        outputs = flat.shape[0]
        half = torch.ops.aten.threshold_backward(grad if keep is None else grad * keep, top, 0)
        found = half.new_zeros(batch, count, outputs) if count % 2 else half.new_empty(batch, count, outputs)
        first = found[:, 0 : count - 1 : 2]
        torch.mul(half, earlier, out=first)
        torch.sub(half, first, out=found[:, 1:count:2])
        rows = found.view(batch * count, outputs)
        of_weight = (columns.t() @ rows).view(kernel, channels, outputs).permute(2, 1, 0)
        of_steps = None
        if ctx.needs_input_grad[0]:
            parts = (rows @ flat).view(batch, count, kernel, channels)
            long = half.new_zeros(batch, time + 2 * pad, channels)
            for offset in range(kernel):
                long[:, offset : offset + count].add_(parts[:, :, offset])
            of_steps = long[:, pad : pad + time]
        return of_steps, of_weight, rows.sum(dim=0), None
