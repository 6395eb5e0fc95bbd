"""Which columns of a text hold the channels that are wanted, and in which units. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blossom_edge.core.errors import ConfigError
from blossom_edge.sensors.driver import Request
from blossom_edge.sensors.units import check_units


@dataclass(frozen=True, slots=True)
class Columns:
    """names: of all columns. places: of each channel among them. units: of each channel; empty: the profile's."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    units: tuple[str, ...]


def choose_columns(request: Request, names: Sequence[str], units: str | Sequence[str], *, driver: str) -> Columns:
    """Hold the options `columns` (empty: those of the channels) and `units` (one for all, or one each) together.

    Raises:
        ConfigError: `profile-invalid`: a channel without a column, a column twice, units that are not one per column,
            units that are not the profile's and cannot be converted, or a sensor whose samples are no single numbers.
    """
    wanted = tuple(channel.name for channel in request.channels)
    names = tuple(names) or wanted
    units = (units,) * len(names) if isinstance(units, str) and units else tuple(units)
    what = ""
    if request.shape:
        what = f"found samples of shape {list(request.shape)}, expected single numbers"
    elif set(wanted) - set(names) or len(set(names)) != len(names):
        what = f"columns: found {', '.join(names)}; expected each once, with {', '.join(wanted)} among them"
    elif units and len(units) != len(names):
        what = f"units: found {len(units)}, expected {len(names)}, one per column"
    if what:
        raise ConfigError(
            "profile-invalid", f"sensor {request.sensor}: {what}", hint=f"see the source of driver {driver!r}"
        )
    places = tuple(names.index(name) for name in wanted)
    chosen = tuple(units[place] for place in places) if units else ()
    if chosen:
        check_units(request, chosen)
    return Columns(names, places, chosen)
