"""Blocks as torch modules: held to the specification, and blind to what is absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from blossom_edge.core.blocks import BlockId  # noqa: E402
from blossom_edge.core.errors import SpecMismatch  # noqa: E402
from blossom_edge.federation.block_types import Conv2dOptions, FusionOptions, Signal  # noqa: E402
from blossom_edge.federation.initial import initial_block  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.schema import Federation  # noqa: E402
from blossom_edge.models.block_model import BlockModel, make_block  # noqa: E402
from blossom_edge.models.encoders import Conv2d  # noqa: E402
from blossom_edge.models.fusion import AttentionRest, ConcatRest  # noqa: E402

pytestmark = pytest.mark.torch

ATTENTION = ['blocks."fusion/har".type=attention']
SMALL = ["blocks.encoder/accel.channels=[4, 6]", "blocks.encoder/accel.hidden=5", "blocks.encoder/gyro={type='mlp'}"]
FEDERATIONS = [
    ("har", []),
    ("har", ATTENTION),
    ("har", SMALL),
    ("har", ["tasks.har.type=multilabel"]),
    ("two-tasks", []),
    ("audio-image", []),
    ("audio-image", ["modalities.image.shape=[6, 5]", "blocks.encoder/audio={type='mlp'}"]),
]


def model_of(federation: Federation, *modalities: str, tasks: tuple[str, ...] = ()) -> BlockModel:
    specs = federation.spec.owned(modalities or federation.modalities, tasks or federation.tasks)
    model = BlockModel(federation, [s.id for s in specs])
    model.load({s.id: initial_block(s, federation.digest, 0) for s in specs})
    return model.eval()


def windows(count: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(count, 128, 3, generator=generator) for m in ("accel", "gyro")}


def mask(*rows: int) -> Any:
    return torch.tensor(rows, dtype=torch.bool)


@pytest.mark.parametrize(("name", "sets"), FEDERATIONS)
def test_each_module_has_exactly_the_tensors_of_the_specification(name: str, sets: list[str]) -> None:
    federation = load_federation(name, sets=sets)
    for spec in federation.spec.blocks:
        module = make_block(federation, spec)
        state = module.state_dict()
        assert [(n, tuple(state[n].shape)) for n in sorted(state)] == [(t.name, t.shape) for t in spec.tensors]
        assert {v.dtype for v in state.values()} == {torch.float32}
        assert list(module.buffers()) == [], "buffers would not be averaged"


def test_values_come_back_as_they_were_loaded_sorted_and_copied() -> None:
    federation = load_federation("har", sets=SMALL)
    model = model_of(federation)
    for spec in federation.spec.blocks:
        values = model.values(spec.id)
        first = initial_block(spec, federation.digest, 0)
        assert list(values) == sorted(first)
        for name, tensor in values.items():
            assert tensor.dtype == np.float32
            assert np.array_equal(tensor, first[name])
            tensor[...] = 9.0
        assert np.array_equal(model.values(spec.id)[name], first[name])


def test_values_of_another_shape_or_name_are_refused() -> None:
    federation = load_federation("har", sets=SMALL)
    block = BlockId.parse("fusion/har")
    with pytest.raises(SpecMismatch, match="fusion/har: bias has shape"):
        model_of(federation).load({block: {"bias": np.zeros(3, np.float32)}})
    with pytest.raises(SpecMismatch, match="missing or unknown: bias, bios"):
        model_of(federation).load({block: {"bios": np.zeros(256, np.float32)}})


def test_read_only_views_from_the_wire_can_be_loaded() -> None:
    model = model_of(load_federation("har", sets=SMALL))
    wire = np.frombuffer(np.ones(256, np.float32).tobytes(), np.float32)
    model.load({BlockId.parse("fusion/har"): {"bias": wire}})
    assert (model.values(BlockId.parse("fusion/har"))["bias"] == 1.0).all()


def test_conv2d_sees_each_frame_as_height_width_channel_and_gives_the_mean_over_the_frames() -> None:
    options = Conv2dOptions(channels=(2,), hidden=2, dropout=0.0)
    encoder: Any = Conv2d(options, signal=Signal(channels=2, window=2, shape=(3, 4)))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        for channel in (0, 1):  # each point is passed on as it is
            encoder.conv[0].weight[channel, channel, 1, 1] = 1.0
            encoder.linear.weight[channel, channel] = 1.0
    frames = torch.arange(2 * 3 * 4 * 2, dtype=torch.float32)  # value = 24 frame + 8 row + 2 column + channel
    frames[1::2] *= -1.0
    # stride 2 keeps rows 0 and 2, columns 0 and 2: 0, 4, 16, 20 (mean 10) and 24 more in the second frame (mean 34);
    # the second channel is negative, so ReLU leaves nothing of it
    assert encoder(frames.reshape(1, 2, 24)).tolist() == [[22.0, 0.0]]


def test_the_encoders_of_sound_and_pictures_give_a_gradient_to_each_of_their_values() -> None:
    federation = load_federation("audio-image", sets=["modalities.image.shape=[16, 12]"])
    model = model_of(federation).train()
    inputs = {"audio": torch.randn(3, 98, 40), "image": torch.randn(3, 1, 16 * 12 * 3)}
    present = {"audio": mask(1, 1, 0), "image": mask(0, 1, 1)}
    outputs = model(inputs, present)["digit"]
    assert outputs.shape == (3, 10)
    outputs.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    for name in ("audio", "image"):
        encoder: Any = model.module(BlockId.parse(f"encoder/{name}"))
        assert all(float(p.grad.abs().max()) > 0 for p in encoder.parameters())


def test_concat_is_the_bias_plus_the_mean_over_present_modalities() -> None:
    rest = ConcatRest(FusionOptions(width=2))
    with torch.no_grad():
        rest.bias.copy_(torch.tensor([1.0, -1.0]))
    values = torch.tensor([[[2.0, 4.0], [6.0, 0.0]]]).repeat(4, 1, 1)
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    # bias + (2+6)/2, (4+0)/2; bias + first; bias + second; bias
    expected = [[5.0, 1.0], [3.0, 3.0], [7.0, -1.0], [1.0, -1.0]]
    assert rest(values, torch.zeros(4, 2), present).tolist() == expected


def test_attention_weighs_the_present_modalities_by_the_softmax_of_their_scores() -> None:
    rest = AttentionRest(FusionOptions(width=2))
    values = torch.tensor([[[3.0, 1.0], [1.0, 5.0]]]).repeat(3, 1, 1)
    scores = torch.tensor([[np.log(3.0), 0.0]], dtype=torch.float32).repeat(3, 1)  # weights 3/4 and 1/4
    present = torch.tensor([[True, True], [False, True], [False, False]])
    mixed, second, nothing = rest(values, scores, present)
    # 3/4*3 + 1/4*1 = 2.5 and 3/4*1 + 1/4*5 = 2: the norm of two values is +-1 (eps moves it in the 5th digit)
    assert mixed.tolist() == pytest.approx([1.0, -1.0], abs=1e-3)
    assert second.tolist() == pytest.approx([-1.0, 1.0], abs=1e-3)
    assert nothing.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("sets", [SMALL, SMALL + ATTENTION], ids=["concat", "attention"])
def test_what_stands_in_absent_rows_changes_neither_outputs_nor_gradients(sets: list[str]) -> None:
    federation = load_federation("har", sets=sets)
    present = {"accel": mask(1, 1, 0, 1), "gyro": mask(1, 0, 1, 0)}
    results = []
    for junk in (0.0, float("nan"), 1e30):
        model, inputs = model_of(federation), windows(4)
        for modality, rows in present.items():
            inputs[modality][~rows] = junk
        outputs = model(inputs, present)["har"]
        outputs.square().sum().backward()
        results.append([outputs.detach(), *(p.grad for p in model.parameters())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("sets", [SMALL, SMALL + ATTENTION], ids=["concat", "attention"])
def test_a_row_without_a_modality_is_answered_as_by_a_device_that_never_had_it(sets: list[str]) -> None:
    federation = load_federation("har", sets=sets)
    inputs = windows(3)
    both = model_of(federation)(inputs, {"accel": mask(1, 1, 1), "gyro": mask(0, 1, 0)})["har"]
    alone = model_of(federation, "accel")({"accel": inputs["accel"]}, {"accel": mask(1, 1, 1)})["har"]
    assert torch.allclose(both[[0, 2]], alone[[0, 2]], atol=1e-6)
    assert not torch.allclose(both[1], alone[1], atol=1e-3)


def test_the_encoder_of_an_absent_modality_does_not_run() -> None:
    model = model_of(load_federation("har", sets=SMALL))
    calls: list[tuple[str, int]] = []
    for name in ("accel", "gyro"):
        module = model.module(BlockId.parse(f"encoder/{name}"))
        module.register_forward_hook(lambda _m, args, _o, name=name: calls.append((name, len(args[0]))))
    model(windows(4), {"accel": mask(1, 0, 1, 1), "gyro": mask(0, 0, 0, 0)})
    assert calls == [("accel", 3)]


def test_a_model_without_any_modality_of_a_task_gives_nothing_for_it() -> None:
    model = model_of(load_federation("har", sets=SMALL))
    assert model(windows(2), {"accel": mask(0, 0), "gyro": mask(0, 0)}) == {}
    heads_only = BlockModel(load_federation("har"), [BlockId.parse("head/har"), BlockId.parse("fusion/har")])
    assert heads_only.tasks == ()


def test_a_regression_answers_in_its_unit() -> None:
    federation = load_federation("two-tasks", sets=["tasks.speed.mean=10.0", "tasks.speed.spread=2.0"])
    model = model_of(federation, tasks=("speed",))
    model.load(
        {
            BlockId.parse("head/speed"): {
                t.name: np.zeros(t.shape, np.float32) for t in federation.spec[BlockId.parse("head/speed")].tensors
            }
            | {"layers.1.bias": np.ones(1, np.float32)}
        }
    )
    outputs = model({"accel": torch.randn(2, 64, 3)}, {"accel": mask(1, 1)})
    assert outputs["speed"].tolist() == [[12.0], [12.0]]
    assert set(outputs) == {"speed"}


def test_modules_do_not_depend_on_the_order_in_which_blocks_are_named() -> None:
    federation = load_federation("har", sets=SMALL)
    ids = [s.id for s in federation.spec.blocks]
    assert list(BlockModel(federation, ids).state_dict()) == list(BlockModel(federation, ids[::-1]).state_dict())
