"""`blossom-edge doctor`: proves that this board can do what its profile says, and says how to mend what it cannot."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blossom_edge.cli.options import data_dir_option, edge_folder, say_root, seconds_option
from blossom_edge.console.output import Output
from blossom_edge.console.program import command
from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from blossom_edge.doctor.finding import Finding
    from blossom_edge.doctor.hardware import Hands

WORDS = {"ok": ("ok", "good"), "warn": ("look", "warn"), "fail": ("RED", "bad"), "skip": ("-", "dim")}
EXIT = {"sensors": 4, "gateway": 3, "machine": 1}


@command(
    "doctor",
    has_json=True,
    example="blossom-edge doctor --profile jetson-imu --gateway gateway.local\n"
    "blossom-edge doctor --profile jetson-imu --hil",
)
@click.option("--profile", "profile_name", metavar="NAME", required=True, help="What this board is; see `profiles`.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the profile.")
@click.option("--gateway", metavar="HOST:PORT", help="Check the way to this gateway [else $BLOSSOM_GATEWAY, if set].")
@click.option("--federation", metavar="NAME", help="Which one, if the gateway has several.")
@click.option("--password", envvar="BLOSSOM_PASSWORD", metavar="WORD", help="The federation's [$BLOSSOM_PASSWORD].")
@seconds_option("How long to listen.", default=3.0)
@click.option("--hil", is_flag=True, help="Run the whole conformance suite; write a report and a trace.")
@click.option("--unplug", is_flag=True, help="With --hil: ask for each plug to be pulled and put back.")
@click.option(
    "--report", "report_folder", type=click.Path(path_type=Path), metavar="FOLDER", help="With --hil: where to [hil/]."
)
@click.option("--id", "device", metavar="ID", help="Name of this device [profile and a part of the machine id].")
@data_dir_option
def doctor(
    out: Output,
    profile_name: str,
    sets: tuple[str, ...],
    gateway: str | None,
    federation: str | None,
    password: str | None,
    seconds: float,
    hil: bool,
    unplug: bool,
    report_folder: Path | None,
    device: str | None,
    data_dir: Path | None,
) -> int:
    """Check this machine, its sensors and the way to the gateway.

    Exit code 0, or of what is red: 4 with a sensor, else 3 with the way to the gateway, else 1 with the machine.
    """
    from dataclasses import replace

    from blossom_edge.cli.joining import default_id
    from blossom_edge.cli.profiles import profile_of
    from blossom_edge.doctor.gateway import check_gateway
    from blossom_edge.doctor.hardware import check_sensors, simulated_sensors, subjects, write_report
    from blossom_edge.doctor.machine import check_machine
    from blossom_edge.sensors.driver import Host
    from blossom_edge.transport.address import Address

    for flag, given in (("--unplug", unplug), ("--report", report_folder is not None)):
        if given and not hil:
            raise ConfigError("usage", f"{flag} needs --hil", hint="add --hil: it runs the whole conformance suite")
    profile, host = profile_of(profile_name, sets), Host.here()
    say_root(out, host)
    root = edge_folder(data_dir)
    name = device or default_id(profile.id)
    findings: list[Finding] = []

    def take(finding: Finding) -> None:
        findings.append(finding)
        out.progress(len(findings), max(20, len(findings)), f"{finding.group}: {finding.check}")

    for finding in check_machine(profile, root=host.root, data_folder=root):
        take(finding)
    tested = subjects(profile, host, seconds=seconds, hands=_hands(out) if unplug else None)
    for finding in itertools.chain(simulated_sensors(profile), check_sensors(tested, full=hil)):
        take(finding)
    where = gateway or os.environ.get("BLOSSOM_GATEWAY")
    if where is not None:
        address = Address.parse(where)
        if password is not None:
            address = replace(address, username=address.username or "device", password=password)
        folder = root / "devices" / name
        for finding in check_gateway(profile, address, federation=federation, device_folder=folder, patience_s=5.0):
            take(finding)
    out.end_progress()
    report, trace = None, None
    if hil:
        sensors = [finding for finding in findings if finding.group == "sensors"]
        report, trace = write_report(
            report_folder or Path("hil"), profile, tested, sensors, host=host, stem=f"{profile.id}-{name}"
        )
    red = [finding for finding in findings if finding.status == "fail"]
    out.json(
        {
            "profile": profile.id,
            "healthy": not red,
            "findings": [asdict(finding) for finding in findings],
            "report": report,
            "trace": trace,
        }
    )
    _print(out, findings)
    if where is None:
        out.note("the way to a gateway was not checked: name it with --gateway")
    if report is not None:
        out.line(f"\nreport: {report}" + (f", trace: {trace}" if trace is not None else ""))
    out.line(f"\n{len(red)} red" if red else "\nall is well")
    return exit_status(findings)


def exit_status(findings: Sequence[Finding]) -> int:
    """0, or the largest of what is red: nothing goes without its sensors, and little without the gateway."""
    return max((EXIT[finding.group] for finding in findings if finding.status == "fail"), default=0)


def _print(out: Output, findings: list[Finding]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for finding in findings:
        rows.append((WORDS[finding.status][0], finding.group, finding.check, finding.detail))
        if finding.fix and finding.status in ("fail", "warn"):
            rows.append(("", "", "", f"-> {finding.fix}"))
    out.table(rows, ["", "of", "check", "found"])


def _hands(out: Output) -> Hands:
    from blossom_edge.doctor.hardware import Hands

    def ask(wish: str) -> None:
        out.end_progress()
        click.prompt(f"{wish}, then press Enter", default="", show_default=False, err=True)

    return Hands(lambda name: ask(f"pull the plug of {name}"), lambda name: ask(f"put the plug of {name} back"))
