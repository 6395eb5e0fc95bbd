"""The exchange of a running model, on real sessions: what is taken, what is refused, what a restart finds."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import (
    ACCEL,
    FEDERATION,
    HEAD,
    KEYS,
    STORED,
    decode,
    held_at,
    live_model,
    outputs,
    received,
    spoiled,
    tensors_of,
    versions_of,
    windows,
)

from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.federation.spec import embedding_width, encoder_id
from blossom_edge.inference.canary import CanaryWindows
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import Generation, Received
from blossom_edge.inference.head_values import HeadValues
from blossom_edge.inference.live import LiveModel
from blossom_edge.inference.model_folder import ORDERS, block_file
from blossom_edge.inference.orders import Ask, Order
from blossom_edge.inference.skeleton_set import SkeletonSet

FEW = windows(3, seed=7)


def wide_head(num_classes: int = 7) -> HeadValues:
    """An own head for the features of `har`, all zeros."""
    width = sum(embedding_width(FEDERATION, encoder_id(m)) + 1 for m in FEDERATION.modalities)
    weight, bias = np.zeros((num_classes, width), np.float32), np.zeros(num_classes, np.float32)
    return HeadValues("softmax", {"layers.0.weight": weight, "layers.0.bias": bias})


def at(place: Path, *numbers: int, boot: int = 1) -> LiveModel:
    """A device that took these versions of all blocks, one after the other, each proved."""
    live = live_model(place, boot=boot)
    for number in numbers:
        assert live.offer(held_at(number), windows=STORED).taken
        live.proved()
    return live


def running(live: LiveModel) -> Generation:
    assert live.current is not None
    return live.current


def all_at(version: int) -> dict[str, int]:
    return {str(key): version for key in KEYS.values()}


# ---- taken


def test_the_first_versions_are_taken_at_once_and_give_the_outputs_of_their_tensors(tmp_path: Path) -> None:
    live = live_model(tmp_path)
    assert (live.current, live.previous) == (None, None)
    swap = live.offer(held_at(1), windows=STORED)
    assert (swap.taken, swap.changed, swap.reason) == (True, tuple(sorted(KEYS.values())), "")
    assert live.current is not None
    assert (live.current.number, versions_of(live)) == (1, all_at(1))
    whole = OnnxModel.build(FEDERATION, {b: tensors_of(b, 1) for b in KEYS}, SkeletonSet().get)
    np.testing.assert_array_equal(outputs(live.current, FEW), whole.outputs(FEW.inputs, FEW.present)["har"])


def test_only_blocks_that_changed_get_new_sessions_and_the_old_generation_goes_on_working(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    before = live.current
    was = outputs(before, FEW)
    swap = live.offer({**held_at(1), **held_at(2, HEAD)}, windows=STORED)
    assert (swap.taken, swap.changed, set(swap.seconds)) == (True, (HEAD,), {HEAD})
    assert swap.seconds[HEAD] > 0.0
    assert live.previous is before
    assert versions_of(live) == {**all_at(1), "head/har": 2}
    np.testing.assert_array_equal(outputs(before, FEW), was)
    assert np.abs(outputs(live.current, FEW) - was).max() > 1e-3


def test_the_same_versions_again_are_no_exchange(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    before = live.current
    swap = live.offer(held_at(1), windows=STORED)
    assert (swap.taken, swap.changed, swap.reason) == (False, (), "")
    assert live.current is before


def test_blocks_of_others_are_passed_over(tmp_path: Path) -> None:
    place = tmp_path / "place"
    live = live_model(place)
    foreign = {BlockKey(ACCEL.block, "accel"): held_at(1)[ACCEL]}
    assert live.offer(foreign, windows=STORED).taken is False
    assert live.current is None


# ---- refused, the model in use goes on


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_version_with_values_that_are_not_finite_is_refused_by_name_and_not_tried_again(
    tmp_path: Path, value: float
) -> None:
    live = at(tmp_path, 1)
    before = live.current
    bad = {**held_at(1), ACCEL: spoiled(ACCEL, 2, value)}
    swap = live.offer(bad, windows=STORED)
    assert (swap.taken, live.current) == (False, before)
    assert "encoder/accel" in swap.reason
    assert "finite" in swap.reason
    refused = live.folder.state.refused
    assert [(r.key, r.used.version, r.by) for r in refused] == [(ACCEL, 2, "check")]
    again = live.offer(bad, windows=STORED)
    assert (again.taken, again.reason, again.seconds) == (False, "", {}), "it is not even built"
    again = live_model(tmp_path, boot=2).offer(bad, windows=STORED)
    assert again.seconds == {}, "nor after a restart"
    assert live.offer({**held_at(1), **held_at(3, ACCEL)}, windows=STORED).taken


def test_a_block_of_the_wrong_length_or_hash_is_refused(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    good = held_at(2, ACCEL)[ACCEL]
    short = received(ACCEL.block, 2)
    short = Received(2, "0" * 64, short.data)
    assert "hash" in live.offer({ACCEL: short}, windows=STORED).reason
    cut = Received(3, hashlib.sha256(good.data[:-4]).hexdigest(), good.data[:-4])
    assert "bytes" in live.offer({ACCEL: cut}, windows=STORED).reason
    assert versions_of(live) == all_at(1)
    assert [r.used.version for r in live.folder.state.refused] == [2, 3]


def test_a_bad_block_does_not_keep_the_good_ones_away(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    swap = live.offer({**held_at(2), ACCEL: spoiled(ACCEL, 2, np.nan)}, windows=STORED)
    assert swap.taken
    assert "encoder/accel" in swap.reason
    assert versions_of(live) == {**all_at(2), "encoder/accel": 1}


def test_values_that_make_the_outputs_overflow_are_found_by_the_canary(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    before = live.current
    huge = {name: np.full_like(values, 3e38) for name, values in tensors_of(HEAD.block, 2).items()}
    swap = live.offer({HEAD: received(HEAD.block, 2, huge)}, windows=STORED)
    assert (swap.taken, live.current) == (False, before)
    assert swap.reason == "har: outputs are not finite on 4 of 4 windows"
    assert swap.canary_s > 0.0
    assert live.folder.state.refused[0].by == "canary"


def test_a_version_that_scores_clearly_worse_on_the_holdout_is_refused(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    batch = windows(40)
    truth = outputs(live.current, batch).argmax(axis=1)
    stored = CanaryWindows.of(windows(40, labels=truth))
    turned = {name: -values for name, values in tensors_of(HEAD.block, 2).items()}
    swap = live.offer({HEAD: received(HEAD.block, 2, turned)}, windows=stored)
    assert swap.taken is False
    assert swap.reason.startswith("har: accuracy 0.")
    assert "the one in use has 1.000 on the same 40 windows" in swap.reason
    assert live.offer(held_at(3, HEAD), windows=stored).taken


def test_a_missing_graph_is_waited_for_and_does_not_refuse_the_version(tmp_path: Path) -> None:
    here: set[str] = set()
    known = SkeletonSet()
    live = live_model(tmp_path, skeletons=lambda digest: known.get(digest) if digest in here else None)
    swap = live.offer(held_at(1), windows=STORED)
    assert (swap.taken, live.folder.state.refused) == (False, ())
    assert "is not on this machine" in swap.reason
    here.update(skeleton_digest(FEDERATION, block) for block in KEYS)
    assert live.offer(held_at(1), windows=STORED).taken
    again = live_model(tmp_path, boot=2, skeletons=lambda digest: None)
    assert again.current is None, "without graphs nothing runs, and nothing is forgotten"
    assert again.folder.state.in_use is not None


def test_a_graph_of_another_block_is_refused_and_the_model_goes_on(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    wrong = SkeletonSet().get(skeleton_digest(FEDERATION, HEAD.block))
    crossed = live_model(tmp_path, boot=2, skeletons=lambda digest: wrong)
    assert crossed.current is None
    assert crossed.folder.state == live.folder.state.start(2), "nothing is lost"
    mended = live_model(tmp_path, boot=3)
    assert versions_of(mended) == all_at(1)


# ---- back and pinned


def test_a_rollback_brings_the_outputs_of_before_back_and_what_was_left_does_not_return(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    was = outputs(live.current, FEW)
    assert live.offer(held_at(2), windows=STORED).taken
    swap = live.rollback(reason="it is worse")
    assert swap.taken
    assert live.current is not None
    assert (live.current.number, live.previous, versions_of(live)) == (3, None, all_at(1))
    np.testing.assert_array_equal(outputs(live.current, FEW), was)
    assert live.offer(held_at(2), windows=STORED).taken is False
    assert live.offer(held_at(3), windows=STORED).taken
    with pytest.raises(ConfigError, match="no version before"):
        live_model(tmp_path / "new").rollback(reason="nothing there")


def test_a_rollback_after_a_restart_reads_what_was_kept(tmp_path: Path) -> None:
    was = outputs(at(tmp_path, 1).current, FEW)
    at(tmp_path, 2, boot=2)
    live = live_model(tmp_path, boot=3)
    assert live.previous is None, "its sessions are gone"
    live.rollback([ACCEL], reason="bad")
    assert versions_of(live) == {**all_at(2), "encoder/accel": 1}
    live.rollback(reason="bad")
    assert versions_of(live) == all_at(1)
    np.testing.assert_array_equal(outputs(live.current, FEW), was)


def test_a_pinned_block_stays_and_the_others_go_on(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    live.pin(ACCEL)
    assert live.offer(held_at(2), windows=STORED).taken
    assert versions_of(live) == {**all_at(2), "encoder/accel": 1}
    live = live_model(tmp_path, boot=2)
    assert live.offer(held_at(2), windows=STORED).taken is False
    live.unpin(ACCEL)
    assert live.offer(held_at(2), windows=STORED).changed == (ACCEL,)


def test_to_let_go_of_a_block_tries_its_refused_version_again(tmp_path: Path) -> None:
    live = at(tmp_path, 1, 2)
    live.rollback([ACCEL], reason="by mistake")
    assert live.offer(held_at(2), windows=STORED).taken is False
    live.unpin(ACCEL)
    assert live.offer(held_at(2), windows=STORED).changed == (ACCEL,)


# ---- restarts and damage


def test_a_restart_runs_what_was_in_use_without_any_offer(tmp_path: Path) -> None:
    first = at(tmp_path, 1, 2)
    again = live_model(tmp_path, boot=2)
    assert again.current is not None
    assert (again.current.number, versions_of(again)) == (2, all_at(2))
    np.testing.assert_array_equal(outputs(again.current, FEW), outputs(first.current, FEW))


def test_a_damaged_file_is_named_and_the_generation_before_runs_until_the_gateway_mends_it(tmp_path: Path) -> None:
    at(tmp_path, 1, 2)
    path = block_file(tmp_path, held_at(2)[ACCEL].used)
    path.write_bytes(path.read_bytes()[:200])
    live = live_model(tmp_path, boot=2)
    assert versions_of(live) == all_at(1)
    assert path.name in live.folder.damage[0]
    assert live.offer(held_at(2), windows=STORED).taken
    assert versions_of(live_model(tmp_path, boot=3)) == all_at(2)


def test_when_both_generations_are_damaged_the_gateway_is_waited_for_and_pins_and_refusals_stay(tmp_path: Path) -> None:
    live = at(tmp_path, 1, 2)
    live.offer({ACCEL: spoiled(ACCEL, 3, np.nan)}, windows=STORED)
    live.pin(HEAD)
    for version in (1, 2):
        block_file(tmp_path, held_at(version)[ACCEL].used).unlink()
    live = live_model(tmp_path, boot=2)
    assert live.current is None
    assert len(live.folder.damage) == 2
    assert live.offer({**held_at(4), ACCEL: spoiled(ACCEL, 3, np.nan)}, windows=STORED).taken
    assert versions_of(live) == {name: v for name, v in {**all_at(4), "head/har": 2}.items() if name != str(ACCEL)}


def test_a_pin_whose_version_is_lost_is_let_go(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    live.pin(ACCEL)
    block_file(tmp_path, held_at(1)[ACCEL].used).unlink()
    live = live_model(tmp_path, boot=2)
    assert live.offer(held_at(2), windows=STORED).taken
    assert (versions_of(live), live.folder.state.pinned) == (all_at(2), {})


def test_three_starts_without_proof_restore_the_generation_before_and_say_why(tmp_path: Path) -> None:
    at(tmp_path, 1)
    live_model(tmp_path, boot=2).offer(held_at(2), windows=STORED)
    for boot in (3, 4):
        assert versions_of(live_model(tmp_path, boot=boot)) == all_at(2)
    live = live_model(tmp_path, boot=5)
    assert versions_of(live) == all_at(1)
    facts = live.facts()
    assert {r["reason"] for r in facts["refused"]} == {"crash loop: 3 starts without 10 predictions"}
    assert {r["block"] for r in facts["refused"]} == set(all_at(2))
    assert live.offer(held_at(2), windows=STORED).taken is False
    assert live.offer(held_at(3), windows=STORED).taken


def test_starts_that_end_cleanly_and_a_proved_generation_are_no_crash_loop(tmp_path: Path) -> None:
    at(tmp_path, 1)
    live = live_model(tmp_path, boot=2)
    live.offer(held_at(2), windows=STORED)
    for boot in range(3, 8):
        live.ended()
        live = live_model(tmp_path, boot=boot)
    assert live.facts()["on_trial"] is True
    live.proved()
    for boot in range(8, 14):
        live = live_model(tmp_path, boot=boot)
    assert (versions_of(live), live.facts()["on_trial"]) == (all_at(2), False)


# ---- own heads


def test_own_heads_are_made_for_new_encoders_and_found_again_after_a_restart(tmp_path: Path) -> None:
    live = live_model(tmp_path)
    asked: list[Any] = []

    def make_heads(model: OnnxModel, before: Any) -> dict[str, HeadValues]:
        asked.append((model.blocks, dict(before)))
        return {"har": wide_head()}

    live.offer(held_at(1), windows=STORED, make_heads=make_heads)
    live.offer(held_at(2), windows=STORED, make_heads=make_heads)
    assert [set(before) for _, before in asked] == [set(), {"har"}]
    assert live.current is not None
    assert (live.current.head_number, set(live.current.heads)) == (2, {"har"})
    again = live_model(tmp_path, boot=2)
    assert again.current is not None
    assert (again.current.head_number, set(again.current.heads)) == (2, {"har"})
    live.adopt_heads({"har": wide_head()})
    assert live.current.head_number == 3
    assert {p.name for p in live.folder.path.glob("head.*")} == {
        "head.har.1.safetensors", "head.har.3.safetensors"
    }  # fmt: skip
    live.rollback(reason="worse")
    assert live.current.head_number == 1


# ---- orders


def test_orders_of_a_person_are_carried_out_and_answered(tmp_path: Path) -> None:
    live = at(tmp_path, 1, 2)
    folder = live.folder.path / ORDERS
    assert live.take_orders() is False
    asks = [
        Ask(folder, Order("pin", (ACCEL,))), Ask(folder, Order("rollback")), Ask(folder, Order("rollback", (HEAD,))),
        Ask(folder, Order("unpin", (ACCEL,))), Ask(folder, Order("pin", (BlockKey(ACCEL.block, "other"),))),
    ]  # fmt: skip
    assert live.take_orders() is True
    answers = [ask.answer() for ask in asks]
    assert [answer is not None and answer.done for answer in answers] == [True, False, True, True, False]
    assert answers[1] is not None
    assert answers[1].message == "encoder/accel is pinned to version 2"
    assert "pin --off" in answers[1].hint
    assert versions_of(live) == {**all_at(2), "head/har": 1}
    assert live.folder.state.pinned == {}
    for ask in asks:
        ask.withdraw()
    assert list(folder.iterdir()) == []


def test_an_order_that_makes_no_sense_is_answered_and_one_from_before_the_start_is_dropped(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    folder = live.folder.path / ORDERS
    for name, text in (("1.ask", "nonsense"), ("2.ask", '{"word": "explode", "blocks": []}'), ("3.ask", "x" * 20_000)):
        (folder / name).write_text(text)
    assert live.take_orders() is False
    assert sorted(path.name for path in folder.iterdir()) == ["1.answer", "2.answer", "3.answer"]
    old = Ask(folder, Order("rollback"))
    live_model(tmp_path, boot=2)
    assert old.answer() is None
    assert list(folder.iterdir()) == []


# ---- a stream


@pytest.mark.timeout(60)
def test_exchanges_in_the_middle_of_a_stream_lose_and_double_no_window_and_no_prediction_mixes_versions(
    tmp_path: Path,
) -> None:
    batch = windows(24, seed=3)
    live = at(tmp_path, 1)
    generations = {1: running(live)}
    predicted: list[tuple[int, int, dict[str, int], Any]] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def predict_stream() -> None:
        number = 0
        try:
            while not done.is_set() or number % len(batch):
                row = number % len(batch)
                one = batch.take(np.array([row]))
                generation = running(live)
                predicted.append((number, generation.number, generation.shown(), outputs(generation, one)[0]))
                number += 1
        except BaseException as error:  # outermost: told by the test
            failed.append(error)

    stream = threading.Thread(target=predict_stream)
    stream.start()
    try:
        taken = 0
        for version in range(2, 14):
            bad = version % 3 == 0
            held = {**held_at(version), HEAD: spoiled(HEAD, version, np.nan)} if bad else held_at(version, ACCEL, HEAD)
            before = len(predicted)
            swap = live.offer(held_at(version - 1) | {HEAD: held[HEAD]} if bad else held, windows=STORED)
            taken += swap.taken
            generations[running(live).number] = running(live)
            if version % 5 == 0:
                live.rollback(reason="in the stream")
                generations[running(live).number] = running(live)
            until = time.monotonic() + 20.0
            while len(predicted) < before + 3 and stream.is_alive() and time.monotonic() < until:
                done.wait(0.001)  # let some windows pass between two exchanges
    finally:
        done.set()
        stream.join(30.0)
    assert failed == []
    assert taken >= 6
    assert len(live.folder.state.refused) >= 4
    assert [number for number, *_ in predicted] == list(range(len(predicted))), "each window once, in order"
    numbers = [generation for _, generation, *_ in predicted]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) >= 6, "windows fell between the exchanges"
    for number, generation, shown, found in predicted:
        assert shown == generations[generation].shown()
        expected = outputs(generations[generation], batch.take(np.array([number % len(batch)])))[0]
        np.testing.assert_array_equal(found, expected)


def test_decoding_is_what_the_codec_of_the_federation_says() -> None:
    np.testing.assert_array_equal(
        decode(HEAD, held_at(1)[HEAD].data)["layers.0.weight"], tensors_of(HEAD.block, 1)["layers.0.weight"]
    )
