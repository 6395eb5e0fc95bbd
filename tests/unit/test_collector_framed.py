"""A collector with a camera, and what a trainer makes of a sensor that is away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Reading
from blossom_edge.sensors.collector import Collector
from blossom_edge.sensors.health import NOTICE_WINDOWS
from firmware_profiles.schema import Profile
from tests.live_bench import FEDERATION, Bench, Wire, channel, stuck


def framed_board(**camera: object) -> tuple[Profile, Federation]:
    """A camera of 2 x 2 points with two channels, 5 frames per window."""
    channels = [{**channel("r", "/"), "range": [0.0, 1.0]}, {**channel("g", "/"), "range": [0.0, 4.0]}]
    modality = {"sensor": "camera", "channels": ["r", "g"], "rate_hz": 5.0, "window": 5, "hop": 5}
    sensor = {"channels": channels, "sources": [{"driver": "x", "rate_hz": 5.0}], "shape": [2, 2], **camera}
    profile = {
        "schema": 1,
        "id": "eye",
        "title": "A camera",
        "sensors": {"camera": sensor},
        "modalities": {"video": modality},
    }
    federation = {
        "schema": 1,
        "name": "seen",
        "modalities": {
            "video": {
                "channels": [{"name": "r", "unit": "/"}, {"name": "g", "unit": "/", "spread": 2.0}],
                "rate_hz": 5.0,
                "window": 5,
                "hop": 5,
                "shape": [2, 2],
            }
        },
        "tasks": {"har": {"type": "classification", "classes": ["sit", "walk"]}},
        "blocks": {
            "encoder/video": {"type": "mlp"},
            "fusion/har": {"type": "concat"},
            "head/har": {"type": "mlp"},
        },
    }
    return Profile.model_validate(profile), Federation.from_dict(federation)


class Eye(Wire):
    """A camera: noise in all points of a frame."""

    def read(self, now: float) -> Sequence[Reading]:
        read = super().read(now)
        return [Reading(r.times, np.tile(np.abs(r.values), 4), r.labels) for r in read]


def test_a_frozen_picture_is_noticed_and_frames_are_clipped_to_the_range_of_each_channel() -> None:
    profile, federation = framed_board()
    eye = Eye(("r", "g"), "/", rate_hz=5.0)
    collector = Collector(profile, federation, {"camera": eye}, split="blocks", holdout=0.0)
    for step in range(1, 81):
        eye.now = step / 5
        if step == 40:
            eye.fault = stuck
        if step == 60:
            eye.fault = None
        collector.poll(eye.now)
        if step == 39:
            frames = collector.train().inputs["video"]
            assert frames.shape[1:] == (5, 8)
            assert frames[..., ::2].max() == 1.0  # r is clipped to 1
            assert 1.0 < frames[..., 1::2].max() <= 2.0  # g to 4, and divided by its spread
        if step == 40 + NOTICE_WINDOWS * 5:
            assert collector.health()["camera"].health.reason in ("5 equal frames", "6 equal frames")
            assert collector.present() == frozenset()
    assert collector.present() == {"video"}


def test_samples_of_another_shape_are_refused() -> None:
    profile, federation = framed_board(shape=[2, 3])
    with pytest.raises(ConfigError, match=r"samples of shape \[2, 3\] with r, g, the federation wants \[2, 2\]"):
        Collector(profile, federation, {"camera": Eye(("r", "g"), "/", rate_hz=5.0)})


@pytest.mark.torch
def test_while_a_sensor_is_away_its_blocks_are_not_trained() -> None:
    pytest.importorskip("torch")
    from blossom_edge.federation.initial import initial_block
    from blossom_edge.training.trainer import TorchTrainer

    bench = Bench()
    bench.run(8)
    collector = bench.collector
    trainer = TorchTrainer(
        FEDERATION, device_id="pi", train=collector.train, holdout=collector.holdout, compute="cpu", threads=1
    )
    owned = FEDERATION.spec.owned(FEDERATION.modalities, FEDERATION.tasks)
    blocks = {spec.id: initial_block(spec, FEDERATION.digest, 0) for spec in owned}

    def trained(round_number: int) -> set[str]:
        training = FEDERATION.local_training(round_number)
        result = trainer.train(blocks, training, round_number=round_number, frozen=frozenset(), optimizer={})
        return {str(block) for block, count in result.num_samples.items() if count > 0}

    everything = trained(1)
    assert {"encoder/accel", "fusion/har.accel", "encoder/ecg", "head/har"} <= everything
    bench.imu.plugged = False
    bench.step()
    assert trainer.present_modalities() == {"ecg"}
    assert everything - trained(2) == {"encoder/accel", "fusion/har.accel"}
    bench.imu.plugged = True
    bench.run(8)
    assert trained(3) == everything
