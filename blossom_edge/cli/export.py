"""`blossom-edge export`: blocks as ONNX: skeletons for a gateway, one file for any program, a bundle for a board."""

from __future__ import annotations

from pathlib import Path

import click

from blossom_edge.cli.options import data_dir_option
from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

_ONLY = {
    "--skeletons": ("sets", "everything"),
    "--merged": ("task", "device", "data_dir"),
    "--bundle": ("device", "data_dir", "profile", "shared_only"),
}
"""The options that belong to each kind of export; --federation goes with all."""
_FLAGS = {"sets": "--set", "everything": "--all", "device": "--id"}


@command(
    "export",
    has_json=True,
    example="blossom-edge export --federation my.toml --skeletons skeletons/\n"
    "blossom-edge export --merged har.onnx --task har\n"
    "blossom-edge export --bundle model.zip",
)
@click.option("--skeletons", type=click.Path(path_type=Path), metavar="FOLDER", help="Graphs of blocks, no weights.")
@click.option("--merged", type=click.Path(path_type=Path), metavar="FILE", help="One ONNX file of a task's model.")
@click.option(
    "--bundle", type=click.Path(path_type=Path), metavar="FILE", help="This device's model, to run elsewhere."
)
@click.option(
    "--federation",
    metavar="NAME|FILE",
    help="--skeletons: preset or file. Else: the federation that was joined [default: the last].",
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="--skeletons: change a key of the federation.")
@click.option("--all", "everything", is_flag=True, help="--skeletons: also those that come with this package.")
@click.option("--task", metavar="TASK", help="--merged: which task, if there are several.")
@click.option("--id", "device", metavar="ID", help="Which device, if several joined from this folder.")
@click.option("--profile", metavar="NAME|FILE", help="--bundle: what the device joined with, if it is not found.")
@click.option("--shared-only", is_flag=True, help="--bundle: leave private blocks and own heads out.")
@data_dir_option
def export(
    out: Output,
    skeletons: Path | None,
    merged: Path | None,
    bundle: Path | None,
    federation: str | None,
    sets: tuple[str, ...],
    everything: bool,
    task: str | None,
    device: str | None,
    data_dir: Path | None,
    profile: str | None,
    shared_only: bool,
) -> None:
    """Export blocks as ONNX: skeletons, one file, or a bundle.

    Skeletons are for the gateway of a federation whose blocks are your own, so that devices without torch can run
    them. A merged file and a bundle hold the model of a device that has joined, its private blocks too.
    """
    chosen = {"--skeletons": skeletons, "--merged": merged, "--bundle": bundle}
    given = [name for name, path in chosen.items() if path is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ConfigError("usage", f"found {found}, expected one of --skeletons, --merged and --bundle")
    options = {
        "sets": sets,
        "everything": everything,
        "task": task,
        "device": device,
        "data_dir": data_dir,
        "profile": profile,
        "shared_only": shared_only,
    }
    for name, value in options.items():
        if value and name not in _ONLY[given[0]]:
            where = " and ".join(kind for kind, names in _ONLY.items() if name in names)
            raise ConfigError(
                "usage", f"{_FLAGS.get(name) or '--' + name.replace('_', '-')} goes with {where}, not with {given[0]}"
            )
    if skeletons is not None:
        from blossom_edge.cli.export_skeletons import export_skeletons

        if federation is None:
            raise ConfigError("usage", "--skeletons needs --federation with a preset or a file")
        export_skeletons(out, skeletons, federation=federation, sets=sets, everything=everything)
    elif merged is not None:
        from blossom_edge.cli.export_merged import write_merged

        write_merged(out, merged, task=task, device=device, data_dir=data_dir, federation=federation)
    elif bundle is not None:
        from blossom_edge.cli.export_bundle import export_bundle

        export_bundle(
            out,
            bundle,
            device=device,
            data_dir=data_dir,
            federation=federation,
            profile=profile,
            shared_only=shared_only,
        )
