"""`blossom-aggregator plan`: before a federation runs, who will train which block, what starves, what a round costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from aggregator.coverage import Coverage, Devices
    from blossom_edge.federation.schema import Federation


@command("plan", has_json=True, example="blossom-aggregator plan har jetson-imu=2 rpi4-accel=4 rpi4-gyro")
@click.argument("name")
@click.argument("devices", nargs=-1, required=True, metavar="DEVICES...")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key, as serve --set does.")
def plan(out: Output, name: str, devices: tuple[str, ...], sets: tuple[str, ...]) -> int:
    """Show who would train which block of the federation NAME, and what a round costs.

    DEVICES are PROFILE=COUNT, or modalities joined by + such as accel+gyro=3. Exit code 1 if a block would starve.
    """
    from aggregator.coverage import plan_coverage
    from blossom_edge.federation.load import load_federation

    federation = load_federation(name, sets=sets)
    found = plan_coverage(federation, [_devices(text, federation) for text in devices])
    out.json(
        {
            "federation": federation.name,
            "blocks": [{**asdict(b), "key": str(b.key), "spare": b.spare} for b in found.blocks],
            "devices": [asdict(cost) for cost in found.costs],
            "cast_bytes_per_round": found.cast_bytes,
            "received_bytes_per_round": found.received_bytes,
            "starving": [str(block.key) for block in found.starving],
        }
    )
    _show(out, federation, found)
    return 1 if found.starving else 0


def _show(out: Output, federation: Federation, found: Coverage) -> None:
    rows = [(str(b.key), b.visibility, b.owners, b.needed or "", b.problem or b.note) for b in found.blocks]
    out.table(rows, ["block", "visibility", "owners", "needs", "what follows"])
    out.line()
    costs = [
        (
            c.devices.name,
            c.devices.count,
            "+".join(c.devices.modalities),
            *map(format_bytes, (c.bytes_up, c.bytes_down)),
        )
        for c in found.costs
    ]
    out.table(costs, ["devices", "count", "modalities", "up per round", "down per round"])
    out.line()
    out.line(
        f"gateway, per round: {format_bytes(found.received_bytes)} come in, "
        f"{format_bytes(found.cast_bytes)} go out once for all"
    )
    count = sum(cost.devices.count for cost in found.costs)
    if count < federation.rounds.min_devices:
        out.warn(
            f"rounds.min_devices is {federation.rounds.min_devices}, there are {count} devices: the first round opens "
            f"{federation.rounds.start_after_s:g} s after the first device came"
        )
    for block in found.starving:
        out.warn(f"{block.key} starves: {block.problem}")


def _devices(text: str, federation: Federation) -> Devices:
    """Read `PROFILE=COUNT` or `MODALITY+MODALITY=COUNT`."""
    from aggregator.coverage import Devices
    from firmware_profiles.loading import ProfileError, load_profile

    name, equals, number = text.rpartition("=")
    if not equals:
        name, number = text, "1"
    if not name or not number.isdecimal() or not 1 <= int(number) <= 100_000:
        raise ConfigError("usage", f"devices {text!r}: expected NAME=COUNT with a count of 1 to 100000")
    parts = set(name.split("+"))
    if parts <= set(federation.modalities):
        return Devices(name, int(number), tuple(sorted(parts)))
    known = ", ".join(sorted(federation.modalities))
    try:
        profile = load_profile(name)
    except ProfileError as error:
        hint = f"blossom-edge profiles list shows the profiles; modalities of {federation.name}: {known}"
        raise ConfigError("usage", f"devices {text!r}: {error}", hint=hint) from None
    owned = tuple(sorted(set(profile.modalities) & set(federation.modalities)))
    if not owned:
        have = ", ".join(sorted(profile.modalities))
        raise ConfigError(
            "federation-mismatch", f"profile {profile.id} has {have}, {federation.name} learns from {known}"
        )
    return Devices(profile.id, int(number), owned)
