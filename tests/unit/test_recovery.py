"""What a gateway finds again in its data folder, what it keeps of it, and what it says when it is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support.learning import tiny
from support.machine import ACCEL
from support.stage import ACCEL as ONE
from support.stage import Stage

from aggregator.recovery import FEDERATION_FILE, KEY_FILE, kept_hashes, load_key, open_truth
from aggregator.rounds import Running
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.federation.initial import initial_block


def run_of(folder: Path, *sets: str) -> Stage:
    """A federation of two devices and three rounds, ended."""
    stage = Stage(folder, tiny(*sets), [("a", ONE), ("b", ONE)])
    stage.run()
    stage.close()
    return stage


def test_a_fresh_folder_gets_a_key_the_federation_and_a_genesis_record(tmp_path: Path) -> None:
    truth = open_truth(tmp_path / "new", tiny())
    genesis, start = truth.ledger.records
    assert (genesis["type"], genesis["digest"], genesis["epoch"]) == ("genesis", tiny().digest, 1)
    assert genesis["key"] == truth.key.public_hex
    assert (start["type"], start["boot"], truth.boot) == ("start", 1, 1)
    assert (tmp_path / "new" / KEY_FILE).stat().st_mode & 0o077 == 0
    assert (tmp_path / "new" / FEDERATION_FILE).exists()
    assert truth.machine.state.round == 0
    truth.ledger.close()


def test_version_0_is_made_by_the_gateway_itself_and_lies_on_its_disk(tmp_path: Path) -> None:
    federation = tiny("codec.down=float16")
    truth = open_truth(tmp_path, federation)
    version = truth.machine.state.version(ACCEL)
    spec = federation.spec[ACCEL.block]
    values = initial_block(spec, federation.digest, federation.seed)
    found = make_codec("float32").decode(truth.versions.get(version.sha256), spec)
    assert all(np.array_equal(found[n], v) for n, v in values.items())
    assert version.cast_sha256 == hashlib.sha256(make_codec("float16").encode(values, spec)).hexdigest()
    truth.ledger.close()


def test_a_restart_finds_rounds_versions_members_and_the_end_again(tmp_path: Path) -> None:
    before = run_of(tmp_path).state
    truth = open_truth(tmp_path / "gateway", tiny())
    after = truth.machine.state
    assert (after.round, after.running, after.stop_reason) == (3, Running.FINISHED, "3 rounds")
    assert after.version(ACCEL) == before.version(ACCEL)
    assert sorted(after.members) == ["a", "b"]
    assert after.members["a"].key == before.members["a"].key
    assert not any(m.online for m in after.members.values()), "who is here is not written down"
    assert after.history == before.history
    assert after.scores == before.scores
    assert truth.boot == 2
    truth.ledger.close()


@pytest.mark.parametrize("num_bytes", [1, 30, 200])
def test_a_torn_end_of_the_ledger_is_cut_and_the_federation_goes_on(tmp_path: Path, num_bytes: int) -> None:
    run_of(tmp_path)
    path = tmp_path / "gateway" / "ledger"
    path.write_bytes(path.read_bytes()[:-num_bytes])
    truth = open_truth(tmp_path / "gateway", tiny())
    assert truth.ledger.cut_bytes > 0
    assert truth.machine.state.phase.value == "frozen", "the last commit was torn: it is made again"
    truth.ledger.close()


def test_damage_before_valid_records_stops_the_gateway_and_nothing_is_changed(tmp_path: Path) -> None:
    run_of(tmp_path)
    path = tmp_path / "gateway" / "ledger"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StorageError, match="ledger") as caught:
        open_truth(tmp_path / "gateway", tiny())
    assert caught.value.error_id == "ledger-damaged"
    assert path.read_bytes() == data


def test_the_folder_of_another_federation_is_refused_with_both_names(tmp_path: Path) -> None:
    run_of(tmp_path)
    other = tiny("seed=1")
    with pytest.raises(ConfigError) as caught:
        open_truth(tmp_path / "gateway", other)
    assert caught.value.error_id == "federation-changed"
    assert tiny().digest[:12] in str(caught.value)
    assert other.digest[:12] in str(caught.value)


def test_a_lost_version_is_named_when_it_is_needed(tmp_path: Path) -> None:
    run_of(tmp_path)
    truth = open_truth(tmp_path / "gateway", tiny())
    sha = truth.machine.state.version(ACCEL).sha256
    (tmp_path / "gateway" / "versions" / sha).unlink()
    with pytest.raises(StorageError, match=sha) as caught:
        truth.versions.get(sha)
    assert caught.value.error_id == "file-damaged"
    truth.ledger.close()


def test_retention_keeps_the_versions_in_force_and_what_the_last_rounds_made(tmp_path: Path) -> None:
    stage = run_of(tmp_path, "schedule.stop_rounds=5")
    truth = open_truth(tmp_path / "gateway", stage.world.federation)
    accepts = [r for r in truth.ledger.records if r["type"] == "accept"]
    commits = [r for r in truth.ledger.records if r["type"] == "commit"]
    keep = kept_hashes(truth.ledger.records, truth.machine.state, 2)
    assert {r["sha256"] for r in accepts if r["round"] >= 4} <= keep
    assert not {r["sha256"] for r in accepts if r["round"] <= 3} & keep
    made = {r["round"]: r["blocks"]["encoder/accel"]["sha256"] for r in commits}
    assert keep & set(made.values()) == {made[4], made[5]}
    truth.ledger.close()


def test_an_open_round_keeps_its_updates_whatever_retention_says(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ONE), ("b", ONE)])
    stage.run(lambda: stage.state.round == 2 and len(stage.state.current.accepted if stage.state.current else ()) == 1)
    (sha,) = [a.sha256 for a in stage.state.current.accepted.values()]
    assert sha in kept_hashes(stage.world.truth.ledger.records, stage.state, 1)
    stage.close()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    first = load_key(tmp_path / "key")
    assert load_key(tmp_path / "key").public_hex == first.public_hex


def test_a_damaged_key_is_named_and_no_other_takes_its_place(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(StorageError, match="not 5") as caught:
        load_key(tmp_path / "key")
    assert caught.value.error_id == "file-damaged"
    assert (tmp_path / "key").read_bytes() == b"short"
