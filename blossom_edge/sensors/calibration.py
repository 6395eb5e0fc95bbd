"""What one board's sensor needs beside its profile: how it is mounted and what it shows at rest. Kept per instance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blossom_edge.core.errors import StorageError
from blossom_edge.durable import atomic_write, make_folder

FILE = "calibration.json"
Row = tuple[float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    bias: dict[str, float] = Field(default_factory=dict)
    mount: Annotated[list[Row], Field(min_length=3, max_length=3)] | None = None
    made_utc: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one sensor. bias: channel -> what it shows when it should show 0, in the profile's unit; subtracted first.

    mount: rotation from the sensor's axes to the device's, (3, 3) rows; applied to each group of three channels of
    one of the units m/s2, rad/s and T. made_utc: when, ISO 8601; None where the board did not know the time.
    """

    bias: Mapping[str, float] = field(default_factory=dict)
    mount: tuple[Row, Row, Row] | None = None
    made_utc: str | None = None

    def apply(self, values: NDArray[np.float64], channels: Sequence[str], units: Sequence[str]) -> NDArray[np.float64]:
        """Corrected values (n, channel), a copy unless there is nothing to correct."""
        if not self.bias and self.mount is None:
            return values
        result: NDArray[np.float64] = values - np.array([self.bias.get(channel, 0.0) for channel in channels])
        if self.mount is not None:
            rotation = np.array(self.mount)
            for unit in ("m/s2", "rad/s", "T"):
                columns = [i for i, found in enumerate(units) if found == unit]
                if len(columns) == 3:
                    result[:, columns] = result[:, columns] @ rotation.T
        return result


def read_calibrations(folder: Path) -> dict[str, Calibration]:
    """The calibrations kept in a data folder, by sensor; none where there is no file.

    Raises:
        StorageError: `file-damaged`.
    """
    path = folder / FILE
    try:
        text = path.read_text("utf-8")
        entries = {name: _Entry.model_validate(entry) for name, entry in json.loads(text).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise StorageError(
            "file-damaged", f"{path}: {error}", hint="delete it and run `blossom-edge sensors calibrate` again"
        ) from error
    return {
        name: Calibration(
            entry.bias, (entry.mount[0], entry.mount[1], entry.mount[2]) if entry.mount else None, entry.made_utc
        )
        for name, entry in entries.items()
    }


def keep_calibration(folder: Path, sensor: str, calibration: Calibration) -> None:
    """Write the calibration of one sensor beside those of the others."""
    known = {**read_calibrations(folder), sensor: calibration}
    data = {
        name: _Entry(
            bias=dict(entry.bias), mount=list(entry.mount) if entry.mount else None, made_utc=entry.made_utc
        ).model_dump()
        for name, entry in sorted(known.items())
    }
    make_folder(folder)
    atomic_write(folder / FILE, json.dumps(data, indent=2).encode(), name="calibration")
