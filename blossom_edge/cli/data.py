"""`blossom-edge data`: recordings of real people to try the product with. Downloads nothing."""

from __future__ import annotations

from pathlib import Path

import click

from blossom_edge.console.output import Output
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError

data = LazyGroup(
    "data",
    help="Recordings to try the product with.",
    targets={"sample": ("blossom_edge.cli.data:sample", "Write the recordings of ten people, one folder each.")},
)


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
