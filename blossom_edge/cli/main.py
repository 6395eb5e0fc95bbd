"""The program `blossom-edge`. Knows its commands as text alone, so that --help loads none of them."""

from __future__ import annotations

import sys

from blossom_edge import __version__
from blossom_edge.console.program import LazyGroup, run

program = LazyGroup(
    "blossom-edge",
    help="Learn together with devices that do not carry the same sensors; raw signals and private blocks stay here.",
    version=__version__,
    targets={
        "demo": ("blossom_edge.cli.demo:demo", "Run a whole federation of six devices on this machine."),
        "join": ("blossom_edge.cli.join:join", "Take part in a federation with this device."),
        "infer": ("blossom_edge.cli.infer:infer", "Predict each window, alone or as a member of a federation."),
        "label": ("blossom_edge.cli.label:label", "Tell a running join what is going on, so that it can learn."),
        "status": ("blossom_edge.cli.status:status", "Show the last round of this device and what is awaited."),
        "why": ("blossom_edge.cli.status:why", "Explain what was refused or held, and the next step."),
        "privacy": ("blossom_edge.cli.privacy:privacy", "Show what leaves this device and what stays."),
        "simulate": ("blossom_edge.cli.simulate:simulate", "Run many devices in this process on a virtual clock."),
        "experiment": ("blossom_edge.cli.experiment:experiment", "Compare ways of learning on recorded data."),
        "doctor": ("blossom_edge.cli.doctor:doctor", "Prove that this board can do what its profile says."),
        "sensors": ("blossom_edge.cli.sensors:sensors", "Find, watch and calibrate the sensors of this board."),
        "blocks": ("blossom_edge.cli.blocks:blocks", "List, show, roll back and pin the model blocks of this device."),
        "export": ("blossom_edge.cli.export:export", "Export blocks as ONNX: skeletons, one file, or a bundle."),
        "profiles": ("blossom_edge.cli.profiles:profiles", "List, show and validate profiles of boards."),
        "data": ("blossom_edge.cli.data:data", "Recordings and data sets: samples, list, fetch."),
        "version": ("blossom_edge.cli.version:version", "Show the versions that matter for a report."),
    },
)


def main() -> None:
    """Entry point of `blossom-edge`."""
    sys.exit(run(program))


if __name__ == "__main__":
    main()
