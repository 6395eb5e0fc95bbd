"""`python -m blossom_edge.cli.run_on_fakes SPEC COMMAND...`: blossom-edge on a bus of fake I2C chips.

Chips behind `smbus2` live in the process that opens them, so a board's `join` builds its own. Started by `FakeBoard`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Build the I2C chips of the board that the first argument describes, and run the program with the others."""
    from blossom_edge.cli.main import main as program
    from blossom_edge.testing.boards import FakeBoard

    spec: dict[str, Any] = json.loads(sys.argv.pop(1))
    folder = Path(spec["folder"])
    with FakeBoard(spec["profile"], folder, only=spec["only"], sets=spec["sets"], chips_only=True) as board:
        board.activity = spec["activity"]
        program()


if __name__ == "__main__":
    main()
