"""A frozen round's updates on disk become the next versions: by rule and optimiser, and the same after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.learning import tiny
from support.stage import ACCEL, BOTH, Stage

from aggregator.aggregation import SpooledRows, aggregate
from aggregator.recovery import kept_hashes, open_truth
from aggregator.rounds import Accepted, Aggregate, Outcome, Version, outcome_of, outcome_record
from aggregator.spool import Spool
from blossom_edge.codec import safetensors_file
from blossom_edge.codec.tensors import l2_norm, make_codec
from blossom_edge.core.blocks import BlockKey, BlockSpec, Tensors, TensorSpec
from blossom_edge.core.errors import StorageError
from blossom_edge.core.names import DeviceId
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation

KEY = BlockKey.parse("encoder/accel")
SCALE = BlockKey.parse("scale/accel")


def accepted(spool: Spool, spec: BlockSpec, key: BlockKey, device: str, delta: Tensors, codec: str) -> Accepted:
    sha256 = spool.put(make_codec(codec).encode(delta, spec))
    return Accepted(DeviceId(device), key, 1, sha256, codec, 0, 10, 1, l2_norm(delta))


def one_round(
    folder: Path, federation: Federation, fills: list[float], *, key: BlockKey = KEY
) -> tuple[Outcome, Tensors]:
    """A round in which each device moves every value of a block by its number; the outcome and what was added."""
    truth = open_truth(folder, federation)
    spec = federation.spec[key.block]
    codec = federation.codec.up
    members = tuple(
        accepted(
            truth.updates, spec, key, f"d{i}", {t.name: np.full(t.shape, x, np.float32) for t in spec.tensors}, codec
        )
        for i, x in enumerate(fills)
    )
    command = Aggregate(1, {key: members}, {})
    outcome = aggregate(command, truth.machine.state, updates=truth.updates, versions=truth.versions)[key]
    base = initial_block(spec, federation.digest, federation.seed)
    values = make_codec("float32").decode(truth.versions.get(outcome.version.sha256), spec)
    truth.ledger.close()
    return outcome, {name: values[name] - base[name] for name in values}


@pytest.mark.parametrize(
    ("rule", "quorum", "moved"),
    [
        ("mean", 1, (1 + 2 + 3 + 4 - 90) / 5),
        # norms are |x| times one number, their median is that of 3; clipped: 1, 2, 3, 3, -3
        ("norm-clip", 1, (1 + 2 + 3 + 3 - 3) / 5),
        ("median", 3, 2.0),
        ("trimmed-mean", 3, (1 + 2 + 3) / 3),
        ("multi-krum", 5, (1 + 2 + 3 + 4) / 4),
    ],
)
@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_each_rule_moves_the_block_as_worked_out(
    tmp_path: Path, rule: str, quorum: int, moved: float, codec: str
) -> None:
    federation = tiny(f"rounds.rule={rule}", f"rounds.quorum={quorum}", f"codec.up={codec}")
    outcome, added = one_round(tmp_path, federation, [1, 2, 3, 4, -90])
    assert outcome.version.number == 1
    assert outcome.members == ("d0", "d1", "d2", "d3", "d4")
    for values in added.values():
        np.testing.assert_allclose(values, moved, atol=2e-6)


def test_a_block_has_its_own_rule(tmp_path: Path) -> None:
    own = tiny("blocks.encoder/accel.rule=median", "blocks.encoder/accel.quorum=3")
    _, added = one_round(tmp_path / "own", own, [1, 2, 90])
    np.testing.assert_allclose(next(iter(added.values())), 2.0, atol=1e-6)
    gyro = BlockKey.parse("encoder/gyro")
    _, added = one_round(tmp_path / "other", own, [1, 2, 90], key=gyro)
    np.testing.assert_allclose(next(iter(added.values())), 31.0, atol=1e-5)


def test_a_block_with_too_few_updates_for_its_rule_is_held_and_says_so(tmp_path: Path) -> None:
    federation = tiny("rounds.rule=multi-krum", "rounds.quorum=5")
    outcome, added = one_round(tmp_path, federation, [1, 2, 3])
    assert outcome.held == "3 updates, multi-krum with trusted_share 0.8 needs 5"
    assert (outcome.version.number, outcome.members) == (0, ())
    assert not any(values.any() for values in added.values())
    median, _ = one_round(tmp_path / "median", tiny("rounds.rule=median", "rounds.quorum=3"), [1, 2])
    assert median.held == "2 updates, median needs 3"


def test_an_agreed_scale_is_no_step_of_an_optimiser_and_its_rule_is_the_median(tmp_path: Path) -> None:
    agreed = "modalities.accel.normalise=agreed"
    adam = tiny(agreed, "rounds.server_optimizer=adam", "rounds.server_lr=0.01")
    outcome, added = one_round(tmp_path / "adam", adam, [1, 2, 9], key=SCALE)
    assert outcome.version.state_sha256 == ""
    np.testing.assert_allclose(added["mean"], 4.0)
    _, added = one_round(tmp_path / "clip", tiny(agreed, "rounds.rule=norm-clip"), [1, 2, 9], key=SCALE)
    np.testing.assert_allclose(added["mean"], 4.0)
    _, added = one_round(
        tmp_path / "krum", tiny(agreed, "rounds.rule=multi-krum", "rounds.quorum=5"), [1, 2, 9], key=SCALE
    )
    np.testing.assert_allclose(added["mean"], 2.0)


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_a_stretch_is_read_across_tensors_as_the_whole_has_it(tmp_path: Path, codec: str) -> None:
    spec = BlockSpec(KEY.block, "mlp", (TensorSpec("bias", (3,)), TensorSpec("weight", (2, 4))))
    delta = {"bias": np.arange(3, dtype=np.float32), "weight": np.arange(3, 11, dtype=np.float32).reshape(2, 4)}
    spool = Spool(tmp_path)
    rows = SpooledRows.open(spec, (accepted(spool, spec, KEY, "a", delta, codec),), spool)
    assert (rows.num_rows, rows.num_values) == (1, 11)
    assert rows.read(0, 0, 11).tolist() == list(range(11))
    assert rows.read(0, 2, 6).tolist() == [2, 3, 4, 5]


def test_a_damaged_update_stops_a_robust_rule(tmp_path: Path) -> None:
    spec = BlockSpec(KEY.block, "mlp", (TensorSpec("bias", (3,)),))
    spool = Spool(tmp_path)
    member = accepted(spool, spec, KEY, "a", {"bias": np.ones(3, np.float32)}, "float32")
    path = tmp_path / member.sha256
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(StorageError, match="not those that its name says") as caught:
        SpooledRows.open(spec, (member,), spool)
    assert caught.value.error_id == "file-damaged"
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="ends 12 bytes before") as caught:
        spool.read(member.sha256, start=0, num_bytes=12)
    path.unlink()
    with pytest.raises(StorageError, match="cannot read"):
        spool.check(member.sha256)


# ---- what an optimiser remembers


OPTIMIZERS = {
    "avgm": ("rounds.server_optimizer=avgm",),
    "adam": ("rounds.server_optimizer=adam", "rounds.server_lr=0.1"),
    "yogi": ("rounds.server_optimizer=yogi", "rounds.server_lr=0.1"),
    "adagrad": ("rounds.server_optimizer=adagrad", "rounds.server_lr=0.1"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gateway_killed_between_rounds_makes_the_same_bits_as_one_that_was_not(tmp_path: Path, name: str) -> None:
    federation = tiny(*OPTIMIZERS[name])
    whole = Stage(tmp_path / "whole", federation, [("a", BOTH), ("b", ACCEL)])
    whole.run()
    broken = Stage(tmp_path / "broken", federation, [("a", BOTH), ("b", ACCEL)])
    for number in (2, 3):
        broken.until_round(number)
        broken.restart_gateway()
    broken.run()
    assert whole.state.version(KEY).number == 3
    assert whole.state.version(KEY).state_sha256
    assert broken.state.versions == whole.state.versions
    broken.close()
    whole.close()


def test_a_state_forgotten_would_show(tmp_path: Path) -> None:
    """The test above can fail: without the state the third version is another one."""
    stage = Stage(tmp_path, tiny(*OPTIMIZERS["avgm"]), [("a", BOTH), ("b", ACCEL)])
    stage.run()
    third = stage.state.version(KEY)
    members = tuple(
        Accepted(DeviceId(r["device"]), KEY, 3, r["sha256"], r["codec"], 2, r["num_samples"], 1, r["norm"])
        for r in stage.records("accept")
        if r["round"] == 3 and r["block"] == str(KEY)
    )
    second = outcome_of(stage.records("commit")[1]["blocks"][str(KEY)]).version
    truth = stage.world.truth
    command = Aggregate(3, {KEY: members}, {})
    made = {}
    for version in (second, Version(2, second.sha256, second.cast_sha256)):
        stage.state.versions[KEY] = version
        outcomes = aggregate(command, stage.state, updates=truth.updates, versions=truth.versions)
        made[version.state_sha256] = outcomes[KEY].version
    assert made[second.state_sha256] == third
    assert made[""].sha256 != third.sha256
    stage.close()


def test_a_held_block_keeps_what_its_optimiser_remembers(tmp_path: Path) -> None:
    version = Version(4, "a" * 64, "b" * 64, "c" * 64)
    held = Outcome(version, (), "nobody trained it")
    assert outcome_of(outcome_record(held)) == held
    plain = outcome_record(Outcome(Version(4, "a" * 64, "b" * 64), (DeviceId("a"),)))
    assert sorted(plain) == ["cast_sha256", "held", "members", "sha256", "version"], "as ledgers always had it"


def test_a_state_is_kept_as_long_as_its_version_and_holds_float64(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(*OPTIMIZERS["adam"]), [("a", BOTH), ("b", ACCEL)])
    stage.run()
    states = [r["blocks"][str(KEY)]["state_sha256"] for r in stage.records("commit")]
    truth = stage.world.truth
    keep = kept_hashes(truth.ledger.records, stage.state, 1)
    assert [sha256 in keep for sha256 in states] == [False, False, True]
    assert "" not in keep
    truth.versions.drop(keep)
    arrays, _ = safetensors_file.read(truth.versions.get(states[-1]))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float64)}
    stage.close()


def test_a_damaged_state_stops_the_gateway_at_its_start(tmp_path: Path) -> None:
    federation = tiny(*OPTIMIZERS["adam"])
    stage = Stage(tmp_path, federation, [("a", BOTH), ("b", ACCEL)])
    stage.until_round(3)
    path = tmp_path / "gateway" / "versions" / stage.state.version(KEY).state_sha256
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    stage.close()
    with pytest.raises(StorageError, match="not those that its name says") as caught:
        open_truth(tmp_path / "gateway", federation)
    assert caught.value.error_id == "file-damaged"
    assert "backup" in caught.value.hint
