"""A GRU whose outputs are averaged over time, quick to train on a CPU. Never another function than `nn.GRU` computes.

torch's own GRU records about ten autograd nodes in each step and adds to the weights' gradients step by step. Here the
backward is written out: what does not depend on the next step is worked out for all steps at once, and the gradient of
each weight is one matrix product at the end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class MeanGru(nn.GRU):
    """One layer of GRU and the mean of its outputs over time; parameters and names are those of `nn.GRU`.

    The written-out gradient is used in training on the CPU; everything else (scoring, export, CUDA) is torch's GRU.
    Source of the equations: the documentation of `torch.nn.GRU` (Cho et al. 2014, reset after the product).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, batch_first=True)

    def mean(self, steps: Tensor) -> Tensor:
        """(batch, time, inputs) -> (batch, hidden)."""
        if trains_on_cpu(self, steps):
            weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
            result: Tensor = _MeanGru.apply(steps, *weights)  # type: ignore[no-untyped-call]  # torch gives Function.apply no types
            return result
        states, _ = self(steps)
        average: Tensor = states.mean(dim=1)
        return average


def trains_on_cpu(module: nn.Module, values: Tensor) -> bool:
    """Whether a module may take a path that is made for training on the CPU."""
    return module.training and torch.is_grad_enabled() and values.device.type == "cpu"


class _MeanGru(Function):
    """Gates are in torch's order r, z, n. T steps, B windows, I inputs, H hidden."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, w_in: Tensor, w_hidden: Tensor, b_in: Tensor, b_hidden: Tensor) -> Tensor:
        batch, time, width = steps.shape
        hidden = w_hidden.shape[1]
        flat = steps.transpose(0, 1).reshape(time * batch, width)
        both = b_in.clone()
        both[: 2 * hidden] += b_hidden[: 2 * hidden]
        from_input = torch.addmm(both, flat, w_in.t()).view(time, batch, 3 * hidden)
        states = flat.new_zeros(time + 1, batch, hidden)
        gates = flat.new_empty(time, batch, 2 * hidden)
        new, new_hidden = flat.new_empty(time, batch, hidden), flat.new_empty(time, batch, hidden)
        turned, bias = w_hidden.t(), b_hidden[2 * hidden :]
        product = flat.new_empty(batch, 3 * hidden)
        product_gates, product_new = product[:, : 2 * hidden], product[:, 2 * hidden :]
        rows = zip(
            from_input[..., : 2 * hidden].unbind(),
            from_input[..., 2 * hidden :].unbind(),
            gates.unbind(),
            gates[..., :hidden].unbind(),
            gates[..., hidden:].unbind(),
            new.unbind(),
            new_hidden.unbind(),
            states[1:].unbind(),
            strict=True,
        )
        before = states[0]
        for in_gates, in_new, gate, reset, update, n, n_hidden, after in rows:
            torch.mm(before, turned, out=product)
            torch.add(in_gates, product_gates, out=gate).sigmoid_()
            torch.add(product_new, bias, out=n_hidden)
            torch.addcmul(in_new, reset, n_hidden, out=n).tanh_()
            torch.lerp(n, before, update, out=after)  # (1 - z) n + z h
            before = after
        ctx.save_for_backward(flat, w_in, w_hidden, states, gates, new, new_hidden)
        return states[1:].mean(dim=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
        flat, w_in, w_hidden, states, gates, new, new_hidden = ctx.saved_tensors
        time, batch, hidden = new.shape
        reset, update = gates[..., :hidden], gates[..., hidden:]
        # Gradients of the sums before the gates, as multiples of that of the state: n (input side), r, z, n (hidden).
        per_state = flat.new_empty(time, batch, 4, hidden)
        of_n, of_r, of_z, of_n_hidden = per_state.unbind(dim=2)
        torch.mul(1 - update, 1 - new * new, out=of_n)
        torch.mul(of_n, reset, out=of_n_hidden)
        torch.mul(of_n_hidden * new_hidden, 1 - reset, out=of_r)
        torch.mul((states[:-1] - new) * update, 1 - update, out=of_z)
        sums = flat.new_empty(time, batch, 4, hidden)
        of_hidden = sums.view(time, batch, 4 * hidden)[..., hidden:]
        each = grad / time
        state, past = each.clone(), flat.new_empty(batch, hidden)
        steps = zip(per_state.unbind(), sums.unbind(), of_hidden.unbind(), update.unbind(), strict=True)
        for factor, result, from_hidden, kept in reversed(list(steps)):
            torch.mul(state.unsqueeze(1), factor, out=result)
            torch.addcmul(each, state, kept, out=past).addmm_(from_hidden, w_hidden)
            state, past = past, state
        found = sums.view(time * batch, 4 * hidden)
        of_input, of_hidden = found[:, : 3 * hidden], found[:, hidden:]
        bias = found.sum(dim=0)
        weight = of_input.t() @ flat
        steps_grad = None
        if ctx.needs_input_grad[0]:
            order = torch.cat((w_in[2 * hidden :], w_in[: 2 * hidden]))
            steps_grad = (of_input @ order).view(time, batch, -1).transpose(0, 1)
        return (
            steps_grad,
            torch.cat((weight[hidden:], weight[:hidden])),
            of_hidden.t() @ states[:-1].view(time * batch, hidden),
            torch.cat((bias[hidden : 3 * hidden], bias[:hidden])),
            bias[hidden:],
        )
