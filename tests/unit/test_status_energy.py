"""The last line of `blossom-edge status`: joules where something measures them, and else that nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from blossom_edge.cli.status import status

STATUS = {
    "device": "a", "modalities": ["accel"], "federation": "har", "round": 3, "phase": "waiting", "detail": "",
    "deadline_in_s": None, "score": {}, "score_round": 3, "versions": {}, "sent": {}, "outcomes": {}, "private": [],
    "bytes": {"1": [10, 20]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"energy_j": 41.26}, "energy of the last training: 41.3 J"),
        ({"energy_j": None}, "energy of the last training: not measured"),
        ({}, "energy of the last training: not measured"),  # written by an earlier release
    ],
)
def test_status_tells_the_energy_of_the_last_training(
    tmp_path: Path, more: dict[str, float | None], expected: str
) -> None:
    folder = tmp_path / "devices" / "a"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({**STATUS, **more}))
    done = CliRunner().invoke(status, ["--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == expected
