"""The wheel, built, installed into a fresh environment and run: it ships three packages and nothing else."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("blossom_edge", "aggregator", "firmware_profiles")


def _run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that nothing is left in the working tree and nothing old in it gets in."""
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-index")
    _run(*pip, "--no-deps", "--no-build-isolation", "-w", source / "dist", source, cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; only what it depends on is borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv with a space"
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # a .pth inside a folder named in a .pth is not read: an editable install of this tree stays out of sight
    (libraries / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    _run(*pip, "install", "-q", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=folder)
    return folder


def test_wheel_ships_exactly_the_three_packages_and_their_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("LICENSE") for name in names)


def test_installed_programs_run_from_the_wheel(installed: Path) -> None:
    where = "import aggregator, blossom_edge, firmware_profiles as f; print(blossom_edge.__file__, f.__file__)"
    for file in _run(installed / "bin" / "python", "-c", where, cwd=installed).strip().splitlines():
        assert file.startswith(str(installed))
    assert "Commands:" in _run(installed / "bin" / "blossom-edge", "--help", cwd=installed)
    shown = json.loads(_run(installed / "bin" / "blossom-edge", "profiles", "list", "--json", cwd=installed))
    assert [entry["problem"] for entry in shown["profiles"]] == [""] * len(shown["profiles"])
    assert {"jetson-imu", "rpi4-gyro"} <= {entry["id"] for entry in shown["profiles"]}
    assert all(entry["path"].startswith(str(installed)) for entry in shown["profiles"])


def test_installed_gateway_program_runs(installed: Path) -> None:
    if not (ROOT / "aggregator" / "cli").exists():
        pytest.skip("aggregator.cli does not exist yet")
    assert "Commands:" in _run(installed / "bin" / "blossom-aggregator", "--help", cwd=installed)
    assert "har" in _run(installed / "bin" / "blossom-aggregator", "federations", "list", cwd=installed)
