"""`blossom-aggregator federations`: the federation files that are known, and whether one is right."""

from __future__ import annotations

from typing import Any

import click

from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError

HERE = "aggregator.cli.federations"

federations = LazyGroup(
    "federations",
    help="What can be learned together: presets and your own federation files.",
    targets={
        "list": (f"{HERE}:list_command", "List the presets."),
        "show": (f"{HERE}:show", "Show a federation: modalities, tasks, blocks and their visibility."),
        "validate": (f"{HERE}:validate", "Check federation files and name each fault."),
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
