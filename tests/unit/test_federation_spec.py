import json
import math

import pytest

from blossom_edge.core.blocks import BlockId, Visibility
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation

PRESETS = [
    ("full", set()),
    ("private-head", {"head/har"}),
    ("private-head-fusion", {"head/har", "fusion/har", "fusion/har.accel", "fusion/har.gyro"}),
    ("private-encoders", {"encoder/accel", "encoder/gyro"}),
]


def test_encoders_of_the_preset_have_the_published_size() -> None:
    federation = load_federation("har")
    # conv 3*32*5+32, 32*64*5+64, 64*128*5+128; GRU 3*128*(128+128) and 2*3*128 biases
    assert 512 + 10_304 + 41_088 + 98_304 + 768 == 150_976
    for modality in ("accel", "gyro"):
        assert federation.spec[BlockId.parse(f"encoder/{modality}")].num_values == 150_976


def test_a_one_modality_device_carries_1208_kb_of_encoder_down_and_up() -> None:
    federation = load_federation("har")
    sent = [b for b in federation.spec.owned(["accel"], ["har"]) if b.leaves_device]
    assert [str(b.id) for b in sent] == ["encoder/accel"]
    assert 2 * 4 * sent[0].num_values == 1_207_808


def test_blocks_are_sorted_and_a_fusion_has_a_part_per_modality() -> None:
    names = [str(b.id) for b in load_federation("har").spec.blocks]
    assert names == ["encoder/accel", "encoder/gyro", "fusion/har", "fusion/har.accel", "fusion/har.gyro", "head/har"]


def test_tensors_of_the_blocks_have_these_shapes() -> None:
    spec = load_federation("har").spec
    shapes = {str(b.id): {t.name: t.shape for t in b.tensors} for b in spec.blocks}
    assert shapes["encoder/gyro"]["gru.weight_ih_l0"] == (384, 128)
    assert shapes["fusion/har.accel"] == {"weight": (256, 128)}
    assert shapes["fusion/har"] == {"bias": (256,)}
    assert shapes["head/har"]["layers.1.weight"] == (7, 64)
    for block in spec.blocks:
        assert [t.name for t in block.tensors] == sorted(t.name for t in block.tensors)


def test_a_part_of_a_fusion_belongs_to_its_modality_and_its_task() -> None:
    spec = load_federation("two-tasks").spec
    part = spec[BlockId.parse("fusion/speed.accel")]
    assert (part.modality, part.task) == ("accel", "speed")
    owned = {str(b.id) for b in spec.owned(["accel"], ["speed"])}
    assert owned == {"encoder/accel", "fusion/speed", "fusion/speed.accel", "head/speed"}


def test_a_regression_has_one_output_and_a_multilabel_one_per_class() -> None:
    two = load_federation("two-tasks")
    many = load_federation("har", sets=["tasks.har.type=multilabel"])
    assert {t.name: t.shape for t in two.spec[BlockId.parse("head/speed")].tensors}["layers.1.bias"] == (1,)
    assert {t.name: t.shape for t in many.spec[BlockId.parse("head/har")].tensors}["layers.1.bias"] == (7,)


@pytest.mark.parametrize(("preset", "private"), PRESETS)
def test_a_visibility_preset_decides_which_blocks_stay_at_home(preset: str, private: set[str]) -> None:
    spec = load_federation("har", sets=[f"visibility={preset}"]).spec
    assert {str(b.id) for b in spec.blocks if b.visibility is Visibility.PRIVATE} == private
    assert {b.visibility for b in spec.blocks} <= {Visibility.PRIVATE, Visibility.SHARED}


def test_the_visibility_of_one_block_goes_before_the_preset() -> None:
    spec = load_federation("har", sets=["visibility=full", "blocks.encoder/gyro.visibility=private"]).spec
    assert [str(b.id) for b in spec.blocks if not b.leaves_device] == ["encoder/gyro"]


def test_the_parts_of_a_fusion_follow_it_unless_they_say_otherwise() -> None:
    sets = ["blocks.fusion/har.visibility=shared", 'blocks."fusion/har.gyro".visibility=cohort']
    spec = load_federation("har", sets=sets).spec
    seen = {b.id.name: b.visibility.value for b in spec.blocks if b.id.kind.value == "fusion"}
    assert seen == {"har": "shared", "har.accel": "shared", "har.gyro": "cohort"}


def test_quorum_and_min_cohort_of_a_block_go_before_those_of_the_rounds() -> None:
    sets = ["rounds.quorum=2", "blocks.encoder/accel.quorum=4", "blocks.fusion/har.min_cohort=3"]
    federation = load_federation("har", sets=sets)
    asked = {b: BlockId.parse(b) for b in ("encoder/accel", "encoder/gyro", "fusion/har.accel")}
    assert {b: federation.quorum(i) for b, i in asked.items()} == {
        "encoder/accel": 4,
        "encoder/gyro": 2,
        "fusion/har.accel": 2,
    }
    assert federation.min_cohort(asked["fusion/har.accel"]) == 3
    assert federation.min_cohort(asked["encoder/gyro"]) == 1


def test_a_federation_survives_the_wire_with_its_digest() -> None:
    federation = load_federation("har", sets=["blocks.encoder/gyro.visibility=private"])
    received = Federation.from_dict(json.loads(json.dumps(federation.to_dict())))
    assert received == federation
    assert received.digest == federation.digest
    assert received.spec.digest == federation.spec.digest


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "training.lr=0.0123",
        "visibility=full",
        "blocks.head/har.hidden=32",
        "tasks.har.modalities=['accel','gyro']",
    ],
)
def test_every_change_gives_another_digest(change: str) -> None:
    assert load_federation("har", sets=[change]).digest != load_federation("har").digest


def test_what_the_wire_brings_is_checked_and_the_sender_named() -> None:
    values = load_federation("har").to_dict()
    values["modalities"]["accel"]["hop"] = 129
    with pytest.raises(ConfigError, match=r"^from the gateway: modalities\.accel\.hop: found 129"):
        Federation.from_dict(values, source="from the gateway")


def test_a_cosine_falls_from_lr_in_round_1_to_lr_min_in_its_last_round() -> None:
    sets = ["training.lr=0.1", "training.lr_schedule=cosine", "training.lr_rounds=5", "training.lr_min=0.02"]
    federation = load_federation("har", sets=sets)
    rates = [federation.local_training(r).lr for r in (1, 2, 3, 5, 9)]
    second = 0.02 + 0.08 * 0.5 * (1 + math.cos(math.pi / 4))
    assert rates == pytest.approx([0.1, second, 0.06, 0.02, 0.02])


def test_steps_replace_epochs() -> None:
    training = load_federation("har", sets=["training.steps=9"]).local_training(1)
    assert (training.epochs, training.steps) == (0, 9)


def test_a_device_can_serve_the_tasks_that_use_one_of_its_modalities() -> None:
    two = load_federation("two-tasks")
    assert two.tasks_for(["accel"]) == ("activity", "speed")
    assert two.tasks_for(["ecg"]) == ()
    assert load_federation("har").tasks_for(["gyro", "ecg"]) == ("har",)


def test_options_travel_in_the_block_spec_with_their_defaults() -> None:
    spec = load_federation("two-tasks").spec[BlockId.parse("encoder/accel")]
    assert spec.options == (("dropout", 0.1), ("widths", "64,32"))
