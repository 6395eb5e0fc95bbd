"""A bundle of a device that took part over a real broker: it says the same where neither gateway nor torch is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import EDGE, Place, call, call_json

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]

PRESETS = Path(__file__).parents[2] / "blossom_edge" / "federation" / "presets"
QUICK = """
[training]
optimizer = "sgd"
lr = 0.01
steps = 6

[rounds]
min_devices = 2
deadline_s = 60.0
rejoin_s = 3.0

[schedule]
stop_rounds = 2
"""

BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "paho"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
"""A machine on which neither torch nor onnx nor a link is installed."""

RUN = (
    BLOCK
    + """
from pathlib import Path
import numpy as np
from blossom_edge.cli.infer_bundle import open_bundle_model
from blossom_edge.inference.generation import run_model
found = open_bundle_model(Path(sys.argv[1]))
windows = np.load(sys.argv[2], allow_pickle=False)
inputs = {m: windows[m] for m in ("accel", "gyro")}
present = {m: windows[f"{m}-present"] for m in ("accel", "gyro")}
np.save(sys.argv[3], run_model(found.model, found.heads, inputs, present)["har"])
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "paho"))
print("loaded", loaded)
"""
)
COMMAND = BLOCK + "from blossom_edge.cli.main import main\nmain()\n"


def federation_text() -> str:
    """`har`, with rounds that take seconds."""
    text = (PRESETS / "har.toml").read_text()
    return text[: text.index("[training]")] + QUICK


@pytest.fixture
def trained(tmp_path: Path, place: Place) -> Place:
    """A federation of two devices that has finished."""
    place.federation_file.write_text(federation_text())
    gateway = place.serve()
    common = ["--profile", "generic-mock", "--mock", "--labels-per-class", "6"]
    devices = [place.join(name, *common, "--seed", str(seed)) for seed, name in enumerate(("pi-1", "pi-2"))]
    for device in devices:
        assert device.wait() == 0, device.err
    gateway.end(15)
    return place


def test_a_bundle_says_what_torch_says_where_torch_is_not(trained: Place, tmp_path: Path) -> None:
    bundle = tmp_path / "pi.bundle"
    where = ["--id", "pi-1", "--data-dir", str(trained.edge_folder)]
    said = call_json(EDGE, "export", "--bundle", str(bundle), *where)
    assert said["tasks"] == ["har"]
    assert said["versions"] == {"encoder/accel": 2, "encoder/gyro": 2}
    assert said["private"] == ["fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"]

    draw = np.random.Generator(np.random.Philox(5))
    inputs = {m: draw.standard_normal((20, 128, 3)).astype(np.float32) for m in ("accel", "gyro")}
    present = {"accel": np.arange(20) % 3 != 0, "gyro": np.arange(20) % 4 != 1}
    windows, outputs = tmp_path / "windows.npz", tmp_path / "outputs.npy"
    np.savez(windows, **inputs, **{f"{m}-present": mask for m, mask in present.items()})
    done = call([sys.executable, "-c", RUN], str(bundle), str(windows), str(outputs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "loaded []"
    expected = torch_outputs(trained, inputs, present)
    assert np.abs(expected).max() > 0.01
    assert np.abs(np.load(outputs, allow_pickle=False) - expected).max() <= 1e-5

    moved = tmp_path / "elsewhere" / "model.bundle"
    moved.parent.mkdir()
    bundle.rename(moved)
    for path in sorted(trained.edge_folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    home = ["--data-dir", str(tmp_path / "home")]
    infer = [sys.executable, "-c", COMMAND, "infer", "--bundle", str(moved), "--mock", "--speed", "0", "--count", "4"]
    ran = call(infer, "--json", *home)
    assert ran.returncode == 0, ran.stderr
    rows: list[dict[str, Any]] = [json.loads(line) for line in ran.stdout.splitlines()]
    predictions = [row for row in rows if row["type"] == "prediction"]
    assert [row["number"] for row in predictions] == [1, 2, 3, 4]
    assert {row["task"] for row in predictions} == {"har"}
    assert all(row["versions"] == {"encoder/accel": 2, "encoder/gyro": 2} for row in predictions)
    assert not (tmp_path / "home").exists(), "a bundle writes nothing"

    data = moved.read_bytes()
    moved.write_bytes(data[: len(data) // 2])
    refused = call(infer, *home)
    assert refused.returncode == 2
    assert "the file is cut off or damaged" in refused.stderr
    assert "copy it again" in refused.stderr
    assert "[bundle-invalid]" in refused.stderr


def torch_outputs(place: Place, inputs: dict[str, Any], present: dict[str, Any]) -> Any:
    """What the device's own torch model says of the same windows."""
    from blossom_edge.client.held_model import read_device
    from blossom_edge.models.block_model import BlockModel

    held = read_device(place.edge_folder / "devices" / "pi-1")
    model = BlockModel(held.federation, list(held.blocks))
    model.load(held.blocks)
    model.eval()
    with torch.no_grad():
        windows = {m: torch.from_numpy(x) for m, x in inputs.items()}
        masks = {m: torch.from_numpy(x) for m, x in present.items()}
        return model(windows, masks)["har"].numpy()
