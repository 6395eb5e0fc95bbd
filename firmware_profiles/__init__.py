"""What types of boards are: their sensors, modalities, compute and limits, as TOML files. Imports nothing of ours.

A profile never holds an address, a key or anything of a single board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware_profiles.loading import ProfileEntry, ProfileError, list_profiles, load_profile
    from firmware_profiles.schema import Profile

__all__ = ["Profile", "ProfileEntry", "ProfileError", "list_profiles", "load_profile"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module("firmware_profiles.schema" if name == "Profile" else "firmware_profiles.loading")
    return getattr(module, name)
