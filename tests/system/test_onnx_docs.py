"""docs/onnx.md: the figures it names are those of the code, and its tables are whole."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from blossom_edge.client import onnx_member, own_head, roles
from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.inference import canary, model_state, runtime
from firmware_profiles.schema import Compute

PAGE = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text("utf-8")
TEXT = " ".join(PAGE.split())
MODALITIES = ("accel", "gyro")


def test_the_margins_of_the_canary_are_those_of_the_code() -> None:
    assert f"at most {canary.MAX_WINDOWS}, the newest" in TEXT
    assert f"above {canary.SLOWER_FACTOR:g} times the old one and more than {1e3 * canary.SLOWER_S:g} ms above" in TEXT
    assert f"on at least {canary.MIN_LABELLED} labelled windows" in TEXT
    assert f"falls by more than {canary.MARGIN:g} (the mean error of a regression rises by more than 5 %)" in TEXT
    assert canary.MARGIN == 0.05, "the page says 5 %"
    assert f"more than {canary.STANDARD_ERRORS:g} standard errors" in TEXT


def test_the_numbers_of_a_crash_loop_and_of_an_own_head_are_those_of_the_code() -> None:
    assert model_state.MAX_STARTS == 3, "the page says three"
    assert f"without {onnx_member.PROVED_AFTER} predictions, or {onnx_member.PROVED_S:g} s" in TEXT
    assert f"From {own_head.MIN_LABELLED} labelled windows on there is a head" in TEXT
    assert f"from {own_head.HIDDEN_FROM} on with one hidden layer of {own_head.HIDDEN}" in TEXT
    assert f"after {onnx_member.NEW_WINDOWS} new labelled windows" in TEXT


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_SKELETON_BYTES // 1024} KiB" in TEXT
    assert f"onnxruntime {'.'.join(map(str, runtime.MIN_VERSION))} or newer" in TEXT


def _rows(head: str) -> dict[str, list[str]]:
    table = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return {cells[0].strip(): [c.strip() for c in cells[1:]] for cells in (row.strip("|").split(" |") for row in table)}


def test_every_role_has_its_row() -> None:
    named = {name.strip("`") for name in _rows("role")}
    assert named == set(get_args(Compute.model_fields["role"].annotation))


def _can(federation: Federation, role: str) -> bool:
    try:
        return bool(roles.used_blocks(federation, MODALITIES, (), role))
    except ConfigError as error:
        if error.error_id != "role-unfit":
            raise
        return False


@pytest.mark.parametrize(
    "visibility", ["full", "dual", "cohort-head-fusion", "private-head", "private-head-fusion", "private-encoders"]
)
def test_what_a_role_can_do_is_what_its_table_says(visibility: str) -> None:
    (cells,) = [cells for names, cells in _rows("visibility").items() if f"`{visibility}`" in names]
    federation = load_federation("har", sets=[f"visibility={visibility}"])
    for role, cell in zip(("infer", "personalize"), cells, strict=True):
        assert _can(federation, role) == (not cell.startswith("refused")), (role, cell)


def test_its_python_is_python_and_imports_what_there_is() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), "docs/onnx.md", "exec"), {})
