"""A federation with a model of its own: exported, told to the gateway, sent to boards that have no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from live import AGGREGATOR, EDGE, ONLY_ACCEL, ONLY_GYRO, Place, call

pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(170)]

FULL = "--set=visibility=full"


def test_a_board_waits_for_the_graphs_of_an_own_model_and_predicts_once_the_operator_has_added_them(
    place: Place, tmp_path: Path
) -> None:
    place.serve(FULL, "--set=schedule.stop_rounds=2")
    where = ["--id", "small", "--data-dir", str(place.edge_folder), "--gateway", f"127.0.0.1:{place.port}", "--json"]
    infer = ["infer", *where, *ONLY_ACCEL, "--set=compute.role=infer", "--speed=5", "--wait=20", "--count=5"]
    board = place._start("infer-small", [*EDGE, *infer], None)
    place.join("a", *ONLY_ACCEL)
    place.join("g", *ONLY_GYRO)
    waits = place.wait_for(
        lambda: d if "waits for the skeletons" in (d := place.device("small").get("detail", "")) else "", "it waits"
    )
    for block in ("encoder/accel", "fusion/move", "fusion/move.accel", "head/move"):
        assert block in waits
    place.wait_for(lambda: "add-skeleton" in place.device("small").get("detail", ""), "what the operator has to do")
    assert board.running()

    folder = tmp_path / "skeletons"
    exported = call([*EDGE, "export", "--federation", str(place.federation_file), "--skeletons", str(folder)])
    assert exported.returncode == 0, exported
    files = sorted(map(str, folder.glob("*.onnx")))
    assert files
    add = [*AGGREGATOR, "federations", "add-skeleton", *files, "--data-dir", str(place.gateway_folder)]
    added = call(add)
    assert added.returncode == 0, added

    assert board.wait() == 0
    lines = [json.loads(line) for line in board.out.splitlines()]
    assert [line["type"] for line in lines] == ["prediction"] * 5 + ["summary"]
    assert {line["task"] for line in lines[:-1]} == {"move"}
    assert set(lines[0]["versions"]) == {"encoder/accel", "fusion/move", "fusion/move.accel", "head/move"}

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(Path(files[0]).read_bytes()[:-20])
    refused = call([*AGGREGATOR, "federations", "add-skeleton", str(broken), "--data-dir", str(place.gateway_folder)])
    assert refused.returncode == 2
    assert "broken.onnx" in refused.stderr
    assert "skeleton-invalid" in refused.stderr
