"""What a plan is made of: the blocks of a round, and how devices train them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from blossom_edge.codec.fields import Block, Cohort, Count, Number, Part, Sha, Small


class PlannedBlock(Part):
    """One block of a plan."""

    block: Block
    cohort: Cohort = ""
    version: Count
    sha256: Sha
    quorum: Small
    min_cohort: Small


class PlannedTraining(Part):
    """Local training of a round, see `LocalTraining`. What came later is left out while it is 0."""

    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    epochs: Small
    steps: Count
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    momentum: Number
    weight_decay: Number
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seed: Count
    prox_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Older devices refuse keys that they do not know."""
        table: dict[str, Any] = handler(self)
        return {k: v for k, v in table.items() if v or k not in ("prox_mu", "modality_dropout")}
