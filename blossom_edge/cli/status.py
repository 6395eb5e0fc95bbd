"""`blossom-edge status` and `why`: read what the device's join wrote of itself."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.client.folder import has_joined
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.processes import is_alive
from blossom_edge.console.program import command
from blossom_edge.core.errors import BlossomError, ConfigError, StorageError

id_option = click.option("--id", "device", metavar="ID", help="Which device, if several joined from this folder.")


@command("status", has_json=True, example="blossom-edge status\nblossom-edge status --id jetson-imu-3fa2c1 --json")
@id_option
@data_dir_option
def status(out: Output, device: str | None, data_dir: Path | None) -> None:
    """Show the last round of this device: what was sent and received, and what is awaited until when."""
    found = read_status(edge_folder(data_dir), device)
    _say_others(out, found)
    if found.get("role", "train") != "train" and not found["running_here"]:
        found["model"].update(_on_disk(edge_folder(data_dir) / "devices" / found["device"], found["federation"]))
    out.json(found)
    where = "" if found["running_here"] else ", join is not running"
    member = f"in federation {found['federation']}" if found["federation"] else "in no federation yet"
    out.line(f"{found['device']} ({', '.join(found['modalities'])}) {member}")
    if found.get("error"):
        out.line(out.paint(f"join ended with an error: {_error(found['error'])}", "warn"))
    else:
        out.line(f"round {found['round']}: {_phase(found)}{where}")
    if found["score"]:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in found["score"].items() if value is not None)
        model = "final model" if found["phase"] == "finished" else f"model of round {found['score_round']}"
        out.line(f"own score of the {model}: {scores}")
    for task, gate in sorted(found.get("gates", {}).items()):
        out.line(_mixed(task, gate))
    for name, sensor in found.get("sensors", {}).items():
        if sensor["state"] != "ok":
            out.line(out.paint(_absence(name, sensor), "warn"))
    out.line()
    trains = found.get("role", "train") == "train"
    third = found["sent"] if trains else found["model"].get("versions", {})
    rows = []
    for block in sorted({*found["versions"], *found["sent"], *found["outcomes"]}):
        rows.append((block, found["versions"].get(block), third.get(block), found["outcomes"].get(block)))
    rows += [(block, None, "stays on this device", None) for block in found["private"]]
    columns = ["version", "sent"] if trains else ["received", "in use"]
    out.table(rows, ["block", *columns, "last outcome"])
    total_up = sum(up for up, _ in found["bytes"].values())
    total_down = sum(down for _, down in found["bytes"].values())
    out.line(f"\nsent {format_bytes(total_up)}, received {format_bytes(total_down)} since the start")
    if not trains:
        for line in model_lines(found["model"]):
            out.line(line)
        return
    energy = found.get("energy_j")
    out.line(f"energy of the last training: {'not measured' if energy is None else f'{energy:.1f} J'}")


def _on_disk(folder: Path, federation_name: str | None) -> dict[str, Any]:
    """What a device that does not run will use: `blocks rollback` may have changed it since it wrote its status."""
    from blossom_edge.client.folder import place_of
    from blossom_edge.client.store import known_federation
    from blossom_edge.inference.model_folder import look

    federation = known_federation(folder, federation_name) if federation_name else None
    state = look(place_of(folder, federation_name or "", federation.digest)) if federation is not None else None
    if state is None or state.in_use is None:
        return {}
    return {
        "generation": state.number,
        "versions": {str(key.block): used.version for key, used in sorted(state.in_use.versions.items())},
        "on_trial": state.trial is not None,
        "pinned": {str(key): used.version for key, used in sorted(state.pinned.items())},
    }


def _mixed(task: str, gate: float) -> str:
    return f"{task} is mixed: {gate:.0%} of the shared head, {1 - gate:.0%} of the own one"


def model_lines(model: Mapping[str, Any]) -> list[str]:
    """What a device of role `infer` or `personalize` runs, for people; `model` as `ModelUser.status` gives it."""
    if not model.get("generation"):
        lacks = "the graphs of some blocks are missing" if model.get("lacking_skeletons") else "none was trained yet"
        return [f"no model yet: {lacks}"]
    trial = ", not proved yet" if model["on_trial"] else ""
    took = f", {model['latency_ms']:.1f} ms each" if model["latency_ms"] is not None else ""
    lines = [f"generation {model['generation']}{trial}; {model['num_predicted']} windows predicted{took}"]
    gates = model.get("gates", {})
    for task, gate in sorted(gates.items()):
        lines.append(_mixed(task, gate))
    for name, words in (("shared", "the shared head"), ("own", "the own head"), ("mixed", "both, mixed")):
        for measure, value in sorted(model["scores"].get(name, {}).items()):
            if value is not None and not measure.endswith(".loss"):
                task = measure.partition(".")[0]
                own = model["uses_own_head"].get(task, name == "own")
                used = name == "mixed" if task in gates else own == (name == "own")
                lines.append(f"{words}: {measure} {value:.3f}{', in use' if used else ''}")
    if model["refused"]:
        last = model["refused"][-1]
        lines.append(f"last refused: {last['block']} version {last['version']}, {last['reason']}")
    lines += [f"pinned: {block} at version {version}" for block, version in sorted(model["pinned"].items())]
    return lines + [f"damaged: {what}" for what in model["damage"]]


@command("why", has_json=True, example="blossom-edge why")
@id_option
@data_dir_option
def why(out: Output, device: str | None, data_dir: Path | None) -> None:
    """Explain what this device waits for, and what was refused or held, with the next step."""
    found = read_status(edge_folder(data_dir), device)
    _say_others(out, found)
    error = found.get("error")
    lines = [f"round {found['round']}: {_phase(found)}"] if not error else []
    if error:
        lines.append(f"join ended with an error: {_error(error)}")
    elif found["phase"] == "finished":
        lines.append("nothing is awaited")
    elif not found["running_here"]:
        lines.append("join is not running; next: start it again, it goes on where it was")
    elif not found["connected"]:
        lines.append("the gateway does not answer, the device keeps trying; next: see whether the gateway runs")
    for name, sensor in found.get("sensors", {}).items():
        if sensor["state"] != "ok":
            lines.append(f"{_absence(name, sensor)}; it is tried again by itself")
    if found.get("role", "train") != "train":
        lines += model_lines(found["model"])
    if found["waiting_for"] and found["running_here"]:
        lines.append(f"versions not here yet: {', '.join(found['waiting_for'])}; they are asked for again")
    if found["unconfirmed"]:
        lines.append(f"sent and not confirmed yet: {', '.join(found['unconfirmed'])}; kept on disk until they are")
    lines += [f"{block}, update of {text}" for block, text in found["sent"].items()]
    lines += [f"{block}, outcome of {text}" for block, text in found["outcomes"].items()]
    out.json({"device": found["device"], "why": lines})
    for line in lines:
        out.line(line)


def read_status(folder: Path, device: str | None, *, joined: bool = False) -> dict[str, Any]:
    """The status file of a device: the named one, else the one whose join runs, else the newest.

    joined: to act on it, so only of devices that entered their federation or whose join runs, and no guess between
    several that run. Else `others_running` names those that were not taken, if none was named. `deadline_in_s` is that
    of now, None when join does not run.

    Raises:
        ConfigError: `usage`: none is named and several run; `nothing-found`: there is none of this name.
        StorageError: `nothing-found`.
    """
    files = sorted(folder.glob("devices/*/status.json"), key=lambda path: path.stat().st_mtime)
    found = {path.parent.name: _read(path) for path in files}
    member = {name: one for name, one in found.items() if has_joined(folder / "devices" / name, one.get("federation"))}
    running = sorted(name for name, one in found.items() if one["running_here"])
    if joined:
        found = {name: one for name, one in found.items() if name in member or name in running}
    if not found:
        hint = "join a federation first, or name the folder with --data-dir"
        raise StorageError("nothing-found", f"no device has joined from {folder}", hint=hint)
    if joined and device is None and len(running) > 1:
        known = ", ".join(running)
        raise ConfigError("usage", f"{len(running)} devices run here: {known}", hint="choose one with --id")
    if device is not None and device not in found:
        names = ", ".join(sorted({*member, *running})) or "none that joined"
        raise ConfigError("nothing-found", f"no device {device!r} in {folder}", hint=f"there is {names}")
    chosen = device or [name for name in found if name in running or not running][-1]
    others = [name for name in running if name != chosen] if device is None else []
    return {**found[chosen], "others_running": others}


def _say_others(out: Output, found: dict[str, Any]) -> None:
    if found["others_running"]:
        out.note(f"this is {found['device']}; also running here: {', '.join(found['others_running'])}; --id chooses")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    found["running_here"] = bool(found.get("running_here")) and is_alive(int(found.get("pid", 0)))
    left, written_s = found.get("deadline_in_s"), found.pop("written_s", None)
    if left is not None and written_s is not None:
        age_s = max(0.0, time.monotonic() - written_s)
        left = round(max(0.0, left - age_s), 1)
    found["deadline_in_s"] = left if found["running_here"] else None
    return found


def _absence(name: str, sensor: dict[str, Any]) -> str:
    from blossom_edge.board.clock import local_text

    since = f" since {local_text(sensor['since_utc'])}" if sensor.get("since_utc") else ""
    return f"sensor {name} is absent{since}, {sensor['state']}: {sensor['reason']}"


def _error(error: dict[str, str]) -> str:
    return BlossomError(error["id"], error["message"], hint=error["hint"]).line()


def _phase(found: dict[str, Any]) -> str:
    until = f", {found['deadline_in_s']:.0f} s left" if found["deadline_in_s"] is not None else ""
    return f"{found['phase']} {found['detail']}".strip() + until
