"""What a device of each role can do in a federation, by who may see its blocks."""

from __future__ import annotations

import pytest

from blossom_edge.client.roles import used_blocks, whole_tasks
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation

BOTH = ("accel", "gyro")
FULL = load_federation("har", sets=["visibility=full"])
AT_HOME = load_federation("har")


def names(federation: Federation, modalities: tuple[str, ...], tasks: tuple[str, ...], role: str) -> list[str]:
    return [str(block) for block in used_blocks(federation, modalities, tasks, role)]


def test_where_all_is_shared_both_roles_run_encoders_fusion_and_head_of_their_modalities() -> None:
    wanted = ["encoder/accel", "fusion/har", "fusion/har.accel", "head/har"]
    assert names(FULL, ("accel", "ecg"), (), "infer") == wanted
    assert names(FULL, ("accel", "ecg"), (), "personalize") == wanted


def test_infer_is_refused_where_the_head_stays_at_home_and_is_told_what_to_do() -> None:
    with pytest.raises(ConfigError) as refused:
        used_blocks(AT_HOME, BOTH, (), "infer")
    assert refused.value.error_id == "role-unfit"
    assert "head/har" in str(refused.value)
    assert "compute.role=personalize" in refused.value.hint
    assert "visibility=full" in refused.value.hint


def test_personalize_needs_shared_encoders_only() -> None:
    assert names(AT_HOME, BOTH, (), "personalize") == ["encoder/accel", "encoder/gyro"]
    head_alone = load_federation("har", sets=["visibility=private-head"])
    assert names(head_alone, BOTH, (), "personalize") == ["encoder/accel", "encoder/gyro"]
    with pytest.raises(ConfigError) as refused:
        used_blocks(load_federation("har", sets=["visibility=private-encoders"]), BOTH, (), "personalize")
    assert refused.value.error_id == "role-unfit"
    assert "compute.role=train" in refused.value.hint


def test_a_device_that_serves_one_task_runs_the_blocks_of_that_one() -> None:
    two = load_federation("two-tasks", sets=["visibility=full"])
    assert names(two, ("accel",), ("speed",), "infer") == [
        "encoder/accel", "fusion/speed", "fusion/speed.accel", "head/speed",
    ]  # fmt: skip
    mixed = load_federation("two-tasks", sets=["visibility=full", 'blocks."head/speed".visibility=private'])
    assert "head/activity" in names(mixed, ("accel",), (), "infer")
    assert "fusion/speed" not in names(mixed, ("accel",), (), "infer")
    with pytest.raises(ConfigError, match="head/speed"):
        used_blocks(mixed, ("accel",), ("speed",), "infer")


def test_a_task_is_whole_with_one_modality_and_its_part_of_the_fusion() -> None:
    blocks = set(used_blocks(FULL, ("accel",), (), "infer"))
    assert whole_tasks(FULL, blocks) == ("har",)
    assert whole_tasks(FULL, {b for b in blocks if str(b) != "fusion/har.accel"}) == ()
