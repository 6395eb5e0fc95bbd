"""The presets with the paper's sizes: their numbers of values beside those of the published code. Needs no torch."""

from __future__ import annotations

import numpy as np
import pytest

from blossom_edge.core.blocks import BlockId
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation

# preset, values of the encoders, of the fusion, of the head; then those of the published code
SIZES = [
    ("ku-har", {"accel": 150_976, "gyro": 150_976}, 66_560, 17_618, 66_562, 16_968),
    ("uci-har", {"accel": 150_976, "gyro": 150_976}, 66_560, 16_838, 66_562, 16_838),
    ("av-mnist", {"image": 15_248, "audio": 41_392}, 37_536, 67_978, 37_698, 67_978),
    ("ptb-xl", {"limb": 89_632, "chest": 89_632}, 16_896, 8_581, 16_898, 8_581),
    ("meld", {"audio": 101_472, "text": 110_976}, 16_896, 8_516, 16_898, 8_516),
    ("iemocap", {"audio": 101_472, "text": 110_976}, 16_896, 8_516, 16_898, 8_516),
]


@pytest.mark.parametrize(("name", "encoders", "fusion", "head", "papers_fusion", "papers_head"), SIZES)
def test_a_preset_of_the_paper_has_its_sizes_and_known_differences(
    name: str, encoders: dict[str, int], fusion: int, head: int, papers_fusion: int, papers_head: int
) -> None:
    federation = load_federation(name)
    counts = {str(b.id): b.num_values for b in federation.spec.blocks}
    (task,) = federation.tasks
    assert {m: counts[f"encoder/{m}"] for m in federation.modalities} == encoders
    assert sum(count for block, count in counts.items() if block.startswith("fusion/")) == fusion
    assert counts[f"head/{task}"] == head
    # a score of one vector per modality instead of a matrix over both with a bias, and a bias behind the sum
    embeddings = sum(federation.spec[BlockId.parse(f"fusion/{task}.{m}")].tensors[-1].size for m in encoders)
    width = fusion_width(name)
    assert fusion == papers_fusion - (2 * embeddings + 2) + embeddings + width
    more_classes = len(federation.tasks[task].classes) - 8 if name == "ku-har" else 0
    assert head == papers_head + more_classes * (64 + 1)


@pytest.mark.parametrize(
    ("name", "papers"), [("ku-har", 65_792), ("uci-har", 65_792), ("av-mnist", 36_992), ("ptb-xl", 16_512),
                         ("meld", 16_512), ("iemocap", 16_512)],
)  # fmt: skip
def test_the_papers_other_fusion_has_its_size(name: str, papers: int) -> None:
    (task,) = load_federation(name).tasks
    federation = load_federation(name, sets=[f"blocks.fusion/{task}.type=concat"])
    parts = [b for b in federation.spec.blocks if str(b.id).startswith("fusion/")]
    assert sum(b.num_values for b in parts) == papers


def fusion_width(name: str) -> int:
    return 256 if name.endswith("-har") else 128


def test_the_audio_encoder_with_the_papers_two_equal_channels_has_its_size() -> None:
    two = "channels=[{name='left', unit='dB'}, {name='right', unit='dB'}]"
    channels = f"modalities.audio={{rate_hz=93.75, window=141, hop=141, shape=[64], {two}}}"
    federation = load_federation("av-mnist", sets=[channels])
    assert federation.spec[BlockId.parse("encoder/audio")].num_values == 41_592


@pytest.mark.parametrize("name", [row[0] for row in SIZES])
def test_a_preset_of_the_paper_trains_as_the_paper_with_a_rate_that_falls(name: str) -> None:
    federation = load_federation(name)
    first, last = federation.local_training(1), federation.local_training(60)
    assert (first.epochs, first.batch_size, first.steps) == (1, 16, 0)
    expected = {"av-mnist": ("adamw", 1e-3, 1e-4), "meld": ("sgd", 0.01, 1e-5), "iemocap": ("sgd", 0.01, 1e-5)}
    assert (first.optimizer, first.lr, first.weight_decay) == expected.get(name, ("sgd", 0.05, 1e-5))
    assert last.lr == pytest.approx(1e-6)
    assert federation.local_training(30).lr == pytest.approx(1e-6 + (first.lr - 1e-6) * 0.5133, rel=1e-3)
    assert {str(b.id).partition("/")[0] for b in federation.spec.blocks if b.leaves_device} == {"encoder"}


def test_norms_start_at_one_and_zero_wherever_they_stand() -> None:
    federation = load_federation("av-mnist")
    for block in ("encoder/image", "encoder/audio", "head/digit"):
        values = initial_block(federation.spec[BlockId.parse(block)], federation.digest, 0)
        norms = {name: v for name, v in values.items() if name.startswith("norm.")}
        assert norms
        for name, found in norms.items():
            assert np.array_equal(found, np.full(found.shape, 1.0 if name.endswith("weight") else 0.0, np.float32))


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ("{type='image_cnn', channels=[8, 16, 32, 64, 64]}", "5 layers halve the image 5 times, found 28 x 28"),
        ("{type='logmel_cnn'}", r"found 'logmel_cnn' for samples of shape \[28, 28\]"),
    ],
)
def test_an_encoder_that_does_not_suit_the_samples_is_refused(block: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_federation("av-mnist", sets=[f"blocks.encoder/image={block}"])
    with pytest.raises(ConfigError, match="found 'image_cnn' for samples that are single numbers"):
        load_federation("uci-har", sets=["blocks.encoder/accel={type='image_cnn'}"])
