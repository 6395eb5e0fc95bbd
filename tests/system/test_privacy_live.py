"""P1 over a real broker: no value and no change of a private block is in anything that a device says, or in a log.

The private values of every round are read from the device's own disk, and every distinct run of 16 bytes of them is
searched in all that a subscriber at the broker hears, as float32 and as float16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from live import AGGREGATOR, BOTH, ONLY_GYRO, Ear, Place, call_json

from blossom_edge.client.actions import Checkpoint
from blossom_edge.client.store import Store, read_checkpoint
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, Tensors
from blossom_edge.core.errors import RemoteError
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.timeout(120)]

ROUNDS = 3
PACED = f"schedule={{every_s=1.0, stop_rounds={ROUNDS}}}"
"""Far enough apart that the private blocks of every round are seen on the disk."""
DEADLINE = "rounds.deadline_s=15.0"
PRIVATE_FIRST = "visibility=private-encoders"
"""Encoders are offered first, so that a private one is judged while the round is surely open."""
RUN = 16
Private = Mapping[BlockId, Tensors]
PATTERN = np.array([1.2345e-3, -7.6543e-4, 3.1415e-3, -9.8765e-4], dtype=np.float32)
"""The canary: small enough to leave the model as good as it is."""

WITHOUT_CHECK = """
import sys
import blossom_edge.client.updates as updates
updates.may_leave = lambda spec: True
from blossom_edge.cli.main import main
main()
"""
"""The device's program with its visibility check taken out."""


@pytest.mark.slow
@pytest.mark.parametrize("sets", [(), ("visibility=dual",)], ids=["private", "dual"])
def test_no_byte_of_a_private_block_is_heard_at_the_broker_or_stands_in_a_log(
    place: Place, sets: tuple[str, ...]
) -> None:
    ear, rounds = _run(place, *sets)
    needles = _needles_of_rounds(rounds)
    assert len(needles) > 200
    if sets:  # the private copies are trained, and their shared twins do leave
        assert {str(block) for block in rounds[-1][1]} == {
            *("gate/move", "own-fusion/move", "own-fusion/move.accel", "own-fusion/move.gyro", "own-head/move")
        }
        before, after = rounds[0][1], rounds[-1][1]
        for block in map(BlockId.parse, ("own-head/move", "own-fusion/move.accel")):
            assert any(not np.array_equal(values, before[block][name]) for name, values in after[block].items())
        assert {"head/move", "fusion/move.accel"} <= {r["block"] for r in place.records() if r["type"] == "accept"}
    spoken = [payload for topic, payload in ear.heard if "/up/" in topic]
    assert len(spoken) > 20
    assert _found(needles, [payload for _, payload in ear.heard]) == []
    assert _found(needles, [path.read_bytes() for path in _logs(place)]) == []
    assert _found(needles, [path.read_bytes() for path in place.gateway_folder.rglob("*") if path.is_file()]) == []


@pytest.mark.slow
def test_the_same_search_finds_the_update_of_a_shared_block(place: Place) -> None:
    ear, _ = _run(place)
    encoder = place.federation(PACED).spec[BlockId.parse("encoder/accel")]
    kept = sorted((place.gateway_folder / "spool").rglob("*"))
    deltas = []
    for path in (p for p in kept if p.is_file()):
        try:
            deltas.append(make_codec("float32").decode(path.read_bytes(), encoder))
        except RemoteError:
            continue  # the update of the other block, which has another size
    assert deltas
    needles = set().union(*(_needles(delta) for delta in deltas))
    assert len(_found(needles, [payload for topic, payload in ear.heard if "/up/both/" in topic])) > 100


@pytest.mark.slow
def test_without_the_devices_own_check_the_search_finds_private_bytes_and_the_gateway_refuses_them(
    place: Place,
) -> None:
    ear, rounds = _run(place, PRIVATE_FIRST, broken=True)
    needles = _needles_of_rounds(rounds)
    assert _found(needles, [payload for topic, payload in ear.heard if "/up/both/" in topic]), "nothing was found"
    said = call_json(AGGREGATOR, "status", "--data-dir", str(place.gateway_folder))
    assert said["refusals"]["policy"] == 2 * ROUNDS
    refused = [line for line in place.programs[0].err.splitlines() if "update-refused" in line]
    assert all("kind=policy" in line and "is private" in line for line in refused), refused
    assert _found(needles, [path.read_bytes() for path in place.gateway_folder.rglob("*") if path.is_file()]) == []
    accepted = {record["block"] for record in place.records() if record["type"] == "accept"}
    assert accepted
    assert not any(block.startswith("encoder/") for block in accepted)


def _run(place: Place, *sets: str, broken: bool = False) -> tuple[Ear, list[tuple[int, Private]]]:
    """A whole federation; all that was heard, and the private blocks of `both` round by round, the canary first."""
    federation = place.federation(PACED, DEADLINE, *sets)
    file, canary = _lay_canary(place, federation)
    gateway = place.serve("--until-finished", *(f"--set={s}" for s in (PACED, DEADLINE, *sets)))
    ear = Ear(place.port)
    rounds: list[tuple[int, Private]] = [(0, canary)]
    try:
        other = place.join("g", *ONLY_GYRO)
        if broken:
            common = ["join", "--id=both", "--data-dir", str(place.edge_folder), "--speed=0", *BOTH]
            device = place.run_script("broken", WITHOUT_CHECK, *common, "--gateway", f"127.0.0.1:{place.port}")
        else:
            device = place.join("both", *BOTH)

        def watched() -> bool:
            found = read_checkpoint(file.read_bytes())
            if found.round != rounds[-1][0]:
                rounds.append((found.round, found.private))
            return not device.running()

        place.wait_for(watched, "the device has come to the end", timeout_s=90)
        assert (device.wait(), other.wait(), gateway.wait()) == (0, 0, 0), device.err
    finally:
        ear.close()
    assert [number for number, _ in rounds] == list(range(ROUNDS + 1))
    return ear, rounds


def _lay_canary(place: Place, federation: Federation) -> tuple[Path, Private]:
    """Put private blocks with the pattern on the disk of the device `both`, before it ever joins."""
    private = {spec.id: _with_pattern(federation, spec.id) for spec in federation.spec.blocks if not spec.leaves_device}
    store = Store(place.edge_folder, "both")
    try:
        store.enter(federation)
        store.keep_checkpoint(Checkpoint(private=private))
        return store.place / "checkpoint.safetensors", private
    finally:
        store.close()


def _with_pattern(federation: Federation, block: BlockId) -> Tensors:
    """First values with the pattern in three of four places: what is left lets the block be trained."""
    tensors = dict(initial_block(federation.spec[block], federation.digest, federation.seed))
    for name, values in tensors.items():
        flat = values.copy().reshape(-1)
        if flat.size >= 2 * len(PATTERN):
            used = 3 * flat.size // 4 // len(PATTERN) * len(PATTERN)
            flat[:used] = np.tile(PATTERN, used // len(PATTERN))
        tensors[name] = flat.reshape(values.shape)
    return tensors


def _needles_of_rounds(rounds: list[tuple[int, Private]]) -> set[bytes]:
    """Runs of bytes of all private values, and of how each round changed them."""
    needles: set[bytes] = set()
    for index, (_, private) in enumerate(rounds):
        for block, tensors in private.items():
            needles |= _needles(tensors)
            if index:
                before = rounds[index - 1][1][block]
                needles |= _needles({name: values - before[name] for name, values in tensors.items()})
    return needles


def _needles(tensors: Tensors) -> set[bytes]:
    """Every run of 16 bytes, one after the other, that says something: four or eight numbers, none of them 0."""
    return set().union(*(set(_runs(values)) for values in tensors.values()))


def _runs(values: np.ndarray) -> Iterator[bytes]:
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    for kind in (np.float32, np.float16):
        numbers = flat.astype(kind)
        step = RUN // numbers.itemsize
        for first in range(0, len(numbers) - step + 1, step):
            run = numbers[first : first + step]
            if np.all(run != 0) and len(set(run.tolist())) > 2:
                yield run.tobytes()


def _found(needles: set[bytes], texts: list[bytes]) -> list[bytes]:
    """Those of the needles that stand anywhere in the texts."""
    everything = b"\n".join(texts)
    return [needle for needle in sorted(needles) if needle in everything]


def _logs(place: Place) -> list[Path]:
    return [path for path in place.folder.rglob("*") if path.suffix in (".err", ".out", ".log", ".json")]
