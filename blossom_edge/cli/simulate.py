"""`blossom-edge simulate`: a federation of many simulated devices, in this process and in virtual time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from blossom_edge.cli.joining import label_count
from blossom_edge.console.output import Output, format_bytes, format_seconds
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from blossom_edge.simulation.simulate import Simulation

SHOWN_MEASURES = 4
"""Columns of scores that fit beside the bytes."""


@command(
    "simulate",
    has_json=True,
    example="blossom-edge simulate --federation har --devices 20 --rounds 10\n"
    "blossom-edge simulate --federation two-tasks --devices 8 --rounds 3 --json",
)
@click.option("--federation", "name", metavar="NAME|FILE", default="har", show_default=True, help="What to learn.")
@click.option("--devices", type=click.IntRange(1, 1000), default=8, show_default=True, help="How many, mixed profiles.")
@click.option("--rounds", type=click.IntRange(1, 10_000), default=5, show_default=True, help="How many.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    help="Of everything; equal seeds, equal bytes.",
)
@click.option(
    "--labels-per-class",
    callback=label_count,
    default="4",
    show_default=True,
    metavar="N|all",
    help="So few labelled windows has each device.",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the federation.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep what gateway and devices wrote here."
)
def simulate(
    out: Output,
    name: str,
    devices: int,
    rounds: int,
    seed: int,
    labels_per_class: int | None,
    sets: tuple[str, ...],
    data_dir: Path | None,
) -> None:
    """Run a federation of many devices with simulated sensors, in one process and as fast as it goes.

    Gateway, devices and messages are the real ones; only the network and the clock are simulated, and the sensors.
    """
    from time import monotonic

    from blossom_edge.federation.load import load_federation
    from blossom_edge.simulation.simulate import simulate as run_simulation
    from blossom_edge.simulation.simulate import simulation_sets

    federation = load_federation(name, sets=(*simulation_sets(devices=devices, rounds=rounds, seed=seed), *sets))
    total = federation.schedule.stop_rounds
    began = monotonic()

    def tell(number: int) -> None:
        out.progress(number, total, f"rounds, {format_seconds(monotonic() - began)}")

    with ExitStack() as stack:
        folder = _empty(data_dir) if data_dir is not None else Path(stack.enter_context(TemporaryDirectory()))
        out.progress(0, total, f"rounds, {devices} devices")
        found = run_simulation(federation, devices, folder, seed=seed, labels_per_class=labels_per_class, on_round=tell)
    out.json(found.to_json())
    _show(out, found)
    out.note(f"took {format_seconds(monotonic() - began)}, {format_seconds(found.virtual_s)} in the simulation")
    if data_dir is not None:
        out.note(f"what gateway and devices keep is in {data_dir}")


def _empty(folder: Path) -> Path:
    folder = folder.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("usage", f"{folder} is not an empty folder", hint="a simulation starts in an empty one")
    return folder


def _show(out: Output, found: Simulation) -> None:
    measures = sorted(found.start_score, key=lambda name: (name.endswith(".loss"), name))[:SHOWN_MEASURES]
    start: list[object] = [0, *(found.start_score[name] for name in measures), "-", "-"]
    rows = [
        [
            one.round,
            *(one.score.get(name) for name in measures),
            format_bytes(one.bytes_up),
            format_bytes(one.bytes_down),
        ]
        for one in found.rounds
    ]
    out.line(f"{found.federation}: {len(found.devices)} devices, seed {found.seed}; scores are means over own holdouts")
    out.table([start, *rows], ["round", *measures, "sent each", "received each"])
    out.line()
    kinds = sorted({(one.profile, one.modalities) for one in found.devices})
    kind_rows = []
    for profile, modalities in kinds:
        same = [one for one in found.devices if (one.profile, one.modalities) == (profile, modalities)]
        up = sum(one.bytes_up_per_round for one in same) / len(same)
        down = sum(one.bytes_down_per_round for one in same) / len(same)
        kind_rows.append((profile, len(same), " + ".join(modalities), format_bytes(up), format_bytes(down)))
    out.table(kind_rows, ["profile", "devices", "modalities", "sent per round", "received"])
    out.line()
    for block, (number, sha256) in found.versions.items():
        out.line(f"{block} version {number}, sha256 {sha256[:16]}")
    sent = sum(one.private_blocks_sent for one in found.devices)
    out.line(f"ended: {found.stop_reason}; messages that carried a private block: {sent or 'none'}")
    for text in found.warnings:
        out.warn(text)
