"""The program `blossom-aggregator`. Knows its commands as text alone, so that --help loads none of them."""

from __future__ import annotations

import sys

from blossom_edge import __version__
from blossom_edge.console.program import LazyGroup, run

program = LazyGroup(
    "blossom-aggregator",
    help="The gateway of a federation: averages each block over the devices that own it, and keeps the record.",
    version=__version__,
    targets={
        "serve": ("aggregator.cli.serve:serve", "Run the gateway: broker and aggregator."),
        "status": ("aggregator.cli.status:status", "Show the round, the devices and the blocks."),
        "why": ("aggregator.cli.status:why", "Explain what a device or a block waits for or was refused."),
        "federations": ("aggregator.cli.federations:federations", "List, show and validate federation files."),
        "plan": ("aggregator.cli.plan:plan", "Show who would train which block, and what a round costs."),
        "pause": ("aggregator.cli.control:pause", "Open no further round."),
        "resume": ("aggregator.cli.control:resume", "Go on after a pause."),
        "finish": ("aggregator.cli.control:finish", "End the federation after the open round."),
        "devices": ("aggregator.cli.control:devices", "Forget a device's key, so that its id may come anew."),
    },
)


def main() -> None:
    """Entry point of `blossom-aggregator`."""
    sys.exit(run(program))
