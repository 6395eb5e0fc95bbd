"""The seams of a live model: how it is built, run, and given own heads. Types and words alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from numpy import bool_
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockId, Tensors
from blossom_edge.federation.schema import Federation

if TYPE_CHECKING:
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.head_values import HeadValues
    from blossom_edge.inference.runtime import RuntimeOptions

Heads = Mapping[str, "HeadValues"]
Masks = Mapping[str, NDArray[bool_]]
MakeHeads = Callable[["OnnxModel", Heads], "Heads | None"]
"""Own heads for new encoders, started from those in use; None: those in use stay."""
RunModel = Callable[["OnnxModel", Heads, Mapping[str, Array], Masks], Mapping[str, Array]]
"""Model, heads, inputs, presence -> outputs by name: `TASK`, or `own_name(TASK)` of an own head."""
BAD_BLOCK = frozenset({"block-invalid", "spec"})
BAD_SKELETON = frozenset({"skeleton-missing", "skeleton-invalid"})
"""No fault of the version: it is tried again when the skeleton is here."""


class Build(Protocol):
    """How a model is made: `OnnxModel.build`."""

    def __call__(
        self,
        federation: Federation,
        blocks: Mapping[BlockId, Tensors],
        skeletons: Callable[[str], bytes | None],
        *,
        options: RuntimeOptions,
        reuse: OnnxModel | None,
        changed: Collection[BlockId] | None,
    ) -> OnnxModel:
        """See `OnnxModel.build`."""
        ...
