"""The experiments that are shipped can be read, and every federation that they ask for is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blossom_edge.datasets.dataset import Dataset, Signals
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.experiments.plan import Plan
from blossom_edge.simulation.experiments.settings import load_settings

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted((EXAMPLES / "paper").glob("*.toml")) + sorted((EXAMPLES / "experiments").glob("*.toml"))
EXPERIMENTS = [file for file in FILES if "federation" not in file.name]
README = (EXAMPLES / "paper" / "README.md").read_text("utf-8")


class PlanOfNoise(Plan):
    """The plan of a file whose data sets are not here: one window of zeros as each federation has them."""

    def dataset(self, name: str) -> Dataset:
        source = self.settings.data[name].federation or self.settings.federation
        return as_it_has_them(load_federation(source))


def as_it_has_them(federation: Federation) -> Dataset:
    modalities = {
        name: Signals(
            np.zeros((1, m.window, m.signal.width), np.float32), np.ones(1, bool), m.rate_hz,
            tuple((c.name, c.unit) for c in m.channels), tuple(m.shape),
        )
        for name, m in federation.modalities.items()
    }  # fmt: skip
    (task,) = federation.tasks.values()
    one = np.zeros(1, np.int64)
    return Dataset("noise", modalities, one, tuple(task.classes), one, np.zeros(1, bool), "none")


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_that_is_shipped_can_be_planned(file: Path) -> None:
    plan = PlanOfNoise(load_settings(file), folder=Path())
    first = {(run.cell, run.mode): run for run in plan.runs.values()}
    for run in first.values():
        profiles = plan.profiles(run, plan.federation(run))
        assert sum(profiles.values()) == plan.settings.clients


@pytest.mark.parametrize("file", [f for f in EXPERIMENTS if f.parent.name == "paper"], ids=lambda file: file.stem)
def test_the_page_of_the_examples_names_each_with_its_number_of_runs(file: Path) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("|") and f"`{file.name}`" in line]
    counts = [int(text) for text in row.strip("|").split("|")[2].replace(" ", "").split(",")]
    names = [name.strip(" `") for name in row.strip("|").split("|")[0].split(",")]
    assert counts[names.index(file.name)] == len(PlanOfNoise(load_settings(file), folder=Path()).runs)
