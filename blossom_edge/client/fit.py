"""Holds a profile against a federation and says exactly what differs. Opens no sensor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import Federation, FederationModality
from firmware_profiles.loading import ProfileError, load_profile
from firmware_profiles.schema import Profile, ProfileModality

_SAME = 1e-3
"""Rates and lengths that differ by less than this part are the same."""


def load_device_profile(
    name_or_path: str, *, sets: Sequence[str] = (), folders: Sequence[Path] | None = None
) -> Profile:
    """Load a profile as `firmware_profiles.load_profile` does, with the errors of this package.

    Raises:
        ConfigError: `profile-not-found`, `profile-invalid`.
    """
    try:
        return load_profile(name_or_path, sets=sets, folders=folders)
    except ProfileError as error:
        raise ConfigError(error.error_id, str(error), hint=error.hint) from error


def owned_modalities(profile: Profile, federation: Federation) -> tuple[str, ...]:
    """The modalities of the profile that the federation knows, sorted."""
    return tuple(sorted(set(profile.modalities) & set(federation.modalities)))


def check_fit(profile: Profile, federation: Federation) -> tuple[str, ...]:
    """Return the modalities that a device of this profile owns in this federation, sorted.

    A profile's channel has the federation's name or ends in it (`ax` for `x` of `accel`, because one sensor may have
    two kinds of x). Modalities that the federation does not know are passed over.

    Raises:
        ConfigError: `federation-mismatch`, with every difference of rate, window, shape, channel and unit, or when
            nothing is in common.
    """
    owned = owned_modalities(profile, federation)
    if not owned:
        raise ConfigError(
            "federation-mismatch",
            f"profile {profile.id} has {', '.join(sorted(profile.modalities))}, "
            f"federation {federation.name} learns from {', '.join(sorted(federation.modalities))}: nothing in common",
            hint="choose another profile, or a federation that has one of its modalities",
        )
    found = [line for name in owned for line in _differences(name, profile, federation.modalities[name])]
    if found:
        raise ConfigError(
            "federation-mismatch",
            "; ".join(found),
            hint=f"change profile {profile.id}, or use --set for this device only",
        )
    return owned


def _differences(name: str, profile: Profile, wanted: FederationModality) -> list[str]:
    mine = profile.modalities[name]
    sensor = profile.sensors[mine.sensor]
    units = {channel.name: channel.unit for channel in sensor.channels}
    wants = f"{name}: the federation wants"
    found: list[str] = []
    if window_given := _window_difference(mine, wanted):
        window = f"{wanted.rate_hz:g} Hz windows of {wanted.window} x {_size((*wanted.shape, len(wanted.channels)))}"
        found.append(f"{wants} {window} in {_units(wanted)}, this profile gives {window_given}")
    if sensor.shape != wanted.shape:
        found.append(
            f"{wants} {_sample(wanted.shape)} in each sample of a channel, this profile gives {_sample(sensor.shape)}: "
            f"set sensors.{mine.sensor}.shape = {list(wanted.shape)}"
        )
    names = [channel.name for channel in wanted.channels]
    same_names = len(names) == len(mine.channels) and all(
        own.endswith(theirs) for own, theirs in zip(mine.channels, names, strict=True)
    )
    if not same_names:
        found.append(f"{wants} the channels {', '.join(names)}, this profile gives {', '.join(mine.channels)}")
        return found
    for own, channel in zip(mine.channels, wanted.channels, strict=True):
        if units[own] != channel.unit:
            found.append(f"{wants} {channel.name} in {channel.unit}, this profile gives {own} in {units[own]}")
    return found


def _window_difference(mine: ProfileModality, wanted: FederationModality) -> str:
    """What the profile gives instead, and what to add to it; empty when rate, window and hop fit."""
    if mine.rate_hz == wanted.rate_hz:
        if (mine.window, mine.hop) == (wanted.window, wanted.hop):
            return ""
        return f"windows of {mine.window} every {mine.hop}: set window = {wanted.window}, hop = {wanted.hop}"
    if "resample" not in mine.preprocess:
        return f'{mine.rate_hz:g} Hz: add preprocess = ["resample"]'
    ratio = mine.rate_hz / wanted.rate_hz
    window, hop = wanted.window * ratio, wanted.hop * ratio
    if abs(mine.window / window - 1) < _SAME and abs(mine.hop / hop - 1) < _SAME:
        return ""
    return (
        f"windows of {mine.window} every {mine.hop} at {mine.rate_hz:g} Hz ({mine.window / mine.rate_hz:.4g} s): "
        f"set window = {window:.0f}, hop = {hop:.0f}"
    )


def _sample(shape: tuple[int, ...]) -> str:
    return _size(shape) + " values" if shape else "one number"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _units(wanted: FederationModality) -> str:
    return ", ".join(dict.fromkeys(channel.unit for channel in wanted.channels))
