"""A federation made to fit a data set, and windows standardised as it says. Deals nothing out, learns nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, Visibility
from blossom_edge.core.errors import ConfigError
from blossom_edge.core.windows import WindowSet
from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation

Scales = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Modality -> mean and spread of each channel."""
SMALLEST_SPREAD = 1e-6


def the_task(federation: Federation) -> str:
    """The one task of a federation, a classification.

    Raises:
        ConfigError: `experiment-invalid`; it has several, or another kind.
    """
    names = list(federation.tasks)
    if len(names) != 1 or federation.tasks[names[0]].type != "classification":
        raise ConfigError(
            "experiment-invalid",
            f"federation {federation.name} has the tasks {', '.join(names)}, expected one classification",
        )
    return names[0]


def fit_federation(name: str, dataset: Dataset, *, sets: Sequence[str]) -> Federation:
    """Load a federation and give its modalities the windows, rates and channels of the data set, its task the classes.

    The blocks are left as they are: an encoder that does not suit the windows is refused.

    Raises:
        ConfigError: as `load_federation`; `experiment-invalid`: a modality that the data set does not have.
    """
    first = load_federation(name, sets=sets)
    task, values = the_task(first), first.to_dict()
    for modality, table in values["modalities"].items():
        signals = dataset.modalities.get(modality)
        if signals is None:
            raise ConfigError(
                "experiment-invalid",
                f"data set {dataset.name} has {', '.join(sorted(dataset.modalities))}, "
                f"federation {first.name} wants {modality}",
            )
        kept = table["channels"]
        if [(one["name"], one["unit"]) for one in kept] != list(signals.channels):
            kept = [{"name": channel, "unit": unit or "1"} for channel, unit in signals.channels]
        length = signals.values.shape[1]
        table.update(channels=kept, rate_hz=float(signals.rate_hz), window=length, hop=min(table["hop"], length))
        if signals.shape or table.get("shape"):
            table["shape"] = list(signals.shape)
    values["tasks"][task]["classes"] = list(dataset.classes)
    return Federation.from_dict(values, source=f"{name} for {dataset.name}")


def scale_federation(federation: Federation, scales: Scales) -> Federation:
    """The federation with these means and spreads in its channels."""
    values = federation.to_dict()
    for modality, (means, spreads) in scales.items():
        for i, channel in enumerate(values["modalities"][modality]["channels"]):
            channel.update(mean=float(means[i]), spread=float(spreads[i]))
    return Federation.from_dict(values)


def all_private(federation: Federation) -> Federation:
    """The federation with every block private, those of presets too."""
    values = federation.to_dict()
    for block in values["blocks"].values():
        block["visibility"] = Visibility.PRIVATE.value
    return Federation.from_dict(values)


def pooled_scales(dataset: Dataset, owned: Iterable[tuple[Collection[str], NDArray[np.int64]]]) -> Scales:
    """Mean and spread of each channel over the training windows of all clients that have the modality.

    owned: modalities and training rows of each client. The sums that `normalise = "agreed"` adds up over devices.
    """
    rows: dict[str, list[NDArray[np.int64]]] = {}
    for modalities, own in owned:
        for modality in modalities:
            rows.setdefault(modality, []).append(own[dataset.modalities[modality].present[own]])
    found = {}
    for modality, parts in sorted(rows.items()):
        values = _by_channel(dataset.modalities[modality], dataset.modalities[modality].values[np.concatenate(parts)])
        if values.size:
            spread = values.std(axis=(0, 1), dtype=np.float64)
            found[modality] = (
                values.mean(axis=(0, 1), dtype=np.float64),
                np.where(spread > SMALLEST_SPREAD, spread, 1.0),
            )
    return found


def federation_scales(federation: Federation) -> Scales:
    """Mean and spread of each channel as they stand in a federation."""
    return {
        name: (np.array([c.mean for c in modality.channels]), np.array([c.spread for c in modality.channels]))
        for name, modality in federation.modalities.items()
    }


def window_set(
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    task: str,
    modalities: Collection[str],
    have: Collection[str],
    scales: Scales,
) -> WindowSet:
    """The windows at `rows` as a device has them: `(value - mean) / spread`, with the modalities of `have` alone.

    modalities: the keys of the set; those not in `have` are absent in every window.
    """
    inputs: dict[str, Array] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    for modality in sorted(modalities):
        signals = dataset.modalities[modality]
        mask = signals.present[rows] if modality in have else np.zeros(len(rows), dtype=np.bool_)
        values = np.zeros((len(rows), *signals.values.shape[1:]), dtype=np.float32)
        if mask.any():
            mean, spread = scales[modality]
            found = (_by_channel(signals, signals.values[rows[mask]]) - mean) / spread
            values[mask] = found.reshape(len(found), *signals.values.shape[1:]).astype(np.float32)
        inputs[modality], present[modality] = values, mask
    return WindowSet(inputs, present, {task: dataset.labels[rows]}, np.arange(len(rows), dtype=np.float64))


def _by_channel(signals: Signals, values: Array) -> Array:
    """(n, time * samples, channels): in a sample the channel runs fastest."""
    return values.reshape(len(values), -1, len(signals.channels))
