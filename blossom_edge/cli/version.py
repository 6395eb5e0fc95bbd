"""`blossom-edge version`: what to put into a bug report. Looks packages up without importing them."""

from __future__ import annotations

import platform

from blossom_edge import __version__
from blossom_edge.console.output import Output
from blossom_edge.console.program import command

PACKAGES = ("numpy", "pydantic", "click", "paho-mqtt", "cryptography", "torch", "onnxruntime", "amqtt")


@command("version", has_json=True, example="blossom-edge version --json")
def version(out: Output) -> None:
    """Show the versions of this program, of Python and of the packages it works with."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    machine = f"{platform.system()} {platform.machine()}"
    out.json({"version": __version__, "python": platform.python_version(), "machine": machine, "packages": found})
    out.line(f"blossom-edge {__version__}, Python {platform.python_version()}, {machine}")
    out.line()
    out.table([(name, number or "not installed") for name, number in found.items()], ["package", "version"])
