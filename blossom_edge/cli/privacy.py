"""`blossom-edge privacy`: what leaves this device and what stays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.cli.status import id_option, read_status
from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import BlossomError, ConfigError

if TYPE_CHECKING:
    from blossom_edge.client.privacy import Privacy
    from blossom_edge.federation.schema import Federation


@command(
    "privacy",
    has_json=True,
    example="blossom-edge privacy\nblossom-edge privacy --profile jetson-imu --federation har",
)
@click.option("--profile", "name", metavar="NAME", help="Profile or a path [default: the device that joined last].")
@click.option("--federation", "federation_name", metavar="NAME", help="Preset or file [default: the last joined].")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Serve this task only.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the profile.")
@click.option("--publish", is_flag=True, help="As it is with --publish: predictions leave the device.")
@id_option
@data_dir_option
def privacy(
    out: Output,
    name: str | None,
    federation_name: str | None,
    tasks: tuple[str, ...],
    sets: tuple[str, ...],
    publish: bool,
    device: str | None,
    data_dir: Path | None,
) -> None:
    """Show everything that leaves a device in this federation, who can see it, and what stays."""
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.client.fit import check_fit
    from blossom_edge.client.privacy import privacy_of

    folder = edge_folder(data_dir)
    if name is None:
        joined = _joined(folder, device)
        federation = _federation(federation_name, folder, joined["device"])
        profile_id, modalities, role = joined["profile"], tuple(joined["modalities"]), joined.get("role", "train")
        publish = publish or bool(joined.get("publishes"))
        tasks = tasks or tuple(joined.get("tasks", ()))
    else:
        profile = profile_of(name, sets)
        federation = _federation(federation_name, folder, device or "*")
        profile_id, modalities, role = profile.id, check_fit(profile, federation), profile.compute.role
    found = privacy_of(federation, modalities, tasks, role=role, publishes=publish)
    leaves = [asdict(leaving) for leaving in found.leaves]
    out.json(
        {
            "federation": federation.name,
            "profile": profile_id,
            "role": role,
            "leaves": leaves,
            "stays": list(found.stays),
        }
    )
    print_privacy(out, found)


def print_privacy(out: Output, found: Privacy) -> None:
    """Print the table, as `join` does once."""
    rows = [(leaving.kind, leaving.what, leaving.seen_by, leaving.turn_off) for leaving in found.leaves]
    out.table(rows, ["leaves", "what", "who can see it", "how to keep it home"])
    out.line()
    out.line("stays on this device:")
    for text in found.stays:
        out.line(f"  {text}")


def _joined(folder: Path, device: str | None) -> dict[str, Any]:
    """What the device that joined from this folder wrote of itself."""
    try:
        return read_status(folder, device)
    except BlossomError as error:
        raise ConfigError(
            "usage", str(error), hint="name a profile with --profile, e.g. jetson-imu, or the folder with --data-dir"
        ) from error


def _federation(name: str | None, folder: Path, device: str) -> Federation:
    from blossom_edge.federation.load import load_federation
    from blossom_edge.federation.schema import Federation

    if name is not None:
        return load_federation(name)
    files = sorted(folder.glob(f"devices/{device}/*/federation.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise ConfigError(
            "usage", "no federation was joined from here yet", hint="name one with --federation, e.g. har"
        )
    import json

    return Federation.from_dict(json.loads(files[-1].read_text("utf-8")), source=str(files[-1]))
