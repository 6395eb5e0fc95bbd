"""Nothing but `blossom_edge.durable` writes to disk, read from the source of all three packages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("blossom_edge", "aggregator", "firmware_profiles")
HOME = "blossom_edge/durable/"
LOGS = "blossom_edge/console/logs.py"

ALLOWED: dict[str, str] = {
    "blossom_edge/sensors/drivers/iio_device.py": "sets attributes below /sys: hardware, no disk",
    "blossom_edge/testing/fake_iio_device.py": "makes a tree like /sys and FIFOs for tests",
    "blossom_edge/testing/processes.py": "keeps the output of a test's programs in files of the test",
    "blossom_edge/testing/fake_serial.py": "sends lines into a pseudo terminal",
    "blossom_edge/simulation/experiments/processes.py": "keeps a worker's last words in a file without a name",
}
"""Path of a module -> why it may write by itself: exports that a user asked for, log handlers."""

WRITERS = {
    *(f"numpy.{name}" for name in ("save", "savez", "savez_compressed", "savetxt", "memmap")),
    *(f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "make_archive")),
    *(f"tempfile.{name}" for name in ("mkstemp", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile")),
    *(f"os.{name}" for name in ("rename", "renames", "replace", "truncate", "ftruncate", "write", "pwrite", "link")),
    *("torch.save", "sqlite3.connect", "shelve.open", "dbm.open"),
}
"""Functions that put something on a disk; with a BytesIO as first argument some of them do not."""

WRITING_METHODS = {"write_text", "write_bytes", "tofile", "touch", "hardlink_to"}
OPENERS = {
    *("open", "io.open", "codecs.open", "os.fdopen", "gzip.open", "bz2.open", "lzma.open", "tarfile.open"),
    *("zipfile.ZipFile", "gzip.GzipFile", "io.FileIO"),
}
OPEN_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"}
LOG_HANDLERS = {"FileHandler", "RotatingFileHandler", "TimedRotatingFileHandler", "WatchedFileHandler"}


class Imports(ast.NodeVisitor):
    """What each local name stands for, and which names hold a buffer in memory."""

    def __init__(self, tree: ast.AST) -> None:
        self.names: dict[str, str] = {}
        self.buffers: set[str] = set()
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.names[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Assign(self, node: ast.Assign) -> None:
        self._note(node.targets, node.value)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if item.optional_vars is not None:
                self._note([item.optional_vars], item.context_expr)
        self.generic_visit(node)

    def _note(self, targets: list[ast.expr], value: ast.expr) -> None:
        if isinstance(value, ast.Call) and self.full_name(value.func).endswith("BytesIO"):
            self.buffers.update(target.id for target in targets if isinstance(target, ast.Name))

    def full_name(self, node: ast.expr) -> str:
        """`np.savez` -> `numpy.savez`; a method of anything else -> `?.method`."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = node.value
            known = isinstance(base, ast.Attribute) or (isinstance(base, ast.Name) and base.id in self.names)
            return f"{self.full_name(base) if known else '?'}.{node.attr}"
        return "?"


def is_writing_mode(call: ast.Call, position: int) -> bool:
    """Whether the mode of an `open` lets it write, or cannot be read from the source."""
    mode = next((k.value for k in call.keywords if k.arg == "mode"), None)
    if mode is None:
        mode = call.args[position] if len(call.args) > position else None
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)) or bool(set(mode.value) & set("wax+"))


def find_writes(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every call that opens something for writing."""
    tree = ast.parse(source)
    imports = Imports(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = imports.full_name(node.func)
        method = name.rpartition(".")[2]
        first = node.args[0] if node.args else None
        in_memory = isinstance(first, ast.Name) and first.id in imports.buffers
        if name == "os.open":
            flags = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)} | {
                n.id for n in ast.walk(node) if isinstance(n, ast.Name)
            }
            found = bool(flags & OPEN_FLAGS) and "devnull" not in flags
        elif name in OPENERS:
            found = not in_memory and is_writing_mode(node, 1)
        elif method == "open" and name.startswith("?"):
            # A mode is a constant or a keyword here; `Ledger.open(folder)` opens no file by itself.
            has_mode = isinstance(first, ast.Constant) or any(k.arg == "mode" for k in node.keywords)
            found = has_mode and is_writing_mode(node, 0)
        elif method in WRITING_METHODS or method in LOG_HANDLERS:
            found = True
        else:
            found = name in WRITERS and not in_memory
        if found:
            yield node.lineno, name


def modules() -> Iterator[tuple[str, str]]:
    """Path and source of every module of ours outside `durable`."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(HOME):
                yield name, path.read_text(encoding="utf-8")


def test_only_durable_opens_files_for_writing() -> None:
    found = [
        f"{name}:{line} {what}"
        for name, source in modules()
        if name not in ALLOWED
        for line, what in find_writes(source)
        if not (name == LOGS and what.rpartition(".")[2] == "RotatingFileHandler")
    ]
    assert found == [], "write through blossom_edge.durable, or give a reason in ALLOWED"


def test_every_exception_is_still_needed() -> None:
    sources = dict(modules())
    assert [name for name in ALLOWED if name not in sources or not list(find_writes(sources[name]))] == []


def test_rotating_log_files_are_made_in_one_place() -> None:
    found = [name for name, source in modules() if "RotatingFileHandler" in source and name != LOGS]
    assert found == [], f"log files are opened by {LOGS} alone"


@pytest.mark.parametrize(
    "code",
    [
        "open(p, 'w')",
        "open(p, mode='ab')",
        "open(p, 'r+')",
        "open(p, mode)",
        "import io\nio.open(p, 'x')",
        "from pathlib import Path\nPath(p).open('w')",
        "p.open(mode='wb')",
        "p.write_text('x')",
        "(a / b).write_bytes(x)",
        "import os\nos.open(p, os.O_RDWR)",
        "import os\nos.open(p, flags=os.O_CREAT | os.O_WRONLY)",
        "from os import open as o, O_WRONLY\no(p, O_WRONLY)",
        "import os\nos.replace(a, b)",
        "import numpy as np\nnp.savez(p, x=x)",
        "from numpy import save\nsave(p, x)",
        "import torch\ntorch.save(m, p)",
        "import shutil\nshutil.copy(a, b)",
        "from shutil import copytree as c\nc(a, b)",
        "import zipfile\nzipfile.ZipFile(p, 'w')",
        "from tempfile import NamedTemporaryFile\nNamedTemporaryFile()",
        "import logging\nlogging.FileHandler(p)",
        "import logging.handlers\nlogging.handlers.RotatingFileHandler(p)",
        "x.tofile(p)",
        "import subprocess\nsubprocess.Popen(c, stdout=open(p, 'wb'))",
    ],
)
def test_lint_sees_a_write(code: str) -> None:
    assert len(list(find_writes(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "open(p)",
        "open(p, 'rb')",
        "open(p, encoding='utf-8')",
        "p.open()",
        "p.open('rb')",
        "p.open(encoding='utf-8')",
        "sensor.open()",
        "Ledger.open(folder)",
        "text.replace('a', 'w')",
        "import os\nos.open(p, os.O_RDONLY | os.O_DIRECTORY)",
        "import io, numpy as np\nbuffer = io.BytesIO()\nnp.savez(buffer, x=x)",
        "from io import BytesIO\nimport numpy as np\nwith BytesIO() as b:\n    np.save(b, x)",
        "import os\nos.open(os.devnull, os.O_WRONLY)",
        "import sys\nsys.stdout.write('x')",
        "import zipfile\nzipfile.ZipFile(p)",
    ],
)
def test_lint_lets_reading_and_memory_pass(code: str) -> None:
    assert list(find_writes(code)) == []
