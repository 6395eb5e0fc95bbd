"""PTB-XL (Wagner et al. 2020): 12-lead ECG of 10 s, five diagnostic superclasses, read through the package `wfdb`.

The six limb leads and the six chest leads are the two modalities, as in the paper. Kept are recordings with exactly one
superclass; a statement counts whatever its likelihood, as in the authors' example. Fold 10 is the test part.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.datasets.files import find_below, invalid, not_found, read_table

if TYPE_CHECKING:
    from types import ModuleType

LEADS = {"limb": ("I", "II", "III", "AVR", "AVL", "AVF"), "chest": ("V1", "V2", "V3", "V4", "V5", "V6")}
CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
SAMPLES, RATE_HZ, TEST_FOLD = 1000, 100.0, 10
LICENCE = "PTB-XL 1.0.3 (Wagner et al. 2020, physionet.org/content/ptb-xl), CC BY 4.0: cite it"
HINT = "blossom-edge data fetch ptbxl"
_CODE = re.compile(r"'([^']{1,32})'\s*:\s*[0-9.]+")


def read_ptbxl(path: Path) -> Dataset:
    """Read the folder with ptbxl_database.csv, scp_statements.csv and records100; `path` may be a folder above it.

    Raises:
        ConfigError: `data-not-found`, `data-invalid`; `package-missing`: wfdb.
    """
    root = find_below(path, "ptbxl_database.csv", expected="the folder with ptbxl_database.csv", hint=HINT)
    superclass = _superclasses(root / "scp_statements.csv")
    table = root / "ptbxl_database.csv"
    rows = read_table(table, ("patient_id", "scp_codes", "strat_fold", "filename_lr"))
    chosen: list[tuple[Mapping[str, str], int]] = []
    for row in rows:
        found = {superclass[code] for code in _CODE.findall(row["scp_codes"]) if code in superclass}
        if len(found) == 1:
            chosen.append((row, CLASSES.index(found.pop())))
    if not chosen:
        raise invalid(table, f"{len(rows)} recordings, none with one superclass", f"recordings of {', '.join(CLASSES)}")
    wfdb = _wfdb()
    values = {name: np.empty((len(chosen), SAMPLES, 6), dtype=np.float32) for name in LEADS}
    for i, (row, _) in enumerate(chosen):
        leads = _recording(wfdb, root, row["filename_lr"])
        for name, wanted in LEADS.items():
            values[name][i] = np.stack([leads[lead] for lead in wanted], axis=1)
    present = np.ones(len(chosen), dtype=bool)
    return Dataset(
        "ptb-xl",
        {n: Signals(values[n], present, RATE_HZ, tuple((lead.lower(), "mV") for lead in LEADS[n])) for n in LEADS},
        np.array([label for _, label in chosen], dtype=np.int64),
        CLASSES,
        np.array([_whole(table, row, "patient_id") for row, _ in chosen], dtype=np.int64),
        np.array([_whole(table, row, "strat_fold") == TEST_FOLD for row, _ in chosen], dtype=bool),
        LICENCE,
    )


def _superclasses(path: Path) -> dict[str, str]:
    """Statement -> superclass, of the diagnostic ones. The first column of the file has no name."""
    found = {}
    for row in read_table(path, ("", "diagnostic", "diagnostic_class")):
        if row["diagnostic"] in ("1", "1.0"):
            if row["diagnostic_class"] not in CLASSES:
                raise invalid(path, f"the superclass {row['diagnostic_class']!r}", f"one of {', '.join(CLASSES)}")
            found[row[""]] = row["diagnostic_class"]
    return found


def _whole(path: Path, row: Mapping[str, str], column: str) -> int:
    """Whole numbers that the file writes as 15709.0."""
    try:
        return int(float(row[column]))
    except (ValueError, OverflowError) as error:
        raise invalid(path, f"{column} {row[column][:20]!r}", "a whole number") from error


def _wfdb() -> ModuleType:
    try:
        return importlib.import_module("wfdb")
    except ImportError as error:
        raise ConfigError(
            "package-missing",
            "PTB-XL is read through the package wfdb, which is not installed",
            hint="pip install 'blossom-edge[ptbxl]'",
        ) from error


def _recording(wfdb: Any, root: Path, name: str) -> dict[str, NDArray[np.float64]]:
    """Lead -> (1000,) mV of one recording; `name` is a path below `root`, such as records100/00000/00001_lr."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise invalid(root / "ptbxl_database.csv", f"the file name {name!r}", f"one below {root}")
    header = path.with_name(path.name + ".hea")
    if not header.is_file():
        raise not_found(header, "the header of a recording", hint=HINT)
    try:
        signals, fields = wfdb.rdsamp(str(path))
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise invalid(header, f"what wfdb cannot read ({error})", "a WFDB recording") from error
    names = [str(lead).upper() for lead in fields["sig_name"]]
    wanted = {lead for leads in LEADS.values() for lead in leads}
    if signals.shape != (SAMPLES, len(names)) or not wanted <= set(names) or float(fields["fs"]) != RATE_HZ:
        raise invalid(
            header, f"{signals.shape} at {fields['fs']} Hz of {', '.join(names)}", f"{SAMPLES} samples of 12 leads"
        )
    if not np.isfinite(signals).all() or any(unit != "mV" for unit in fields["units"]):
        raise invalid(header, "values that are no mV", "numbers in mV")
    return {lead: signals[:, i] for i, lead in enumerate(names)}
