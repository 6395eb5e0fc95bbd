"""The paper's block types as torch modules: held to the specification, and to small answers worked out by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from blossom_edge.core.blocks import BlockId  # noqa: E402
from blossom_edge.federation.block_types import Signal  # noqa: E402
from blossom_edge.federation.initial import initial_block  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.paper_types import (  # noqa: E402
    GruOptions,
    ImageCnnOptions,
    LogmelCnnOptions,
    MlpNormOptions,
)
from blossom_edge.models.block_model import BlockModel, make_block  # noqa: E402
from blossom_edge.models.encoders import GruEncoder, ImageCnn, LogmelCnn  # noqa: E402
from blossom_edge.models.heads import MlpNormHead  # noqa: E402
from blossom_edge.training.optimizers import keep_state, make_optimizer  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["ku-har", "uci-har", "av-mnist", "ptb-xl", "meld", "iemocap"])
def test_a_preset_has_the_tensors_of_the_specification_and_answers_for_either_modality(name: str) -> None:
    federation = load_federation(name)
    for spec in federation.spec.blocks:
        state = make_block(federation, spec).state_dict()
        assert [(n, tuple(state[n].shape)) for n in sorted(state)] == [(t.name, t.shape) for t in spec.tensors]
    model = BlockModel(federation, [s.id for s in federation.spec.blocks])
    model.load({s.id: initial_block(s, federation.digest, 0) for s in federation.spec.blocks})
    (task,) = federation.tasks
    signals = {m: modality.signal for m, modality in federation.modalities.items()}
    inputs = {m: torch.randn(3, s.window, s.width) for m, s in signals.items()}
    for modality in signals:
        present = {m: torch.full((3,), m == modality) for m in signals}
        model.zero_grad()
        outputs = model(inputs, present)[task]
        assert outputs.shape == (3, len(federation.tasks[task].classes))
        outputs.square().sum().backward()
        moved = {
            m
            for m in signals
            if model.module(BlockId.parse(f"encoder/{m}")).get_parameter(first(m, model)).grad is not None
        }
        assert moved == {modality}


def first(modality: str, model: BlockModel) -> str:
    return next(name for name, _ in model.module(BlockId.parse(f"encoder/{modality}")).named_parameters())


def test_the_image_encoder_by_hand() -> None:
    encoder = ImageCnn(ImageCnnOptions(channels=(1,), hidden=1), signal=Signal(1, 1, (2, 2)))
    with torch.no_grad():
        encoder.conv[0].weight.zero_()[0, 0, 1, 1] = 1.0  # the image itself
        encoder.conv[0].bias.zero_()
        encoder.linear.weight.fill_(2.0)
        encoder.linear.bias.fill_(1.0)
    # ReLU of -4 0 0 4 is 0 0 0 4: mean 1, spread sqrt(3); the largest is (4 - 1) / sqrt(3) = sqrt(3)
    answer = encoder(torch.tensor([[[-4.0, 0.0, 0.0, 4.0]]]))
    assert answer.item() == pytest.approx(2 * 3**0.5 + 1, rel=1e-5)


def test_the_spectrum_encoder_sees_bands_and_channels_where_they_are() -> None:
    encoder = LogmelCnn(LogmelCnnOptions(channels=(1,), hidden=1), signal=Signal(2, 1, (2,)))
    window = torch.tensor([[[1.0, 10.0, 2.0, 20.0]]])  # band 0 of both channels, then band 1
    seen: list[torch.Tensor] = []
    encoder.conv[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    encoder(window)
    assert seen[0].tolist() == [[[[1.0], [2.0]], [[10.0], [20.0]]]]  # channel, band, time
    long = LogmelCnn(LogmelCnnOptions(), signal=Signal(2, 141, (64,)))
    shapes: list[tuple[int, ...]] = []
    for conv in long.conv:
        conv.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    assert long(torch.randn(2, 141, 128)).shape == (2, 256)
    assert shapes == [(8, 32, 71), (16, 16, 36), (32, 8, 18), (64, 4, 9)]


def test_the_text_encoder_is_the_mean_of_a_gru() -> None:
    encoder = GruEncoder(GruOptions(hidden=3), signal=Signal(1, 4, (5,)))
    window = torch.randn(2, 4, 5)
    plain = torch.nn.GRU(5, 3, batch_first=True)
    plain.load_state_dict(encoder.gru.state_dict())
    assert torch.allclose(encoder(window), plain(window)[0].mean(dim=1), atol=1e-6)


def test_the_head_with_norms_by_hand() -> None:
    head = MlpNormHead(MlpNormOptions(widths=(2,), dropout=0.0), width=2, outputs=1)
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.eye(2))
        head.layers[0].bias.zero_()
        head.layers[1].weight.copy_(torch.tensor([[5.0, 7.0]]))
        head.layers[1].bias.fill_(0.5)
    # 3 and 1: mean 2, spread 1, so 1 and -1; ReLU leaves 1 and 0
    assert head(torch.tensor([[3.0, 1.0]])).item() == pytest.approx(5.5, rel=1e-4)


def test_adamw_shrinks_a_value_by_rate_times_decay_and_steps_by_the_rate() -> None:
    training = load_federation("av-mnist", sets=["training.lr=0.25", "training.weight_decay=0.5"]).local_training(1)
    value = torch.nn.Parameter(torch.tensor([8.0]))
    optimizer = make_optimizer([(BlockId.parse("head/digit"), "layers.0.bias", value)], training, kept={})
    value.grad = torch.tensor([3.0])
    optimizer.step()
    assert value.item() == pytest.approx(8 * (1 - 0.25 * 0.5) - 0.25)  # Adam's first step is lr * sign(gradient)
    kept = keep_state(optimizer, [(BlockId.parse("head/digit"), "layers.0.bias", value)], training)
    assert {key.rpartition(":")[2] for key in kept} == {"exp_avg", "exp_avg_sq", "step"}
