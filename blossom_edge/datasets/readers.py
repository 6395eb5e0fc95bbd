"""One door to all readers: `ucihar:FOLDER`, `kuhar:FOLDER`, ... or the path of an `.npz` file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.arrays import read_arrays
from blossom_edge.datasets.avmnist import read_avdigits, read_avdigits_once, read_avmnist
from blossom_edge.datasets.dataset import Dataset
from blossom_edge.datasets.iemocap import read_iemocap
from blossom_edge.datasets.kuhar import read_kuhar
from blossom_edge.datasets.meld import read_meld
from blossom_edge.datasets.ptbxl import read_ptbxl
from blossom_edge.datasets.ucihar import read_ucihar

READERS: dict[str, Callable[[Path], Dataset]] = {
    "ucihar": read_ucihar,
    "kuhar": read_kuhar,
    "ptbxl": read_ptbxl,
    "avmnist": read_avmnist,
    "avdigits": read_avdigits,
    "avdigits-once": read_avdigits_once,
    "meld": read_meld,
    "iemocap": read_iemocap,
    "npz": read_arrays,
}


def read_dataset(source: str) -> Dataset:
    """Read the data set that `source` names: NAME:PATH, or the path of an `.npz` file. `~` is the home folder.

    Raises:
        ConfigError: `data-not-found`: no such reader or path; `data-invalid`: what is there is not the set;
            `package-missing`: a reader needs a package that is not installed.
    """
    name, colon, place = source.partition(":")
    if not colon or name not in READERS:
        if not source.endswith(".npz"):
            known = ", ".join(f"{reader}:PATH" for reader in READERS)
            raise ConfigError(
                "data-not-found",
                f"found the data set {source!r}, expected FILE.npz or {known}",
                hint="see docs/datasets.md",
            )
        name, place = "npz", source
    path = Path(place).expanduser()
    dataset = READERS[name](path)
    try:
        return dataset.check()
    except ValueError as error:
        raise ConfigError("data-invalid", f"{path}: found {error}", hint="fetch the data set again") from error
