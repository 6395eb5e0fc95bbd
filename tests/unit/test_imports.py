"""What import-linter cannot see: which modules are really loaded, each time in a fresh interpreter."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "pydantic", "torch", "onnxruntime", "paho", "rich", "amqtt", "cryptography", "asyncio")
WITHOUT_TORCH = (
    "aggregator", "firmware_profiles", "blossom_edge.core", "blossom_edge.durable", "blossom_edge.console",
    "blossom_edge.codec", "blossom_edge.transport", "blossom_edge.federation", "blossom_edge.inference",
    "blossom_edge.sensors", "blossom_edge.client", "blossom_edge.cli",
)  # fmt: skip

CALL = """
import json, sys
sys.argv = json.loads(sys.argv[1])
try:
    from {module} import main
    main()
except SystemExit as stop:
    print(json.dumps([stop.code, sorted(name for name in {heavy!r} if name in sys.modules)]), file=sys.stderr)
"""


def _loaded_by(module: str, *args: str) -> list[str]:
    code = CALL.format(module=module, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(["program", *args])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    )
    status, loaded = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    assert done.stdout.startswith("Usage: ")
    assert isinstance(loaded, list)
    return loaded


@pytest.mark.parametrize("module", ["blossom_edge.cli.main", "aggregator.cli"])
def test_help_loads_none_of_the_heavy_packages(module: str) -> None:
    assert _loaded_by(module, "--help") == []


@pytest.mark.parametrize("args", [("profiles", "--help"), ("profiles", "show", "--help"), ("data", "sample", "--help")])
def test_help_of_a_command_loads_none_of_them_either(args: tuple[str, ...]) -> None:
    assert _loaded_by("blossom_edge.cli.main", *args) == []


def test_help_of_join_loads_none_of_them_either() -> None:
    assert _loaded_by("blossom_edge.cli.main", "join", "--help") == []


def test_help_takes_less_than_half_a_second_of_computing() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "blossom_edge.cli.main", "--help"], capture_output=True, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5


def test_every_module_outside_models_and_training_does_without_torch() -> None:
    code = (
        "import importlib, json, pkgutil, sys\n"
        "sys.modules['torch'] = None  # an import of it fails from now on\n"
        "names = []\n"
        "for top in json.loads(sys.argv[1]):\n"
        "    package = importlib.import_module(top)\n"
        "    names += [m.name for m in pkgutil.walk_packages(package.__path__, top + '.')]\n"
        "names = [n for n in names if not n.endswith('.__main__')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(json.dumps(names))\n"
    )
    present = [top for top in WITHOUT_TORCH if (ROOT / top.replace(".", "/") / "__init__.py").exists()]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, json.dumps(present)],
        capture_output=True, text=True, cwd=ROOT, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "blossom_edge.console.program" in json.loads(done.stdout)


def test_a_device_with_sensors_of_its_own_loads_neither_numpy_random_nor_what_simulates_and_replays() -> None:
    code = """
import json, sys
import blossom_edge.client.agent, blossom_edge.client.store, blossom_edge.sensors.opening
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
federation = load_federation("har")
initial_block(federation.spec.blocks[0], federation.digest, 0)
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {
        "numpy.random", "blossom_edge.sensors.recordings", "blossom_edge.sensors.replay",
        "blossom_edge.sensors.synthetic", "cryptography.hazmat.primitives.serialization",
    }  # fmt: skip
