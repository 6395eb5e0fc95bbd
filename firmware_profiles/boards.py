"""Which profiles are for a board, by its device tree. Pure: what the board says of itself is handed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from firmware_profiles.schema import Profile

RAM_LEFT = 0.8
"""At least this part of a board's memory is seen by Linux; firmware and graphics keep the rest."""
_32_BIT = ("armv6l", "armv7l", "armv8l", "i386", "i686")


@dataclass(frozen=True, slots=True)
class Board:
    """What the machine says of itself.

    compatible: the strings of its device tree, the board's first; empty where there is none, as on a PC.
    model: for people, "" unknown. machine: as `uname -m` says. ram_mb: None unknown.
    """

    compatible: tuple[str, ...] = ()
    model: str = ""
    machine: str = ""
    ram_mb: int | None = None

    @property
    def title(self) -> str:
        """One line for people."""
        return self.model or (self.compatible[0] if self.compatible else f"{self.machine} machine without device tree")


@dataclass(frozen=True, slots=True)
class BoardFit:
    """A profile that can be used on a board. of_board: it is meant for this board, not for any. missing: what lacks."""

    profile: Profile
    of_board: bool
    missing: tuple[str, ...] = ()


def fitting(board: Board, profiles: Iterable[Profile]) -> list[BoardFit]:
    """Those of `profiles` that are for this board, before those that are for any machine.

    A board is named by its device tree; an architecture alone names the machines without one, PCs.
    """
    found: list[BoardFit] = []
    for profile in profiles:
        wants = profile.hardware
        pc = not wants.match and not board.compatible and wants.arch == board.machine
        of_board = pc or bool(set(wants.match) & set(board.compatible))
        if of_board or (not wants.match and wants.arch == "any"):
            found.append(BoardFit(profile, of_board, tuple(_lacks(board, profile))))
    return sorted(found, key=lambda fit: (not fit.of_board, fit.profile.id))


def _lacks(board: Board, profile: Profile) -> Iterable[str]:
    if board.machine in _32_BIT:
        yield f"a 64-bit system: this one is {board.machine}, there is no 32-bit onnxruntime and no 32-bit torch"
    if board.ram_mb is not None and board.ram_mb < RAM_LEFT * profile.hardware.ram_mb:
        yield f"memory: found {board.ram_mb} MB, the profile is for {profile.hardware.ram_mb} MB"
