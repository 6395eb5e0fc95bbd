"""The packages that an export needs, and what to install when one is missing."""

from __future__ import annotations

import importlib.util

from blossom_edge.core.errors import ConfigError

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
