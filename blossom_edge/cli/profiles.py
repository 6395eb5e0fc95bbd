"""`blossom-edge profiles`: what types of boards are known, and whether a profile is right. Opens no sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from blossom_edge.console.output import Output
from blossom_edge.console.program import LazyGroup, command

if TYPE_CHECKING:
    from firmware_profiles import Profile

HERE = "blossom_edge.cli.profiles"
_TIER_WORDS = {"proved": "proved", "datasheet": "data sheet", None: "yours"}

profiles = LazyGroup(
    "profiles",
    help="What types of boards are known: their sensors, modalities and limits.",
    targets={
        "list": (f"{HERE}:list_command", "List the profiles found, yours and the shipped ones."),
        "show": (f"{HERE}:show", "Show one profile, resolved with its parents."),
        "validate": (f"{HERE}:validate", "Check profiles and name each fault with file and key."),
        "detect": ("blossom_edge.cli.profile_detect:detect", "Say which profiles are for this board."),
        "new": ("blossom_edge.cli.profile_new:new", "Write a profile of your own, by asking."),
        "schema": (f"{HERE}:schema", "Print the JSON Schema of profiles, for editors."),
    },
)


def profile_of(name: str, sets: tuple[str, ...] = ()) -> Profile:
    """Load a profile, by name or path.

    Raises:
        ConfigError: `profile-not-found` or `profile-invalid`.
    """
    from blossom_edge.client.fit import load_device_profile

    return load_device_profile(name, sets=sets)


@command("list", has_json=True, example="blossom-edge profiles list")
def list_command(out: Output) -> None:
    """List the profiles found in ./profiles, in your configuration folder and in this package."""
    from firmware_profiles import list_profiles, load_profile
    from firmware_profiles.schema import TIERS

    found: list[dict[str, Any]] = []
    for entry in list_profiles():
        modalities = [] if entry.problem else sorted(load_profile(str(entry.path)).modalities)
        found.append(
            {
                "id": entry.id,
                "title": entry.title,
                "tier": entry.tier or None,
                "modalities": modalities,
                "problem": entry.problem,
                "path": str(entry.path),
            }
        )
    out.json({"profiles": found, "tiers": TIERS})
    rows = [
        (
            f["id"],
            ", ".join(f["modalities"]),
            f["title"] if not f["problem"] else "not valid",
            _TIER_WORDS[f["tier"]],
        )
        for f in found
    ]
    out.table(rows, ["profile", "modalities", "board", "tested"])
    out.line()
    for tier, meaning in TIERS.items():
        out.line(f"{_TIER_WORDS[tier]}: {meaning}")
    for faulty in (f for f in found if f["problem"]):
        out.warn(f"profile {faulty['id']}: {faulty['problem']}")


@command("show", has_json=True, example="blossom-edge profiles show jetson-imu --set limits.train_nice=5")
@click.argument("name")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key, as join --set does.")
def show(out: Output, name: str, sets: tuple[str, ...]) -> None:
    """Show the profile NAME (or a path), resolved with its parents."""
    profile = profile_of(name, sets)
    out.json({**profile.to_dict(), "digest": profile.digest})
    _print_profile(out, profile)


def _print_profile(out: Output, profile: Profile) -> None:
    from firmware_profiles.schema import TIERS

    compute = profile.compute
    threads = "" if compute.threads is None else f", {compute.threads} threads"
    out.line(f"{profile.id}: {profile.title}")
    out.line(f"board: {profile.hardware.board}; role: {compute.role}, on {compute.device}{threads}")
    limits = profile.limits.model_dump(exclude_none=True)
    out.line("limits: " + (", ".join(f"{key}={value}" for key, value in limits.items()) or "none"))
    if profile.tier is not None:
        out.line(f"tested: {TIERS[profile.tier]}")
    out.line(f"digest: {profile.digest[:16]}")
    out.line()
    rows = [
        (name, m.sensor, ", ".join(m.channels), f"{m.rate_hz:g} Hz", m.window, m.hop)
        for name, m in profile.modalities.items()
    ]
    out.table(rows, ["modality", "sensor", "channels", "rate", "window", "hop"])
    out.line()
    out.table(
        [
            (name, c.name, c.unit, f"{c.range[0]:g} .. {c.range[1]:g}")
            for name, sensor in profile.sensors.items()
            for c in sensor.channels
        ],
        ["sensor", "channel", "unit", "range"],
    )
    out.line()
    sources = [
        (name, i + 1, source.driver, f"{source.rate_hz:g} Hz", " ".join(f"{k}={v}" for k, v in source.options.items()))
        for name, sensor in profile.sensors.items()
        for i, source in enumerate(sensor.sources)
    ]
    out.table(sources, ["sensor", "try", "driver", "rate", "options"])


@command("validate", has_json=True, example="blossom-edge profiles validate my-board.toml")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def validate(out: Output, names: tuple[str, ...]) -> int:
    """Check the profiles named (names or paths; none: all that are found), with the drivers and keys of their sources.

    No hardware is touched. Exit code 2 if one has a fault.
    """
    from firmware_profiles import list_profiles

    checked = [_validated(name) for name in names or [str(entry.path) for entry in list_profiles()]]
    out.json({"profiles": checked})
    for entry in checked:
        out.line(f"{entry['name']}: " + ("valid" if entry["valid"] else "not valid"))
        for problem in entry["problems"]:
            out.line(f"  {problem}")
        if entry["hint"]:
            out.line(f"  next: {entry['hint']}")
        for warning in entry["warnings"]:
            out.warn(warning)
    return 0 if all(entry["valid"] for entry in checked) else 2


def _validated(name: str) -> dict[str, Any]:
    """What is wrong with a profile, and what cannot be said of it here: drivers that are not installed."""
    from blossom_edge.sensors.sources import source_faults
    from firmware_profiles import ProfileError, load_profile
    from firmware_profiles.loading import CHECK_AGAIN

    problems: list[str] = []
    warnings: list[str] = []
    hint = ""
    try:
        profile = load_profile(name)
    except ProfileError as error:
        problems, hint = list(error.problems), error.hint if error.hint != CHECK_AGAIN else ""
    else:
        faults = list(source_faults(profile))
        warnings = [f"{name}: {fault}" for fault in faults if fault.elsewhere]
        problems = [f"{name}: {fault}" for fault in faults if not fault.elsewhere]
        hint = next((fault.hint for fault in faults if not fault.elsewhere), "") if len(problems) == 1 else ""
    return {"name": name, "valid": not problems, "problems": problems, "warnings": warnings, "hint": hint}


@command("schema", has_json=True, example="blossom-edge profiles schema")
def schema(out: Output) -> None:
    """Print the JSON Schema (draft 2020-12) of profiles. `#:schema ./profile.schema.json` on top of a file uses it."""
    import json

    from firmware_profiles.json_schema import profile_json_schema

    found = profile_json_schema()
    out.json(found)
    out.line(json.dumps(found, indent=2))
