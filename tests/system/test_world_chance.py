"""Links that lose and break at random, from a seed: the federation ends, and the ledger explains every version."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.learning import tiny
from support.stage import ACCEL, BOTH, GYRO, Stage, key

from aggregator.rounds import Phase, Running
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import Tensors
from blossom_edge.core.errors import BlossomError
from blossom_edge.federation.initial import initial_block

CAST = [("a", BOTH), ("b", ACCEL), ("c", GYRO), ("d", ACCEL), ("e", BOTH)]
SETS = ("rounds.min_devices=3", "schedule.stop_rounds=6", "rounds.deadline_s=60.0")


def check_every_version(stage: Stage) -> int:
    """Work out every version anew from the ledger's members and the spool; returns how many updates went into them."""
    exact, spec, truth = make_codec("float32"), stage.world.federation.spec, stage.world.truth
    accepts = {(r["round"], r["block"], r["device"]): r for r in stage.records("accept")}
    newest: dict[str, Tensors] = {}
    counted = 0
    for commit in stage.records("commit"):
        for block, body in commit["blocks"].items():
            block_spec = spec[key(block).block]
            federation = stage.world.federation
            base = newest.setdefault(block, initial_block(block_spec, federation.digest, federation.seed))
            found = exact.decode(truth.versions.get(body["sha256"]), block_spec)
            rows = [accepts[commit["round"], block, device] for device in body["members"]]
            deltas = [exact.decode(truth.updates.get(r["sha256"]), block_spec) for r in rows]
            weights = [r["num_samples"] for r in rows]
            for name, value in base.items():
                mean = sum(
                    (w * d[name].astype(np.float64) for w, d in zip(weights, deltas, strict=True)),
                    start=np.zeros(value.shape),
                ) / max(sum(weights), 1)
                assert np.allclose(found[name], value + mean, rtol=0, atol=1e-6)
            newest[block] = found
            counted += len(rows)
    return counted


@pytest.mark.parametrize("seed", range(6))
def test_a_federation_on_bad_links_ends_and_its_ledger_explains_every_version(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    stage = Stage(tmp_path, tiny(*SETS), CAST)
    broker = stage.world.broker
    for n, trainer in enumerate(stage.trainers.values()):
        trainer.num_samples = 5 + 4 * n
    broker.lose(lambda client, topic, payload: chance.random() < 0.15)
    for _ in range(40):
        stage.run_for(chance.uniform(0.2, 10.0))
        victim = chance.choice([*stage.trainers, "gateway"])
        what = chance.choice(["cut", "kill", "nothing"])
        running = {a.session.facts.device: a for a in stage.world.agents}
        if stage.state.running is Running.FINISHED:
            break
        if what == "cut":
            broker.cut(victim)
            stage.run_for(chance.uniform(0.0, 8.0))
            broker.restore(victim)
        elif what == "kill" and victim == "gateway":
            stage.restart_gateway()
        elif what == "kill" and running[victim].stopped is None:
            stage.kill(victim)
            stage.run_for(chance.uniform(0.0, 8.0))
            stage.join(victim)
    broker.lose(None)
    stage.run(lambda: stage.state.running is Running.FINISHED and stage.state.phase is Phase.WAITING)
    counts = Counter((r["round"], r["block"], r["device"]) for r in stage.records("accept"))
    assert set(counts.values()) <= {1}
    assert [r["round"] for r in stage.records("commit")] == list(range(1, 7))
    assert check_every_version(stage) > 10
    stage.close()


def test_the_check_above_notices_a_member_that_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, tiny(*SETS), CAST)
    stage.run()
    assert check_every_version(stage) == 6 * (4 + 3) - 3, "d and e came when the first round had opened"
    commits, records = stage.records("commit"), stage.records
    commits[2]["blocks"]["encoder/accel"]["members"].remove("b")
    monkeypatch.setattr(stage, "records", lambda kind: commits if kind == "commit" else records(kind))
    with pytest.raises(AssertionError):
        check_every_version(stage)
    stage.close()


def test_a_world_in_which_nothing_can_happen_says_so_instead_of_hanging(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tiny(), [("a", ACCEL)])
    stage.world.broker.cut("a")
    with pytest.raises(BlossomError, match="nothing can happen any more"):
        stage.run()
    stage.close()
