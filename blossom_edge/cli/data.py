"""`blossom-edge data`: recordings and data sets of real people to try the product with. Only `fetch` uses a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError

HERE = "blossom_edge.cli.data"

data = LazyGroup(
    "data",
    help="Recordings and data sets to try the product with.",
    targets={
        "sample": (f"{HERE}:sample", "Write the recordings of ten people, one folder each."),
        "list": (f"{HERE}:list_command", "List the known data sets and what is here of them."),
        "fetch": ("blossom_edge.cli.data_fetch:fetch", "Fetch a known data set from its home."),
    },
)

data_folder_option = click.option(
    "--data-folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of data sets [default: $XDG_DATA_HOME/blossom-edge/datasets].",
)


def sets_folder(given: Path | None) -> Path:
    """The folder given, else `$XDG_DATA_HOME/blossom-edge/datasets` (`~/.local/share/blossom-edge/datasets`)."""
    if given is not None:
        return given.expanduser()
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "blossom-edge" / "datasets"


@command("sample", example="blossom-edge data sample people/\nblossom-edge join --profile rpi4-gyro --replay people/3")
@click.argument("folder")
def sample(out: Output, folder: str) -> None:
    """Write smart-watch recordings of ten people to FOLDER, for join --replay.

    Accelerometer and gyroscope at 50 Hz, seven exercises. They come with the package seglearn (BSD-3 licence).
    """
    from blossom_edge.simulation.watch import write_people

    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ConfigError("usage", f"{folder} is a file, expected a folder", hint="name a new folder")
    people = write_people(path)
    out.line(f"wrote the recordings of {len(people)} people to {folder}")
    out.note(f"try: blossom-edge join --profile rpi4-gyro --replay {path / '3'}")


@command("list", has_json=True, example="blossom-edge data list\nblossom-edge data list --data-folder sets/")
@data_folder_option
def list_command(out: Output, data_folder: Path | None) -> None:
    """List the data sets that readers know, and what is here of them."""
    from blossom_edge.datasets.obtaining import place
    from blossom_edge.datasets.sources import SOURCES

    folder = sets_folder(data_folder)
    found: list[dict[str, Any]] = []
    for source in SOURCES.values():
        path = place(source, folder)
        part = folder / f"{source.name}{source.suffix}.part"
        has_part = part.is_file()
        found.append(
            {
                "name": source.name,
                "title": source.title,
                "homepage": source.homepage,
                "licence": source.licence,
                "bytes": source.size or None,
                "fetchable": bool(source.url),
                "source": f"{source.name}:{path}" if path.is_dir() else None,
                "part_bytes": part.stat().st_size if has_part else None,
            }
        )
    out.json({"folder": str(folder), "datasets": found})
    rows = [(f["name"], f["title"], format_bytes(f["bytes"]) if f["bytes"] else "-", _here(f)) for f in found]
    out.table(rows, ["name", "data set", "to fetch", "here"])
    out.line()
    out.line(f"folder: {folder}")
    for entry in found:
        if entry["source"]:
            out.line(f"{entry['name']}: read it as {entry['source']}")


def _here(entry: dict[str, Any]) -> str:
    if entry["source"]:
        return "yes"
    if entry["part_bytes"] is not None:
        return f"{format_bytes(entry['part_bytes'])} of it"
    return "no" if entry["fetchable"] else "no, by hand"
