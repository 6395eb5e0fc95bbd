"""Training that is told to stop: what was done until then counts, and is what so many steps would have given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from small_model import first_blocks, raw, run, small, trainer_of  # noqa: E402
from support.boards import make_board  # noqa: E402

from blossom_edge.training import compute  # noqa: E402

pytestmark = pytest.mark.torch


def test_a_round_that_is_stopped_after_three_steps_is_a_round_of_three_steps() -> None:
    federation = small("training.epochs=4")  # 21 windows in batches of 16: two a pass, eight in all
    training = federation.local_training(1)
    asked = []

    def keep_going() -> bool:
        asked.append(True)
        return len(asked) < 3

    stopped = trainer_of(federation).train(
        first_blocks(federation), training, round_number=1, frozen=frozenset(), optimizer={}, keep_going=keep_going
    )
    short = trainer_of(federation).train(
        first_blocks(federation), replace(training, epochs=0, steps=3), round_number=1, frozen=frozenset(), optimizer={}
    )
    assert training.num_steps(21) == 8
    assert (stopped.num_steps, short.num_steps) == (3, 3)
    assert raw(stopped.blocks) == raw(short.blocks)
    assert raw(stopped.blocks) != raw(run(federation, trainer_of(federation)).blocks)


def test_the_first_step_is_always_done_and_the_windows_it_saw_are_counted() -> None:
    federation = small("training.epochs=4")
    result = trainer_of(federation).train(
        first_blocks(federation),
        federation.local_training(1),
        round_number=1,
        frozen=frozenset(),
        optimizer={},
        keep_going=lambda: False,
    )
    assert result.num_steps == 1
    assert set(result.num_samples.values()) == {11}, "21 windows are divided into 11 and 10"


@pytest.mark.parametrize(
    ("cores", "quota", "expected"),
    [(4, "max 100000", 3), (1, "max 100000", 1), (64, "max 100000", 4), (4, "200000 100000", 2)],
)
def test_threads_are_one_less_than_the_cores_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, quota: str, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    make_board(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})
    for core in range(cores):
        folder = f"sys/devices/system/cpu/cpu{core}/topology"
        make_board(tmp_path, {f"{folder}/physical_package_id": "0", f"{folder}/core_id": str(core)})
    assert compute.default_threads(tmp_path) == expected
