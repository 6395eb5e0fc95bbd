"""The packages that an export needs, and what to install when one is missing or too old."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

from blossom_edge.core.errors import ConfigError

MIN_TORCH = (2, 9)
"""From here on, torch's exporter is the one that is used here (`dynamo`) by default."""
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def need_exporter() -> None:
    """Say at once which packages are missing for an export; loads none of them.

    Raises:
        ConfigError: `package-missing`.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            "package-missing",
            f"an export needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            hint="pip install 'blossom-edge[export]'",
        )
    version = importlib.metadata.version("torch")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < MIN_TORCH:
        least = ".".join(map(str, MIN_TORCH))
        raise ConfigError(
            "package-missing",
            f"an export needs torch {least} or newer, found {version}",
            hint=f"pip install --upgrade 'torch>={least}'; training goes on with the older one",
        )
