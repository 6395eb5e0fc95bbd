"""The kinds of fields that messages are made of, each with its bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from blossom_edge.core.names import NAME_PATTERN

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=63)]
Block = Annotated[
    str, StringConstraints(pattern=r"^(encoder|fusion|head|scale)/[a-z0-9][a-z0-9.-]{0,62}$", max_length=80)
]
Cohort = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9.-]{0,62})?$", max_length=63)]
Sha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Bitmap = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]*$", max_length=2048)]
Codec = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.:+-]{0,30}$")]
Text = Annotated[str, StringConstraints(max_length=500)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Small = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """A piece of a message; strict, closed, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)
