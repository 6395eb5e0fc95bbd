"""What one run of an experiment found, as plain values that a file keeps. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """What the modes are compared under. `windows` are those of one device, training and test together; 0: all."""

    data: str
    mix: str
    split: str
    windows: int = 0

    def __str__(self) -> str:
        return f"{self.data} {self.mix} {self.split} {self.windows or 'all'}"


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """One device of a run.

    confusion: test windows by (true class, answered class), of the last model; unseen: the same over all windows of
    people that no device has, with this device's modalities; empty where nobody was kept apart.
    curve: accuracy and macro F1 on the own test windows before the first round and after each, for plots.
    """

    id: str
    modalities: tuple[str, ...]
    num_train: int
    train_labels: tuple[int, ...]
    """Training windows by class."""
    confusion: tuple[tuple[int, ...], ...]
    unseen: tuple[tuple[int, ...], ...]
    accuracy: tuple[float, ...]
    macro_f1: tuple[float, ...]
    bytes_up_per_round: float
    bytes_down_per_round: float
    gate: float | None = None
    join_round: int = 1
    """Takes part from this round on."""
    behaviour: str = ""
    """What it does otherwise than others, in words."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run: one mode in one cell with one seed. `key` names it and its file."""

    key: str
    experiment: str
    cell: Cell
    mode: str
    seed: int
    rounds: int
    classes: tuple[str, ...]
    clients: tuple[ClientRecord, ...]
    cpu_s: float
    software: str
    digest: str
    """Of the federation that was run, or of the settings of a baseline."""
    reference: str = ""
    """The mode that this one is held against."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` reads it back."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunRecord:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError or ValueError: it is no record of this format.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, expected {FORMAT}")
        fields = {name: value for name, value in values.items() if name != "format"}
        clients = tuple(ClientRecord(**{k: _tuples(v) for k, v in client.items()}) for client in fields.pop("clients"))
        cell = Cell(**fields.pop("cell"))
        return cls(cell=cell, clients=clients, **{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
