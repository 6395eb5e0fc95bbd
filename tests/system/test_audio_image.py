"""A federation of microphones and cameras, simulated: whole rounds through the real gateway, sessions and trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from blossom_edge.client.fit import check_fit, load_device_profile
from blossom_edge.core.metrics import merge
from blossom_edge.federation.load import load_federation
from blossom_edge.simulation.learner import make_learner
from blossom_edge.simulation.world import SimulatedDevice, World

pytestmark = pytest.mark.torch

ROUNDS = 4
SETS = [  # small pictures and few classes keep it quick
    "modalities.image.shape=[24, 16]",
    "tasks.digit.classes=['0', '1', '2']",
    "blocks.encoder/audio={type='conv1d_gru', channels=[16], hidden=16}",
    "blocks.encoder/image={type='conv2d', channels=[8, 16], hidden=16}",
    "training={optimizer='adam', lr=0.01, epochs=2, batch_size=16}",
    f"schedule={{stop_rounds={ROUNDS}}}",
    "rounds={min_devices=3}",
]
AUDIO = """
[sensors.mic]
shape = [40]
channels = [{ name = "mel", unit = "dB", range = [-80.0, 0.0] }]
sources = [{ driver = "microphone", rate_hz = 100 }]

[modalities.audio]
sensor = "mic"
channels = ["mel"]
rate_hz = 100
window = 98
hop = 49
"""
IMAGE = """
[sensors.cam]
shape = [24, 16]
channels = [
  { name = "r", unit = "/", range = [0.0, 1.0] },
  { name = "g", unit = "/", range = [0.0, 1.0] },
  { name = "b", unit = "/", range = [0.0, 1.0] },
]
sources = [{ driver = "camera", rate_hz = 5 }]

[modalities.image]
sensor = "cam"
channels = ["r", "g", "b"]
rate_hz = 5
window = 1
hop = 1
"""


def test_microphones_and_cameras_learn_together_and_the_loss_falls(tmp_path: Path) -> None:
    federation = load_federation("audio-image", sets=SETS)
    devices = []
    for number, (name, parts) in enumerate((("both", AUDIO + IMAGE), ("ear", AUDIO), ("eye", IMAGE)), start=1):
        (tmp_path / f"{name}.toml").write_text(f'schema = 1\ntitle = "{name}"\n{parts}')
        sets = ("compute.device=cpu", "compute.threads=1")
        profile = load_device_profile(name, sets=sets, folders=[tmp_path])
        learner = make_learner(profile, device_id=name, mock=True, seed=number, speed=0.0, labels_per_class=8)
        devices.append(SimulatedDevice(name, name, check_fit(profile, federation), learner))
    world = World(federation, devices, tmp_path / "world")
    try:
        world.run(longest_s=3600.0)
        assert [agent.session.facts.modalities for agent in world.agents] == [
            ("audio", "image"),
            ("audio",),
            ("image",),
        ]
        state = world.truth.machine.state
        assert {str(key): version.number for key, version in state.versions.items()} == {
            "encoder/audio": ROUNDS,
            "encoder/image": ROUNDS,
        }
        for agent in world.agents:
            first, last = (merge([agent.scores[number]]) for number in (1, ROUNDS + 1))
            before, after = first["digit.loss"].mean, last["digit.loss"].mean
            assert before is not None
            assert after is not None
            assert after < 0.7 * before, agent.session.facts.device
    finally:
        world.close()
