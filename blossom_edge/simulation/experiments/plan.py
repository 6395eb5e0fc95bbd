"""Every run of an experiment, with a key that stays the same and a digest of what its result depends on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.dataset import Dataset
from blossom_edge.datasets.readers import READERS, read_dataset
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.experiments.fitting import fit_federation
from blossom_edge.simulation.experiments.records import Cell
from blossom_edge.simulation.experiments.settings import BASELINES, Behaviour, Mode, Settings


@dataclass(frozen=True, slots=True)
class Run:
    """One run; `key` names its file."""

    key: str
    cell: Cell
    mode: str
    seed: int


class Plan:
    """The runs of `settings`; data sets are read once and kept. `folder`: relative paths begin there.

    Raises:
        ConfigError: `experiment-invalid`; two runs would have one key.
    """

    def __init__(self, settings: Settings, *, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._datasets: dict[str, Dataset] = {}
        self._fingerprints: dict[str, str] = {}
        runs = self._all_runs()
        self.runs: dict[str, Run] = {run.key: run for run in runs}
        if len(self.runs) < len(runs):
            raise ConfigError("experiment-invalid", "data, mixes or modes have names that are equal in a file name")

    def _all_runs(self) -> list[Run]:
        """Seed by seed, so that what is there after an interruption is a whole comparison of fewer seeds."""
        s = self.settings
        return [
            Run(_key(cell, mode, seed), cell, mode, seed)
            for seed in s.seeds
            for cell in (
                Cell(data, mix, split, windows)
                for data in s.data
                for mix in s.mixes
                for split in s.splits
                for windows in s.windows
            )
            for mode in s.modes
        ]

    def dataset(self, name: str) -> Dataset:
        """The data set of this name.

        Raises:
            ConfigError: as `read_dataset`.
        """
        if name not in self._datasets:
            self._datasets[name] = read_dataset(self._place(self.settings.data[name].source))
        return self._datasets[name]

    def forget_data(self) -> None:
        """Give the memory of all data sets back."""
        self._datasets.clear()

    def mode(self, run: Run) -> Mode:
        """The settings of a run's mode."""
        return self.settings.modes[run.mode]

    def behaviours(self, run: Run) -> tuple[Behaviour, ...]:
        """Those of the file and those of the mode."""
        return (*self.settings.behaviours, *self.mode(run).behaviours)

    def federation(self, run: Run) -> Federation:
        """The federation of a run before standardising.

        A baseline has that of private head and fusion: its blocks begin with those values.

        Raises:
            ConfigError: as `fit_federation`.
        """
        source, mode = self.settings.data[run.cell.data], self.mode(run)
        visibility = "private-head-fusion" if mode.visibility in BASELINES else mode.visibility
        name = source.federation or self.settings.federation
        place = self._path(name) if name.endswith(".toml") or "/" in name else name
        late = sum(b.count or len(b.clients) for b in self.behaviours(run) if b.join_round > 1)
        sets = (
            *self.settings.set,
            *source.set,
            *mode.set,
            f"visibility={visibility}",
            f"seed={run.seed}",
            f"rounds.min_devices={max(self.settings.clients - late, 1)}",
            f"schedule.stop_rounds={self.settings.rounds}",
        )
        try:
            return fit_federation(place, self.dataset(run.cell.data), sets=sets)
        except ConfigError as error:
            raise ConfigError(error.error_id, f"mode {run.mode}: {error}", hint=error.hint) from None

    def profiles(self, run: Run, federation: Federation) -> Mapping[tuple[str, ...], int]:
        """Modalities -> how many clients have just these.

        Raises:
            ConfigError: `experiment-invalid`; the mix does not suit the federation's modalities.
        """
        names, mix = sorted(federation.modalities), run.cell.mix
        table = self.settings.mixes[mix]
        if table is None:
            counts = [int(count) for count in mix.split("-")]
            if len(names) != 2 or len(counts) != 3:
                raise ConfigError(
                    "experiment-invalid",
                    f"mix {mix}: federation {federation.name} has {len(names)} modalities, three numbers are for 2",
                    hint=f"write a table [mixes.NAME] with keys such as {','.join(names[:2])!r}",
                )
            combos = ((names[0],), (names[1],), (names[0], names[1]))
            return {combo: count for combo, count in zip(combos, counts, strict=True) if count}
        found: dict[tuple[str, ...], int] = {}
        for key, count in table.items():
            combo = tuple(sorted({name.strip() for name in key.split(",")}))
            if not set(combo) <= set(names):
                raise ConfigError(
                    "experiment-invalid", f"mix {mix}: found {key!r}, expected some of {', '.join(names)} with commas"
                )
            found[combo] = found.get(combo, 0) + count
        return found

    def digest(self, run: Run) -> str:
        """SHA-256 over all that the result depends on but the program: data, federation, clients, mode, seed."""
        s, federation = self.settings, self.federation(run)
        values: dict[str, Any] = {
            "federation": federation.to_dict(),
            "profiles": sorted((list(combo), count) for combo, count in self.profiles(run, federation).items()),
            "data": self._fingerprint(run.cell.data),
            "cell": [run.cell.split, run.cell.windows],
            "visibility": self.mode(run).visibility,
            "seed": run.seed,
            "rounds": s.rounds,
            "holdout": s.holdout,
            "unseen": s.unseen,
            "standardise": s.standardise,
            "behaviours": [behaviour.model_dump(mode="json") for behaviour in self.behaviours(run)],
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def _fingerprint(self, name: str) -> str:
        if name not in self._fingerprints:
            dataset, sha = self.dataset(name), hashlib.sha256()
            for modality, signals in sorted(dataset.modalities.items()):
                sha.update(f"{modality}{signals.values.shape}".encode())
                sha.update(signals.values.tobytes())
                sha.update(signals.present.tobytes())
            sha.update(dataset.labels.tobytes() + dataset.subjects.tobytes() + "\n".join(dataset.classes).encode())
            self._fingerprints[name] = sha.hexdigest()
        return self._fingerprints[name]

    def _place(self, source: str) -> str:
        reader, colon, path = source.partition(":")
        return f"{reader}:{self._path(path)}" if colon and reader in READERS else self._path(source)

    def _path(self, text: str) -> str:
        path = Path(text).expanduser()
        return str(path if path.is_absolute() else self._folder / path)


def _key(cell: Cell, mode: str, seed: int) -> str:
    parts = (cell.data, cell.mix, cell.split, str(cell.windows or "all"), mode, f"seed{seed}")
    return "_".join(re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in parts)
