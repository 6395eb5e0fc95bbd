"""How the windows of a modality are cut: the profile, the federation and the open sensors held against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.schema import Federation
from blossom_edge.sensors.base import Sensor, is_live
from blossom_edge.sensors.intake import SAME_RATE
from blossom_edge.sensors.windows import WindowShape
from firmware_profiles.schema import Profile


def window_shape(name: str, profile: Profile, federation: Federation, sensors: Mapping[str, Sensor]) -> WindowShape:
    """What the windows of modality `name` are, cut from these open sensors as the federation wants them.

    Raises:
        ConfigError: `federation-mismatch`: the sensor delivers another unit, shape or rate.
    """
    mine, wanted = profile.modalities[name], federation.modalities[name]
    sensor = sensors[mine.sensor]
    resample = "resample" in mine.preprocess
    missing = [channel for channel in mine.channels if channel not in sensor.channels]
    if missing or len(mine.channels) != len(wanted.channels):
        raise ConfigError(
            "federation-mismatch",
            f"{name}: sensor {mine.sensor} delivers {', '.join(sensor.channels)}, "
            f"the federation wants {len(wanted.channels)} channels, the profile names {', '.join(mine.channels)}",
        )
    shape = profile.sensors[mine.sensor].shape
    if shape != wanted.shape or (shape and mine.channels != sensor.channels):
        raise ConfigError(
            "federation-mismatch",
            f"{name}: sensor {mine.sensor} delivers samples of shape {list(shape)} with {', '.join(sensor.channels)}, "
            f"the federation wants {list(wanted.shape)}, the profile names {', '.join(mine.channels)}",
        )
    columns = tuple(sensor.channels.index(channel) for channel in mine.channels)
    for column, channel in zip(columns, wanted.channels, strict=True):
        if sensor.units[column] != channel.unit:
            raise ConfigError(
                "federation-mismatch",
                f"{name}: sensor {mine.sensor} delivers {sensor.channels[column]} in {sensor.units[column]}, "
                f"the federation wants {channel.unit}",
            )
    if abs(sensor.rate_hz / wanted.rate_hz - 1) > SAME_RATE and not resample:
        raise ConfigError(
            "federation-mismatch",
            f"{name}: sensor {mine.sensor} delivers {sensor.rate_hz:g} Hz, the federation wants {wanted.rate_hz:g} Hz",
            hint=f'add preprocess = ["resample"] to [modalities.{name}] of profile {profile.id}',
        )
    return WindowShape(
        sensor=mine.sensor,
        columns=columns,
        rate_hz=wanted.rate_hz,
        window=wanted.window,
        hop=wanted.hop,
        mean=tuple(channel.mean for channel in wanted.channels),
        spread=tuple(channel.spread for channel in wanted.channels),
        sensor_rate_hz=sensor.rate_hz,
        points=math.prod(shape) if shape else 0,
        live=is_live(sensor),
    )
