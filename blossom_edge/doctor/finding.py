"""What a check found, in one shape for the table, for JSON and for the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table. `fix` is the next step where it is not ok."""

    group: Literal["machine", "sensors", "gateway"]
    check: str
    status: Status
    detail: str
    fix: str = ""
