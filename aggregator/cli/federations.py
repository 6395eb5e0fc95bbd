"""`blossom-aggregator federations`: the federation files that are known, whether one is right, and its skeletons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregator.cli.control import data_dir_option, gateway_folder
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError, RemoteError

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation

HERE = "aggregator.cli.federations"

federations = LazyGroup(
    "federations",
    help="What can be learned together: presets and your own federation files.",
    targets={
        "list": (f"{HERE}:list_command", "List the presets."),
        "show": (f"{HERE}:show", "Show a federation: modalities, tasks, blocks and their visibility."),
        "validate": (f"{HERE}:validate", "Check federation files and name each fault."),
        "skeletons": (f"{HERE}:skeletons", "List the ONNX skeletons for devices without torch."),
        "add-skeleton": (f"{HERE}:add_skeleton", "Add skeletons exported where torch is."),
    },
)


@command("list", has_json=True, example="blossom-aggregator federations list")
def list_command(out: Output) -> None:
    """List the presets that come with this package."""
    from blossom_edge.federation.load import list_federations

    found = [{"name": name, "title": title} for name, title in list_federations()]
    out.json({"federations": found})
    out.table([(f["name"], f["title"]) for f in found], ["federation", "what is learned"])


@command("show", has_json=True, example="blossom-aggregator federations show har --set visibility=full")
@click.argument("name")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key, as serve --set does.")
def show(out: Output, name: str, sets: tuple[str, ...]) -> None:
    """Show the federation NAME (or a path): modalities, tasks, blocks and who may see them."""
    from blossom_edge.federation.load import load_federation

    federation = load_federation(name, sets=sets)
    blocks = [
        {
            "block": str(spec.id),
            "type": spec.type,
            "visibility": spec.visibility.value,
            "parameters": spec.num_values,
            "bytes_float32": 4 * spec.num_values,
        }
        for spec in federation.spec.blocks
    ]
    out.json({"federation": federation.to_dict(), "digest": federation.digest, "blocks": blocks})
    out.line(f"{federation.name}: {federation.title}")
    out.line(f"visibility: {federation.visibility}; digest: {federation.digest[:16]}")
    out.line()
    modalities = [
        (name, f"{m.rate_hz:g} Hz", m.window, m.hop, ", ".join(f"{c.name} {c.unit}" for c in m.channels))
        for name, m in federation.modalities.items()
    ]
    out.table(modalities, ["modality", "rate", "window", "hop", "channels"])
    out.line()
    tasks = [(name, t.type, ", ".join(t.classes) or t.unit) for name, t in federation.tasks.items()]
    out.table(tasks, ["task", "type", "classes or unit"])
    out.line()
    rows = [
        (str(block.id), block.type, block.visibility.value, block.num_values, format_bytes(4 * block.num_values))
        for block in federation.spec.blocks
    ]
    out.table(rows, ["block", "type", "visibility", "parameters", "float32"])


@command("validate", has_json=True, example="blossom-aggregator federations validate my-federation.toml")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def validate(out: Output, names: tuple[str, ...]) -> int:
    """Check federations (names or paths). Exit code 2 if one has a fault."""
    from blossom_edge.federation.load import load_federation

    checked: list[dict[str, Any]] = []
    for name in names:
        problem = ""
        try:
            load_federation(name)
        except ConfigError as error:
            problem = error.line()
        checked.append({"name": name, "valid": not problem, "problem": problem})
    out.json({"federations": checked})
    for entry in checked:
        out.line(f"{entry['name']}: " + (f"not valid: {entry['problem']}" if entry["problem"] else "valid"))
    return 0 if all(entry["valid"] for entry in checked) else 2


@command("skeletons", has_json=True, example="blossom-aggregator federations skeletons my.toml --data-dir gateway/")
@click.argument("name", required=False)
@data_dir_option
def skeletons(out: Output, name: str | None, data_dir: Path | None) -> None:
    """List which blocks of the federation NAME (default: the data folder's own) have a skeleton, and which lack one."""
    from aggregator.skeletons import FOLDER, Skeletons

    folder = gateway_folder(data_dir)
    shelf = Skeletons(_federation(folder, name), folder / FOLDER)
    rows = []
    for digest, blocks in shelf.blocks.items():
        try:
            found, problem = shelf.find(digest), ""
        except RemoteError as error:
            found, problem = None, str(error)
        where = "" if found is None else "data folder" if found.path.parent == shelf.folder else "package"
        size = None if found is None else len(found.data)
        rows += [{"block": str(b), "digest": digest, "where": where, "bytes": size, "problem": problem} for b in blocks]
    lacking = [row["block"] for row in rows if not row["where"]]
    step = shelf.how_to_export() if lacking else ""
    out.json({"federation": shelf.federation.name, "skeletons": rows, "lacking": lacking, "next": step})
    shown = [(r["block"], str(r["digest"])[:12], r["where"] or "lacking", r["bytes"]) for r in rows]
    out.table(shown, ["block", "digest", "skeleton", "bytes"])
    for problem in sorted({str(row["problem"]) for row in rows if row["problem"]}):
        out.warn(problem)
    if step:
        out.note(f"devices without torch cannot run {', '.join(map(str, lacking))}; next, {step}")


@command(
    "add-skeleton",
    has_json=True,
    example="blossom-aggregator federations add-skeleton out/*.onnx --data-dir gateway/",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--federation", "name", metavar="NAME", help="A preset or a file; default: the data folder's own.")
@data_dir_option
def add_skeleton(out: Output, files: tuple[Path, ...], name: str | None, data_dir: Path | None) -> None:
    """Check skeletons against the federation and add them; a gateway that runs finds them at once.

    If one of them is wrong, none is added.
    """
    from aggregator.skeletons import FOLDER, Skeletons

    folder = gateway_folder(data_dir)
    shelf = Skeletons(_federation(folder, name), folder / FOLDER)
    checked, wrong = [], []
    for file in files:
        try:
            checked.append(shelf.check(file))
        except ConfigError as error:
            wrong.append(error)
    if wrong:
        more = f" (and {len(wrong) - 1} more: {'; '.join(map(str, wrong[1:]))})" if wrong[1:] else ""
        raise ConfigError(wrong[0].error_id, f"{wrong[0]}{more}; nothing was added", hint=wrong[0].hint)
    added = [
        {"file": str(found.path), "digest": found.digest, "blocks": list(map(str, shelf.blocks[found.digest]))}
        for found in checked
    ]
    shelf.add(checked)
    out.json({"federation": shelf.federation.name, "folder": str(shelf.folder), "added": added})
    for found in checked:
        out.line(f"{found.path}: skeleton of {shelf.names(found.digest)}, digest {found.digest[:12]}: added")


def _federation(folder: Path, name: str | None) -> Federation:
    """The federation named, else the one of the data folder."""
    from aggregator.recovery import kept_federation
    from blossom_edge.federation.load import load_federation

    if name is not None:
        return load_federation(name)
    kept = kept_federation(folder)
    if kept is None:
        hint = "name one, or give the gateway's folder with --data-dir"
        raise ConfigError("usage", f"{folder} holds no federation yet", hint=hint)
    return kept
