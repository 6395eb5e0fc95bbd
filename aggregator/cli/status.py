"""`blossom-aggregator status` and `why`: read what the gateway wrote of itself. Never opens its ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from aggregator.cli.control import data_dir_option, gateway_folder
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.processes import is_alive
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError, StorageError


@command("status", has_json=True, example="blossom-aggregator status --data-dir gateway/")
@data_dir_option
def status(out: Output, data_dir: Path | None) -> None:
    """Show the round under way, the devices and the blocks."""
    found = read_status(gateway_folder(data_dir))
    out.json(found)
    total = f" of {found['rounds']}" if found["rounds"] else ""
    state = found["running"] if found["running_here"] else f"{found['running']}, the gateway is not running"
    out.line(f"federation {found['federation']} ({found['visibility']})")
    out.line(f"round {found['round']}{total}, {state}")
    if found["running"] == "finished":
        out.line(f"finished: {found['stop_reason']}")
    if found["deadline_in_s"] is not None:
        waiting = [d["id"] for d in found["devices"] if d["awaited"]]
        out.line(f"deadline in {found['deadline_in_s']:.0f} s, waiting for {', '.join(waiting) or 'nobody'}")
    out.line(f"{found['broker'].partition(' (')[0]}, state of {found['updated']}")
    out.line()
    headers = ["device", "modalities", "state", "score", "up", "down"]
    roles = any(d["role"] != "train" for d in found["devices"])
    rows = [_device_row(d) for d in found["devices"]]
    if roles:
        headers = ["device", "role", *headers[1:]]
        rows = [(d["id"], d["role"], *row[1:]) for d, row in zip(found["devices"], rows, strict=True)]
    out.table(rows, headers)
    said = [_prediction_row(d["id"], p) for d in found["devices"] for p in d.get("predictions", ())]
    if said:
        out.line()
        out.table(said, ["device", "task", "prediction", "confidence", "age"])
    out.line()
    rows = [(b["block"], b["version"], len(b["owners"]), b["round"], _outcome(b)) for b in found["blocks"]]
    out.table(rows, ["block", "version", "owners", "round", "last outcome"])
    counts = ", ".join(f"{kind} {number}" for kind, number in found["refusals"].items())
    if counts:
        out.line(f"\nrefused so far: {counts}")
    for warning in found["warnings"]:
        out.warn(warning)


@command("why", has_json=True, example="blossom-aggregator why encoder/accel\nblossom-aggregator why pi-3")
@click.argument("subject", metavar="DEVICE|BLOCK")
@data_dir_option
def why(out: Output, subject: str, data_dir: Path | None) -> None:
    """Explain what a device or a block waits for, and what was refused or held, with the next step."""
    found = read_status(gateway_folder(data_dir))
    for device in found["devices"]:
        if device["id"] == subject:
            lines = _why_device(found, device)
            break
    else:
        block = next((b for b in found["blocks"] if b["block"] == subject), None)
        lines = [warning for warning in found["warnings"] if warning.startswith(f"{subject}:")]
        if block is None and not lines:
            names = [d["id"] for d in found["devices"]] + [b["block"] for b in found["blocks"]]
            raise ConfigError("nothing-found", f"no device or block {subject!r}", hint=f"there is {', '.join(names)}")
        lines = _why_block(found, block) if block is not None else lines
    out.json({"subject": subject, "why": lines})
    for line in lines:
        out.line(line)


def read_status(folder: Path) -> dict[str, Any]:
    """The gateway's status file; `running_here` says whether the process that wrote it still runs.

    `deadline_in_s` is that of now, None when it does not run; so is the `age_s` of predictions.

    Raises:
        StorageError: `nothing-found`.
    """
    path = folder / "status.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        hint = "start one with `blossom-aggregator serve`, or name its folder with --data-dir"
        raise StorageError("nothing-found", f"no gateway has run in {folder}", hint=hint) from None
    found["running_here"] = bool(found.get("running_here")) and is_alive(int(found.get("pid", 0)))
    left, written_s = found["deadline_in_s"], found.pop("written_s", None)
    if left is not None and written_s is not None:
        left = round(max(0.0, left - max(0.0, time.monotonic() - written_s)), 1)
    found["deadline_in_s"] = left if found["running_here"] else None
    for said in (p for device in found["devices"] for p in device.get("predictions", ())):
        said["age_s"] = round(max(0.0, time.monotonic() - said.pop("window_end_s")), 1)
    return found


def _device_row(device: dict[str, Any]) -> tuple[object, ...]:
    state = device["phase"] if device["online"] else "gone"
    score = next((v for name, v in device["score"].items() if not name.endswith(".loss")), None)
    up, down = format_bytes(device["bytes_up"]), format_bytes(device["bytes_down"])
    return device["id"], ", ".join(device["modalities"]), state, score, up, down


def _prediction_row(device: str, said: dict[str, Any]) -> tuple[object, ...]:
    state = f"{said['state']:.4g} {said['unit']}".rstrip() if said["kind"] == "regression" else said["state"]
    percent = said["confidence_percent"]
    return device, said["task"], state, "" if percent is None else f"{percent:.0f} %", f"{said['age_s']:.0f} s"


def _outcome(block: dict[str, Any]) -> str:
    if block["held"]:
        return f"held: {block['held']}"
    return f"from {', '.join(block['members'])}" if block["members"] else "not trained yet"


def _why_device(found: dict[str, Any], device: dict[str, Any]) -> list[str]:
    doing = f"{device['phase']} {device['reason']}".strip() if device["online"] else device["reason"] or "no goodbye"
    lines = [f"{device['id']} is {'here' if device['online'] else 'gone'}: {doing}"]
    if device["role"] != "train":
        lines.append(f"role {device['role']}: it uses the shared blocks and sends no updates, so no round waits for it")
    if device["awaited"]:
        until = f" for {found['deadline_in_s']:.0f} s more" if found["deadline_in_s"] is not None else ""
        lines.append(f"round {found['round']} waits{until} for its {', '.join(device['awaited'])}")
    elif found["phase"] == "open" and not device["participant"] and device["role"] == "train":
        lines.append(f"it came after round {found['round']} had opened: it takes part from the next one")
    for block in found["blocks"]:
        if block["block"] in device["blocks"] and block["round"] and device["role"] == "train":
            lines.append(f"{block['block']}: {_part(device['id'], block)}")
    refused = device["refused"]
    if refused is not None:
        step = f"; next: {refused['hint']}" if refused["hint"] else ""
        what = f"{refused['block']} of round {refused['round']} ({refused['type']})"
        lines.append(f"last refusal: {what}: {refused['reason']}{step}")
    return lines


def _part(device: str, block: dict[str, Any]) -> str:
    kind = block["refused"].get(device)
    if kind is not None:
        return f"its update of round {block['round']} was refused ({kind})"
    return f"{'took part' if device in block['members'] else 'took no part'} in round {block['round']}"


def _why_block(found: dict[str, Any], block: dict[str, Any]) -> list[str]:
    owners = ", ".join(block["owners"]) or "nobody"
    lines = [f"{block['block']} is at version {block['version']}, owned by {owners}"]
    if block["held"]:
        lines.append(
            f"held in round {block['round']}: {block['held']}; its version stays, it is averaged again next round"
        )
    elif block["members"]:
        lines.append(f"averaged in round {block['round']} over {', '.join(block['members'])}")
    if block["refused"]:
        who = ", ".join(f"{device} ({kind})" for device, kind in block["refused"].items())
        first = next(iter(block["refused"]))
        lines.append(f"refused in round {block['round']}: {who}; next: blossom-aggregator why {first}")
    waiting = [d["id"] for d in found["devices"] if block["block"] in d["awaited"]]
    if waiting:
        lines.append(f"round {found['round']} waits for {', '.join(waiting)}")
    lines += [warning for warning in found["warnings"] if warning.startswith(f"{block['block']}:")]
    return lines
