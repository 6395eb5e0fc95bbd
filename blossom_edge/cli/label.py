"""`blossom-edge label`: tells a running `join` what is going on. Real sensors do not know it by themselves."""

from __future__ import annotations

from pathlib import Path

import click

from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.cli.status import id_option, read_status
from blossom_edge.console.output import Output
from blossom_edge.console.program import command


@command("label", has_json=True, example="blossom-edge label har=PEN\nblossom-edge label har=")
@click.argument("labels", nargs=-1, metavar="[TASK=CLASS]...")
@id_option
@data_dir_option
def label(out: Output, labels: tuple[str, ...], device: str | None, data_dir: Path | None) -> None:
    """Say what is going on from now on; an empty CLASS ends it, no argument shows what was said last.

    A window learns from a label that held for all of it. Several classes of a multilabel task are joined by `+`.
    """
    from blossom_edge.client.store import known_federation
    from blossom_edge.sensors.driver import Host
    from blossom_edge.sensors.labels import Label, boot_id, check_labels, keep_label, parse_labels, read_label

    root = edge_folder(data_dir)
    status = read_status(root, device, joined=True)
    folder = root / "devices" / status["device"]
    host = Host.here()
    boot = boot_id(host.root)
    before = read_label(folder)
    values = dict(before.values) if before is not None and before.boot == boot else {}
    if labels:
        said = parse_labels(labels)
        federation = known_federation(folder, status["federation"])
        if federation is not None:
            check_labels(said, federation)
        values = {task: value for task, value in {**values, **said}.items() if value or task in said}
        keep_label(folder, Label(since_s=host.clock(), boot=boot, values=values))
    if not status["running_here"]:
        more = "; the label holds from its next start on" if labels else ""
        out.warn(f"join of {status['device']} is not running{more}")
    shown = {task: value for task, value in values.items() if value}
    out.json({"device": status["device"], "labels": shown})
    for task, value in sorted(shown.items()):
        out.line(f"{status['device']}: {task}={value}")
    if not shown:
        out.line(f"{status['device']}: no label")
