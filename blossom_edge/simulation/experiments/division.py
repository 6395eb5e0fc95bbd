"""Who gets which windows and which modalities: pure functions of a data set, a cell and a seed.

Nothing here knows the mode, so that all modes of one seed have the same clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.dataset import Dataset

Rows = NDArray[np.int64]
MIN_WINDOWS = 10
"""A Dirichlet split gives each client at least so many."""
DRAWS = 10_000
"""So often a Dirichlet split is drawn anew before it is called impossible."""
_UNSEEN, _SPLIT, _MIX, _WINDOWS, _PARTS = range(1, 6)


@dataclass(frozen=True, slots=True)
class Seat:
    """One client: its modalities, sorted, and the rows of the data set that it learns from and is scored on."""

    id: str
    modalities: tuple[str, ...]
    train: Rows
    test: Rows


@dataclass(frozen=True, slots=True)
class Division:
    """All clients, and the rows of the people kept apart."""

    seats: tuple[Seat, ...]
    unseen: Rows


def divide(
    dataset: Dataset,
    modalities: Sequence[str],
    *,
    split: str,
    profiles: Mapping[tuple[str, ...], int],
    windows: int,
    holdout: float,
    unseen: int | Sequence[int],
    seed: int,
) -> Division:
    """Deal a data set out to clients. Windows without any of `modalities` are left out.

    split: see `iid`, `dirichlet` and `by_subject`. profiles: modalities -> how many clients have just these.
    windows: so many of each client's, drawn; 0: all. holdout: share of a client's windows that is its test part: a
    random one, with by-subject the later ones of each of its people and classes.

    Raises:
        ConfigError: `experiment-invalid`; the data cannot be dealt out so.
    """
    present = np.logical_or.reduce([dataset.modalities[m].present for m in modalities])
    apart = _unseen_rows(dataset, unseen, _rng(seed, _UNSEEN))
    rows = np.flatnonzero(present & ~apart).astype(np.int64)
    count = sum(profiles.values())
    kind, _, alpha = split.partition(":")
    rng = _rng(seed, _SPLIT)
    if kind == "iid":
        parts = iid(rows, count, rng)
    elif kind == "dirichlet":
        parts = dirichlet(rows, dataset.labels, count, float(alpha), rng)
    else:
        parts = by_subject(rows, dataset.subjects, count, rng)
    owned = [combo for combo in sorted(profiles) for _ in range(profiles[combo])]
    order = _rng(seed, _MIX).permutation(count)
    seats = []
    for number, part in enumerate(parts):
        own = owned[order[number]]
        if windows:
            # drawn before anybody asks who has which modality: a mix changes no client's windows
            part = np.sort(_rng(seed, _WINDOWS, number).permutation(part)[:windows])
        part = part[np.logical_or.reduce([dataset.modalities[m].present[part] for m in own])]
        name = f"c{number:0{len(str(count - 1))}}"
        if len(part) < 2:
            raise _impossible(f"{name} has {len(part)} windows of {'+'.join(own)}, expected at least 2")
        if kind == "by-subject":
            train, test = _later(part, dataset, holdout)
        else:
            train, test = _random(part, holdout, _rng(seed, _PARTS, number))
        if not len(train) or not len(test):
            raise _impossible(f"{name} has {len(train)} training and {len(test)} test windows, expected some of both")
        seats.append(Seat(name, own, train, test))
    return Division(tuple(seats), np.flatnonzero(present & apart).astype(np.int64))


def iid(rows: Rows, count: int, rng: np.random.Generator) -> list[Rows]:
    """Shuffled, in parts of nearly equal size."""
    return [np.sort(part) for part in np.array_split(rng.permutation(rows), count)]


def dirichlet(rows: Rows, labels: Rows, count: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """Of each class, the clients get shares drawn from Dirichlet(alpha, ..., alpha); anew until each client has 10.

    After Hsu, Qi and Brown 2019 (arXiv:1909.06335), in the form in which it is mostly run: they draw the classes of
    each client, here the clients of each class are drawn, so that every window is used exactly once.

    Raises:
        ConfigError: `experiment-invalid`; no draw gave every client ten windows.
    """
    if len(rows) < MIN_WINDOWS * count or alpha <= 0:
        raise _impossible(f"{len(rows)} windows for {count} clients by dirichlet:{alpha:g}, expected ten for each")
    by_class = [rng.permutation(rows[labels[rows] == label]) for label in np.unique(labels[rows])]
    for _ in range(DRAWS):
        shares = rng.dirichlet(np.full(count, alpha), size=len(by_class))
        cuts = [
            (np.cumsum(share)[:-1] * len(own)).astype(np.int64) for share, own in zip(shares, by_class, strict=True)
        ]
        sizes = sum(np.diff([0, *cut, len(own)]) for cut, own in zip(cuts, by_class, strict=True))
        if np.min(sizes) >= MIN_WINDOWS:
            dealt = [np.split(own, cut) for own, cut in zip(by_class, cuts, strict=True)]
            return [np.sort(np.concatenate([parts[i] for parts in dealt])) for i in range(count)]
    raise _impossible(f"dirichlet:{alpha:g} left a client with fewer than ten windows in {DRAWS} draws")


def by_subject(rows: Rows, subjects: Rows, count: int, rng: np.random.Generator) -> list[Rows]:
    """Whole people to clients, in random order one after the other.

    Raises:
        ConfigError: `experiment-invalid`; fewer people than clients, or nobody knows whose windows they are.
    """
    people = np.unique(subjects[rows])
    if (people < 0).any() or len(people) < count:
        raise _impossible(f"by-subject: found {len(people[people >= 0])} known people, expected one or more per client")
    dealt = np.array_split(rng.permutation(people), count)
    return [rows[np.isin(subjects[rows], part)] for part in dealt]


def _unseen_rows(dataset: Dataset, unseen: int | Sequence[int], rng: np.random.Generator) -> NDArray[np.bool_]:
    people = np.unique(dataset.subjects)
    if not unseen:
        return np.zeros(len(dataset), dtype=np.bool_)
    wanted = rng.permutation(people)[:unseen] if isinstance(unseen, int) else np.asarray(unseen)
    number = unseen if isinstance(unseen, int) else len(unseen)
    if (people < 0).any() or number >= len(people) or not np.isin(wanted, people).all():
        raise _impossible(f"unseen = {unseen}, found people {people.min()} to {people.max()}, expected some of them")
    return np.asarray(np.isin(dataset.subjects, wanted))


def _random(part: Rows, holdout: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    mixed = rng.permutation(part)
    cut = len(part) - max(1, round(holdout * len(part)))
    return mixed[:cut], mixed[cut:]


def _later(part: Rows, dataset: Dataset, holdout: float) -> tuple[Rows, Rows]:
    is_test = np.zeros(len(part), dtype=np.bool_)
    subjects, labels = dataset.subjects[part], dataset.labels[part]
    for person in np.unique(subjects):
        for label in np.unique(labels):
            own = np.flatnonzero((subjects == person) & (labels == label))
            is_test[own[len(own) - round(holdout * len(own)) :]] = True
    return part[~is_test], part[is_test]


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, *purpose))


def _impossible(message: str) -> ConfigError:
    return ConfigError("experiment-invalid", message, hint="fewer clients, another split, or more data")
