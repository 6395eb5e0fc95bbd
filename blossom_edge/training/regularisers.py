"""What holds local training back: the pull of FedProx, and modalities that go missing on purpose. Small functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

Pulled = tuple[nn.Parameter, Tensor]
"""A parameter, and the value that it is pulled to."""


def pulled_to_start(parameters: Iterable[nn.Parameter]) -> list[Pulled]:
    """The parameters with a copy of their values now."""
    return [(parameter, parameter.detach().clone()) for parameter in parameters]


@torch.no_grad()
def add_pull(pulled: Iterable[Pulled], mu: float) -> None:
    """Add to each gradient that of `mu / 2 * ||w - w_start||^2`, which is `mu * (w - w_start)`.

    A parameter without a gradient was not part of this step and is left alone.
    Source: FedProx, Li et al. 2020 (arXiv:1812.06127), equation 2.
    """
    for parameter, start in pulled:
        if parameter.grad is not None:
            parameter.grad.add_(parameter - start, alpha=mu)


def drop_modalities(present: Mapping[str, Tensor], probability: float) -> dict[str, Tensor]:
    """The masks `present`, modality -> (batch,) bool, with each modality of each row dropped with the probability.

    A row that would lose all of its modalities keeps one of them, drawn evenly; one with a single modality keeps it.
    Draws from torch's generator. Source: ModDrop, Neverova et al. 2016 (arXiv:1501.00102).
    """
    names = sorted(present)
    have = torch.stack([present[name] for name in names], dim=1)
    chance = torch.rand(have.shape).to(have.device)
    kept = have & (chance >= probability)
    last = torch.where(have, chance, -1.0).argmax(dim=1)  # of several present ones evenly: their chances are alike
    lost = have.any(dim=1) & ~kept.any(dim=1)
    kept[lost, last[lost]] = True
    return {name: kept[:, i] for i, name in enumerate(names)}
