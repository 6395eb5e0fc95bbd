"""Opens the data folder of a gateway and brings the round machine to where its ledger says it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregator.ledger import Ledger
from aggregator.round_machine import RoundMachine
from aggregator.round_state import RoundState
from aggregator.rounds import Version
from aggregator.spool import Spool
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.durable import atomic_write, make_folder
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation

FEDERATION_FILE = "federation.json"
KEY_FILE = "gateway.key"


@dataclass(frozen=True, slots=True)
class Truth:
    """The durable state of a gateway, open and checked. `boot` counts its starts."""

    folder: Path
    ledger: Ledger
    updates: Spool
    versions: Spool
    machine: RoundMachine
    key: SigningKey
    boot: int


def open_truth(folder: Path, federation: Federation) -> Truth:
    """Open or make the data folder of `federation`; the caller holds its lock.

    Raises:
        ConfigError: `federation-changed`: the folder is another federation's.
        StorageError: what is there is damaged.
    """
    make_folder(folder)
    ledger = Ledger.open(folder)
    versions = Spool(folder / "versions")
    genesis = ledger.records[0] if ledger.seq else None
    if genesis is not None and genesis["digest"] != federation.digest:
        ledger.close()
        raise ConfigError(
            "federation-changed",
            f"{folder} holds federation {genesis['federation']} ({genesis['digest'][:12]}), "
            f"not {federation.name} ({federation.digest[:12]})",
            hint="give another --data-dir, or the federation file it was started with",
        )
    key = load_key(folder / KEY_FILE)
    if genesis is None:
        text = json.dumps(federation.to_dict(), indent=1, sort_keys=True).encode()
        atomic_write(folder / FEDERATION_FILE, text, name="federation")
        ledger.append(
            {
                "type": "genesis",
                "federation": federation.name,
                "digest": federation.digest,
                "epoch": 1,
                "key": key.public_hex,
            }
        )
    machine = make_machine(federation, versions, epoch=int(ledger.records[0]["epoch"]))
    for record in ledger.records:
        machine.state.apply(record)
    try:
        _check_states(machine.state, versions)
    except StorageError:
        ledger.close()
        raise
    boot = 1 + sum(1 for record in ledger.records if record["type"] == "start")
    ledger.append({"type": "start", "boot": boot})
    return Truth(folder, ledger, Spool(folder / "spool"), versions, machine, key, boot)


def kept_federation(folder: Path) -> Federation | None:
    """The federation that a data folder has fixed; None when it has none yet."""
    kept = folder / FEDERATION_FILE
    if not kept.exists():
        return None
    return Federation.from_dict(json.loads(kept.read_text("utf-8")), source=str(kept))


def make_machine(federation: Federation, versions: Spool, *, epoch: int) -> RoundMachine:
    """A round machine at round 0, its versions 0 made and kept on demand."""
    up, down = make_codec(federation.codec.up), make_codec(federation.codec.down)

    def initial_version(key: BlockKey) -> Version:
        spec = federation.spec[key.block]
        values = initial_block(spec, federation.digest, federation.seed)
        sha256 = versions.put(make_codec("float32").encode(values, spec))
        return Version(0, sha256, hashlib.sha256(down.encode(values, spec)).hexdigest())

    return RoundMachine(
        federation,
        epoch=epoch,
        initial_version=initial_version,
        encoded_size=lambda key: up.encoded_size(federation.spec[key.block]),
    )


def kept_hashes(records: Sequence[Mapping[str, Any]], state: RoundState, rounds: int) -> set[str]:
    """Hashes of the versions in force with their optimiser states, and of all of the last `rounds` rounds."""
    keep = {sha256 for version in state.versions.values() for sha256 in (version.sha256, version.state_sha256)}
    for record in reversed(records):
        if record.get("round", state.round) <= state.round - rounds:
            break
        if record["type"] == "accept":
            keep.add(record["sha256"])
        elif record["type"] == "commit":
            for block in record["blocks"].values():
                keep.update((block["sha256"], block.get("state_sha256", "")))
    return keep - {""}


def _check_states(state: RoundState, versions: Spool) -> None:
    """What server optimisers remember is read when the next round ends; damage is said now, before devices train."""
    for version in state.versions.values():
        if version.state_sha256:
            versions.get(version.state_sha256)


def load_key(path: Path) -> SigningKey:
    """The signing key in `path`, made at the first start (0600).

    Raises:
        StorageError: `file-damaged`.
    """
    if path.exists():
        try:
            return SigningKey.from_bytes(path.read_bytes())
        except ValueError as error:
            hint = "put it back from a backup: devices trust this key and no other"
            raise StorageError("file-damaged", f"{path} is no key: {error}", hint=hint) from None
    key = SigningKey.generate()
    atomic_write(path, key.to_bytes(), name="key")
    return key
