"""The pieces of `benchmarks/onnx_member.py` run, on a tiny setting: no time is judged here."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SWAPPED = {"encoder/accel", "fusion/har", "fusion/har.accel", "head/har"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script's module, found as it finds its own parts."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("onnx_member")


@pytest.fixture
def swapping(script: Any) -> Any:
    return importlib.import_module("onnx_swap")


@pytest.fixture
def remembering(script: Any) -> Any:
    return importlib.import_module("onnx_memory")


def test_ways_of_the_same_work_are_compared_with_the_one_per_block(script: Any) -> None:
    calls = dict.fromkeys(("per block", "other"), 0)

    def count(name: str) -> None:
        calls[name] += 1

    found = script.compare({name: lambda n=name: count(n) for name in calls}, 3, calls=2)
    assert calls == {"per block": 20 + 3 * 2, "other": 20 + 3 * 2}
    assert found["per block"]["ratio"] == 1.0
    assert found["other"]["ratio"] > 0
    assert found["other"]["wall_us"] > 0


def test_without_torch_the_chain_per_block_alone_is_run(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "has", lambda *_: False)
    ways = script.ways_of(*script.model_of("har"))
    assert list(ways) == ["per block"]
    assert ways["per block"]().shape == (1, 7)
    assert script.compare(ways, 1)["per block"]["cpu_us"] > 0


@pytest.mark.torch
def test_torch_and_the_chain_per_block_give_the_same_outputs_in_the_benchmark(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    federation, blocks = script.model_of("har")
    inputs, present = script.windows_of(federation, 1)
    eager = script.torch_way(federation, blocks, inputs, present, "har")
    monkeypatch.setattr(script, "has", lambda *_: False)
    chain = script.ways_of(federation, blocks)["per block"]
    np.testing.assert_allclose(chain(), eager(), rtol=0, atol=1e-5)


def test_every_kind_of_block_is_swapped_and_none_refused(swapping: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swapping, "CANARY_WINDOWS", 2)
    told = swapping.swap(True)
    assert told["refused"] == 0
    assert set(told["blocks"]) == SWAPPED
    for times in told["blocks"].values():
        assert {len(values) for values in times.values()} == {2}
        assert times["swap wall"][0] == pytest.approx(times["session wall"][0] + times["files wall"][0])


def test_a_quota_without_cgroups_stops_and_continues_the_child_to_its_end(
    swapping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swapping, "cgroup", lambda _pid: nullcontext(False))
    monkeypatch.setattr(swapping, "PERIOD_S", 0.01)
    child = "import os, sys; print('ready', flush=True); sys.stdin.readline(); sum(range(10**6)); "
    child += "print('{\"waited\": %s}' % os.environ['BENCH_WAIT'])"
    how, told = swapping.under_quota([sys.executable, "-c", child], os.environ)
    assert told == {"waited": 1}
    assert how == "quota made by SIGSTOP/SIGCONT"


def test_a_cgroup_that_gives_processors_is_used_with_a_fifth_of_one(swapping: Any, tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    with swapping.cgroup(123, tmp_path) as made:
        group = tmp_path / "blossom-bench-123"
        assert made
        assert (group / "cpu.max").read_text() == "20000 100000"
        assert (group / "cgroup.procs").read_text() == "123"


@pytest.mark.parametrize("controllers", [None, "memory hugetlb\n"])
def test_without_the_processor_controller_there_is_no_group(
    swapping: Any, tmp_path: Path, controllers: str | None
) -> None:
    if controllers is not None:
        (tmp_path / "cgroup.subtree_control").write_text(controllers)
    with swapping.cgroup(123, tmp_path) as made:
        assert not made
    assert not (tmp_path / "blossom-bench-123").exists()


def test_memory_is_told_in_millions_of_bytes(remembering: Any) -> None:
    status = "Name:\tpython\nVmHWM:\t  2000 kB\nVmRSS:\t  1000 kB\nRssAnon:\t   250 kB\n"
    assert remembering.memory(status) == {"resident": 1.024, "own": 0.256, "peak": 2.048}


def test_a_process_that_imports_numpy_takes_more_than_one_that_does_not(remembering: Any) -> None:
    bare, numpy = (remembering.imports(code, os.environ, runs=1) for code in ("pass", "import numpy"))
    assert numpy["resident"] > bare["resident"] > 5
    assert bare["cpu_ms"] > 0


def test_a_pass_of_the_head_is_timed_on_the_features_of_two_encoders(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "has", lambda *_: False)
    told = script.head(True)
    assert (told["windows"], told["features"]) == (200, 2 * 128 + 2)
    assert all(ms >= 0 for ms in told["cpu_ms"].values())
    assert len(told["cpu_ms"]) == 3


def test_the_machine_is_named_with_the_versions_that_matter(script: Any) -> None:
    assert "cores, load" in script.machine()
    assert "onnxruntime " in script.machine()
