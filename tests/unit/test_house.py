"""Rules of the house that no linter checks: length of files, error ids, who may write to disk, names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from blossom_edge.core.errors import ERROR_IDS

ROOT = Path(__file__).parents[2]
PACKAGES = ("blossom_edge", "aggregator", "firmware_profiles")
PRODUCT = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ALL = PRODUCT + sorted(p for folder in ("tests", "examples", "benchmarks") for p in (ROOT / folder).rglob("*.py"))
MAX_LINES = 400

ERROR_CLASSES = {
    "BlossomError", "ConfigError", "LinkError", "HardwareError", "StorageError", "RemoteError", "FrameError",
    "PolicyViolation", "SpecMismatch", "ProfileError",
}  # fmt: skip
MAY_WRITE = {"blossom_edge/durable", "blossom_edge/console/logs.py", "blossom_edge/testing/"}
"""The only places that open a file for writing: the rest goes through `durable`, or its writes would not survive.
Fakes of hardware for tests make trees of files, none of which must survive anything."""
WRITING_CALLS = {"write_text", "write_bytes", "savez", "savez_compressed", "save", "mkstemp", "NamedTemporaryFile"}
VAGUE_NAMES = re.compile(r"(Manager|Helper|Util|Utils|Handler|Impl|Base)$")
VAGUE_FILES = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file with the last part of what is called."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            yield name, node


def _texts(path: Path) -> set[str]:
    return {n.value for n in ast.walk(_tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def _raised_ids() -> dict[str, str]:
    """Error ids as they stand in calls of the error classes and in `error_id=`: id -> one place."""
    found: dict[str, str] = {}
    for path in PRODUCT:
        for name, call in _calls(path):
            given = [k.value for k in call.keywords if k.arg == "error_id"]
            if name in ERROR_CLASSES - {"RemoteError", "FrameError", "SpecMismatch", "PolicyViolation"}:
                given += call.args[:1]
            for value in given:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[value.value] = f"{_name(path)}:{call.lineno}"
    return found


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {_name(path): len(path.read_text("utf-8").splitlines()) for path in ALL}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [_name(path) for path in PRODUCT if not ast.get_docstring(_tree(path))] == []


def test_every_error_id_that_is_raised_is_listed() -> None:
    assert {error_id: place for error_id, place in _raised_ids().items() if error_id not in ERROR_IDS} == {}


def test_every_listed_error_id_is_used_and_explained() -> None:
    page = ROOT / "docs" / "troubleshooting.md"
    if not page.exists():
        pytest.skip("docs/troubleshooting.md does not exist yet")
    used = set().union(*(_texts(path) for path in PRODUCT if _name(path) != "blossom_edge/core/errors.py"))
    used |= {"frame", "spec", "policy"}  # defaults of the remote errors, in errors.py itself
    assert sorted(set(ERROR_IDS) - used) == []
    headings = set(re.findall(r"^#+ +`?([a-z0-9-]+)`?", page.read_text("utf-8"), flags=re.MULTILINE))
    assert sorted(set(ERROR_IDS) - headings) == []


def test_no_assert_stands_where_an_error_should_be_raised() -> None:
    found = [f"{_name(p)}:{n.lineno}" for p in PRODUCT for n in ast.walk(_tree(p)) if isinstance(n, ast.Assert)]
    assert found == []


def test_everything_is_caught_only_in_outermost_loops_that_say_so() -> None:
    found = []
    for path in PRODUCT:
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ExceptHandler) and not _raises_again(node):
                caught = node.type.id if isinstance(node.type, ast.Name) else "" if node.type else "BaseException"
                if caught in ("Exception", "BaseException") and "outermost" not in lines[node.lineno - 1]:
                    found.append(f"{_name(path)}:{node.lineno}: needs a comment `# outermost: why`")
    assert found == []


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_only_durable_writes_to_disk() -> None:
    found = []
    for path in PRODUCT:
        if any(_name(path).startswith(place) for place in MAY_WRITE):
            continue
        for name, call in _calls(path):
            constants = [
                a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)
            ]
            modes = [c for c in constants if isinstance(c, str) and re.fullmatch(r"[rwaxbt+]{1,3}", c)]
            writes = name in WRITING_CALLS and isinstance(call.func, ast.Attribute) and not _writes_to_memory(call)
            if writes or (name == "open" and any(set(m) & set("wax+") for m in modes)):
                found.append(f"{_name(path)}:{call.lineno}: {name}")
    assert found == []


def _writes_to_memory(call: ast.Call) -> bool:
    """`np.savez(buffer, ...)` into a BytesIO named buffer is no write to disk."""
    return bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id == "buffer"


def test_a_silenced_type_error_names_its_code_and_its_reason() -> None:
    silenced = re.compile("# type:" + r" ignore(?!\[[a-z-]+(, ?[a-z-]+)*\]  # \S)")
    found = [
        f"{_name(path)}:{number}"
        for path in ALL
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if silenced.search(line)
    ]
    assert found == []


def test_names_say_what_a_thing_is() -> None:
    classes = [(p, n) for p in PRODUCT for n in ast.walk(_tree(p)) if isinstance(n, ast.ClassDef)]
    assert [f"{_name(path)}: {node.name}" for path, node in classes if VAGUE_NAMES.search(node.name)] == []
    assert [_name(path) for path in PRODUCT if path.name in VAGUE_FILES] == []


def test_nothing_that_comes_from_outside_is_unpickled() -> None:
    """No pickle anywhere but in the one file that reads the demo's data, whose checksum it knows."""
    found = set()
    for path in PRODUCT:
        for name, call in _calls(path):
            owner = call.func.value if isinstance(call.func, ast.Attribute) else None
            from_pickle = isinstance(owner, ast.Name) and owner.id in ("pickle", "marshal", "shelve", "dill", "joblib")
            from_torch = isinstance(owner, ast.Name) and (owner.id, name) in {("torch", "load"), ("torch", "save")}
            allows = any(
                k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
                for k in call.keywords
            )
            if from_pickle or from_torch or allows:
                found.add(_name(path))
    assert found <= {"blossom_edge/simulation/watch.py"}


def test_versions_that_stand_in_two_files_agree() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for name in ("Makefile", ".ci/run"):
        pins = re.findall(r"seglearn==([0-9.]+)", (ROOT / name).read_text("utf-8"))
        assert pins == re.findall(r"seglearn==([0-9.]+)", project), name
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.findall(r"^TORCH_RANGE := (.*)$", makefile, re.MULTILINE) == re.findall(r'"(torch>=[^"]*)"', project)
