"""What the gateway has accepted and committed, in order, each record chained to the one before. Never changes a record.

A record is canonical JSON (sorted keys, no spaces) with `type`, `seq` (1, 2, ...) and `prev`, the SHA-256 of the
record before it (64 zeros for the first). The chain shows any change inside; it cannot show a cut at the end, so
receipts and commit notices carry (seq, hash) and the devices are the witnesses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from blossom_edge.core.errors import StorageError
from blossom_edge.durable import AppendLog

NO_RECORD = "0" * 64
"""`prev` of the first record, and the head of an empty ledger."""


class Ledger:
    """The ledger of one gateway, in `folder/ledger`. One process at a time: hold the folder's lock.

    `cut_bytes` is the length of the damaged tail that was cut on opening; above 0 it is worth a line in the log.
    """

    def __init__(self, log: AppendLog, records: list[Mapping[str, Any]], head_hash: str) -> None:
        self.cut_bytes = log.cut_bytes
        self._log = log
        self._records = records
        self._head_hash = head_hash

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Open or make the ledger of `folder` and check the whole chain.

        Raises:
            StorageError: `ledger-damaged` (the file stays as it is) or `disk-failed`.
        """
        log = AppendLog.open(folder / "ledger", name="ledger")
        records: list[Mapping[str, Any]] = []
        head_hash = NO_RECORD
        for line in log.records:
            record = _parse(line)
            if record is None or record.get("seq") != len(records) + 1 or record.get("prev") != head_hash:
                log.close()
                raise StorageError(
                    "ledger-damaged",
                    f"{log.path}: record {len(records) + 1} does not continue the chain of the records before it",
                    hint="it was left as it is: put back a good copy from a backup, or start with an empty data folder",
                )
            records.append(record)
            head_hash = hashlib.sha256(line).hexdigest()
        log.records.clear()
        return cls(log, records, head_hash)

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """All records, oldest first, as they read from the file. Not to be changed."""
        return self._records

    @property
    def seq(self) -> int:
        """Number of the last record; 0 when there is none."""
        return len(self._records)

    @property
    def head_hash(self) -> str:
        """SHA-256 of the last record, as hex; 64 zeros when there is none."""
        return self._head_hash

    def append(self, record: Mapping[str, Any]) -> tuple[int, str]:
        """Add a record; when this returns its number and hash, it survives a power cut.

        Raises:
            StorageError: `disk-failed`; the ledger takes nothing more until it is opened anew.
            ValueError: no `type`, a key that the ledger sets itself, or NaN.
            TypeError: a value that JSON does not have.
        """
        if not isinstance(record.get("type"), str) or not {"seq", "prev"}.isdisjoint(record):
            raise ValueError(f"a record needs a type and no seq or prev of its own: {sorted(record)}")
        full = {**record, "seq": self.seq + 1, "prev": self._head_hash}
        line = json.dumps(full, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        self._log.append(line)
        self._head_hash = hashlib.sha256(line).hexdigest()
        # Read back, so that a record is the same before and after a restart (tuples are lists in both).
        self._records.append(MappingProxyType(json.loads(line)))
        return self.seq, self._head_hash

    def close(self) -> None:
        """Close the file; everything appended is durable already."""
        self._log.close()


def _parse(line: bytes) -> Mapping[str, Any] | None:
    """The record, or None when the bytes are no record of a ledger."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return MappingProxyType(record) if isinstance(record, dict) and isinstance(record.get("type"), str) else None
