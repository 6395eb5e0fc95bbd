"""Four devices that train with torch, one that infers and one that learns its own head, over a real broker.

The two run with onnxruntime. What they hold is what was committed, what they say is what torch says of it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from live import Ear  # noqa: E402

from aggregator.ledger import Ledger  # noqa: E402
from aggregator.spool import Spool  # noqa: E402
from blossom_edge.cli.main import program  # noqa: E402
from blossom_edge.codec import safetensors_file  # noqa: E402
from blossom_edge.codec.tensors import make_codec  # noqa: E402
from blossom_edge.console.program import run  # noqa: E402
from blossom_edge.core.blocks import BlockId, Tensors  # noqa: E402
from blossom_edge.core.windows import WindowSet  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.schema import Federation  # noqa: E402
from blossom_edge.inference.features import head_features  # noqa: E402
from blossom_edge.inference.head_values import HeadValues  # noqa: E402
from blossom_edge.inference.model_folder import look  # noqa: E402
from blossom_edge.models.block_model import BlockModel  # noqa: E402
from blossom_edge.simulation.learner import open_windows  # noqa: E402
from blossom_edge.testing import needs  # noqa: E402
from blossom_edge.testing.processes import Gateway, Process  # noqa: E402
from firmware_profiles import load_profile  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(170),
    needs.package("seglearn", extra="demo"),
]

ROUNDS = 3
ROUND_S = 5.0
"""Rounds follow each other slowly enough that everybody is seen between two of them."""
SETTINGS = (f"schedule.stop_rounds={ROUNDS}", f"schedule.every_s={ROUND_S}", "rounds.min_devices=4", "visibility=full")
INFER = ["--json", "--profile", "jetson-imu", "--speed", "4"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def federation() -> Federation:
    return load_federation("har", sets=SETTINGS)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    assert run(program, ["data", "sample", str(tmp_path / "people")]) == 0
    return tmp_path / "people"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    options = [word for text in SETTINGS for word in ("--set", text)]
    with Gateway(tmp_path / "place", options=options) as found:
        yield found


def test_onnx_members_hold_what_was_committed_and_say_what_torch_says(
    gateway: Gateway, people: Path, federation: Federation
) -> None:
    ear = Ear(gateway.port)
    members = {role: member(gateway, role, people / str(5 + n)) for n, role in enumerate(("infer", "personalize"))}
    for n in range(1, 5):
        gateway.join(f"torch-{n}", "--profile", "jetson-imu", "--replay", str(people / str(n)))

    for number in range(1, ROUNDS + 1):
        gateway.wait_for(lambda n=number: all(holds(gateway, role, n) for role in members), f"round {number}")
        committed = versions_of(gateway, number)
        for role in members:
            held = gateway.device(role)["versions"]
            assert {block: version for block, (version, _sha) in committed.items()} == held, (role, number)
    for process in members.values():
        number = len(predictions(process))
        gateway.wait_for(lambda p=process, n=number: len(predictions(p)) >= n + 5, "more predictions")
        loaded = libraries(process)
        assert "libtorch" not in loaded
        assert "onnx_cpp2py" not in loaded
        assert "onnxruntime" in loaded
    head_number, head = gateway.wait_for(
        lambda: own_head(gateway, members["personalize"]), "a head and its predictions"
    )
    sent = {d["id"]: d for d in gateway.status()["devices"]}
    assert all(sent[role]["role"] == role for role in members)
    for process in members.values():
        assert process.end() == 0
    ear.close()
    assert runs_heard(head, ear) == []

    windows = {role: windows_of(federation, people / str(5 + n)) for n, role in enumerate(members)}
    checked = compare(gateway, federation, members["infer"], windows["infer"])
    assert checked == {1, 2, 3}
    mine = [
        p for p in predictions(members["personalize"]) if p["personal"] and p["versions"]["head/har"] == head_number
    ]
    assert mine
    blocks = committed_blocks(gateway, federation, mine[-1]["versions"]["encoder/accel"])
    shares = torch_own_head(federation, blocks, windows["personalize"], head)
    for line in mine:
        assert abs(line["confidence"] - shares[line["number"] - 1].max()) <= TOLERANCE, line


def member(gateway: Gateway, role: str, replay: Path) -> Process:
    options = [*INFER, "--replay", str(replay), "--set", f"compute.role={role}"]
    return gateway.run(role, [sys.executable, "-m", "blossom_edge.cli.main", "infer"], *options)


def holds(gateway: Gateway, role: str, number: int) -> bool:
    """Whether all versions that a member holds are those of this round, and it has put them to use or refused them."""
    status = gateway.device(role)
    versions = set(status.get("versions", {}).values())
    return versions == {number} and status["score_round"] == number + 1


def runs_heard(head: HeadValues, ear: Ear) -> list[bytes]:
    """Runs of four values of the own head, as float32 or float16, that anybody said at the broker."""
    said = b"\n".join(payload for _topic, payload in ear.heard)
    assert b"encoder/accel" in said
    found = []
    for values in head.tensors.values():
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        for kind in (np.float32, np.float16):
            runs = [flat[i : i + 4].astype(kind) for i in range(0, len(flat) - 3, 4)]
            found += [run.tobytes() for run in runs if run.all() and run.tobytes() in said]
    return found


def libraries(process: Process) -> str:
    return Path(f"/proc/{process.pid}/maps").read_text()


def predictions(process: Process) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.out.splitlines()[:-1]]
    return [line for line in lines if line["type"] == "prediction"]


def versions_of(gateway: Gateway, number: int) -> dict[str, tuple[int, str]]:
    """Block -> version and content hash, as the ledger has them of this round."""
    copy = gateway.folder / f"ledger-{number}"
    copy.mkdir(exist_ok=True)
    shutil.copy(gateway.folder / "gateway" / "ledger", copy)  # the gateway holds its own
    ledger = Ledger.open(copy)
    ledger.close()
    record = next(r for r in ledger.records if r["type"] == "commit" and r["round"] == number)
    return {block: (body["version"], body["sha256"]) for block, body in record["blocks"].items()}


def committed_blocks(gateway: Gateway, federation: Federation, number: int) -> dict[BlockId, Tensors]:
    spool, exact = Spool(gateway.folder / "gateway" / "versions"), make_codec("float32")
    return {
        (block := BlockId.parse(name)): exact.decode(spool.get(sha256), federation.spec[block])
        for name, (_version, sha256) in versions_of(gateway, number).items()
    }


def windows_of(federation: Federation, replay: Path) -> WindowSet:
    """All windows of a recording, in the order in which a device cuts them."""
    learner, collector = open_windows(load_profile("jetson-imu"), federation, replay=replay, keep_fresh=True)
    learner.poll(0.0)
    return collector.fresh()


def torch_outputs(federation: Federation, blocks: Mapping[BlockId, Tensors], windows: WindowSet) -> np.ndarray:
    model = BlockModel(federation, list(blocks)).eval()
    model.load(blocks)
    with torch.inference_mode():
        inputs = {m: torch.from_numpy(np.ascontiguousarray(x)) for m, x in windows.inputs.items()}
        present = {m: torch.from_numpy(x) for m, x in windows.present.items()}
        return model(inputs, present)["har"].double().numpy()


def compare(gateway: Gateway, federation: Federation, process: Process, windows: WindowSet) -> set[int]:
    """Every prediction against torch on the versions that it names; which versions were met."""
    met: dict[int, np.ndarray] = {}
    classes = federation.tasks["har"].classes
    for line in predictions(process):
        (version,) = set(line["versions"].values())  # never a mixture
        if version not in met:
            logits = torch_outputs(federation, committed_blocks(gateway, federation, version), windows)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            met[version] = shares / shares.sum(axis=1, keepdims=True)
        wanted = met[version][line["number"] - 1]
        assert abs(line["confidence"] - wanted.max()) <= TOLERANCE, line
        assert line["labels"] == [classes[int(wanted.argmax())]]
    return set(met)


def own_head(gateway: Gateway, process: Process) -> tuple[int, HeadValues] | None:
    """The own head in use and its number, once predictions were made with it."""
    place = next((gateway.edge_folder / "devices" / "personalize").glob("har-*/model")).parent
    state = look(place)
    if state is None or state.in_use is None:
        return None
    number = state.in_use.head_number
    path = place / "model" / f"head.har.{number}.safetensors"
    try:
        tensors, metadata = safetensors_file.read(path.read_bytes())
    except FileNotFoundError:  # learned again meanwhile
        return None
    used = any(p["personal"] and p["versions"]["head/har"] == number for p in predictions(process))
    return (number, HeadValues(metadata["kind"], dict(tensors))) if used else None


def torch_own_head(
    federation: Federation, blocks: Mapping[BlockId, Tensors], windows: WindowSet, head: HeadValues
) -> np.ndarray:
    """Torch's encoders, then the own head as torch layers: (n, classes) probabilities."""
    model = BlockModel(federation, list(blocks)).eval()
    model.load(blocks)
    with torch.inference_mode():
        embeddings = {
            m: model.module(BlockId.parse(f"encoder/{m}"))(torch.from_numpy(np.ascontiguousarray(x))).numpy()
            for m, x in windows.inputs.items()
        }
        features = torch.from_numpy(head_features(embeddings, windows.present, ("accel", "gyro")))
        values = {name: torch.from_numpy(np.array(tensor)) for name, tensor in head.tensors.items()}
        logits = torch.nn.functional.linear(features, values["layers.0.weight"], values["layers.0.bias"])
        if head.kind == "hidden":
            logits = torch.nn.functional.linear(logits.relu(), values["layers.1.weight"], values["layers.1.bias"])
        return torch.softmax(logits.double(), dim=1).numpy()
