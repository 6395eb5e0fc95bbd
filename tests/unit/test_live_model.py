"""The exchange of a running model, on real sessions: what is taken, what is refused, what a restart finds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import (
    ACCEL,
    FEDERATION,
    HEAD,
    KEYS,
    STORED,
    all_at,
    at,
    decode,
    held_at,
    live_model,
    outputs,
    own_head,
    received,
    spoiled,
    tensors_of,
    versions_of,
    windows,
)

from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.durable import atomic_write
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.canary import CanaryWindows
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import Received
from blossom_edge.inference.model_folder import block_file
from blossom_edge.inference.model_state import ModelState
from blossom_edge.inference.skeleton_set import SkeletonSet

FEW = windows(3, seed=7)


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


def test_a_block_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    data = held_at(2, ACCEL)[ACCEL].data[:-4]
    swap = live.offer({ACCEL: Received(2, hashlib.sha256(data).hexdigest(), data)}, windows=STORED)
    assert (swap.taken, versions_of(live)) == (False, all_at(1))
    assert "bytes" in swap.reason
    assert [(r.key, r.used.version) for r in live.folder.state.refused] == [(ACCEL, 2)]


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


def test_a_device_without_a_window_still_finds_outputs_that_are_not_finite(tmp_path: Path) -> None:
    live, nothing = live_model(tmp_path), CanaryWindows.of(windows(0))
    huge = {name: np.full_like(values, 3e38) for name, values in tensors_of(HEAD.block, 2).items()}
    swap = live.offer({**held_at(1), HEAD: received(HEAD.block, 2, huge)}, windows=nothing)
    assert (swap.taken, swap.reason) == (False, "har: outputs are not finite on 1 of 1 windows")
    assert live.offer(held_at(3), windows=nothing).taken


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


@pytest.mark.parametrize("fails", ["tensors", "own-head", "model"])
def test_a_disk_that_refuses_a_write_leaves_the_model_in_use_in_memory_and_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    live = at(tmp_path, 1)
    before, state = live.current, live.folder.state
    where = "blossom_edge.inference.model_folder.atomic_write"

    def full(path: Path, data: bytes, *, name: str) -> None:
        if name == fails:
            raise StorageError("disk-failed", "No space left on device")
        atomic_write(path, data, name=name)

    monkeypatch.setattr(where, full)
    with pytest.raises(StorageError, match="No space left"):
        live.offer(held_at(2), windows=STORED, make_heads=lambda model, heads: {"har": own_head()})
    assert (live.current, live.previous, live.folder.state) == (before, None, state)
    again = live_model(tmp_path, boot=2)
    assert (versions_of(again), again.folder.damage) == (all_at(1), [])
    monkeypatch.setattr(where, atomic_write)
    assert live.offer(held_at(2), windows=STORED).taken, "once there is space, the same version is taken"


def test_model_json_is_written_before_the_exchange_and_after_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = at(tmp_path, 1)
    before, seen = live.current, []
    write = live.folder.write

    def look_first(state: ModelState) -> None:
        files = all(block_file(tmp_path, used).exists() for used in state.versions.values())
        seen.append((live.current is before, files))
        write(state)

    monkeypatch.setattr(live.folder, "write", look_first)
    assert live.offer(held_at(2), windows=STORED).taken
    assert seen == [(True, True)]


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


def test_decoding_is_what_the_codec_of_the_federation_says() -> None:
    np.testing.assert_array_equal(
        decode(HEAD, held_at(1)[HEAD].data)["layers.0.weight"], tensors_of(HEAD.block, 1)["layers.0.weight"]
    )
