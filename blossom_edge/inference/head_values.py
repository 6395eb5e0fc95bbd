"""The values of a personal head, checked, and as the bytes of a file. Never trains, never opens a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blossom_edge.codec import safetensors_file
from blossom_edge.core.blocks import Array
from blossom_edge.core.errors import ConfigError, FrameError

MAX_HEAD_BYTES = 16 << 20
MAX_HEAD_WIDTH = 1 << 16
HIDDEN, SOFTMAX = "hidden", "softmax"
NAMES: Mapping[str, tuple[str, ...]] = {
    SOFTMAX: ("layers.0.weight", "layers.0.bias"),
    HIDDEN: ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"),
}

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadValues:
    """A head, all float32 and finite.

    `softmax` has `layers.0.weight` (outputs, inputs) and `layers.0.bias`; `hidden` has `layers.0` to a layer of ReLU
    and `layers.1` from it.

    Raises:
        ConfigError: `head-invalid`: an unknown kind, other names, shapes that do not fit, values that are not finite.
    """

    kind: str
    tensors: Mapping[str, Values]

    def __post_init__(self) -> None:
        if problem := _problem(self.kind, self.tensors):
            raise head_invalid(problem)

    @property
    def num_features(self) -> int:
        """Width of what it sees."""
        return int(self.tensors["layers.0.weight"].shape[1])

    @property
    def num_outputs(self) -> int:
        """One per class, or one for a regression."""
        return len(self.tensors[NAMES[self.kind][-1]])

    def fits(self, *, num_features: int, num_outputs: int) -> bool:
        """Whether it can go on from here, or a new one is needed."""
        return (self.num_features, self.num_outputs) == (num_features, num_outputs)


def head_to_bytes(head: HeadValues, metadata: Mapping[str, str] | None = None) -> bytes:
    """The head as one safetensors file, with its kind and `metadata` in its words."""
    return safetensors_file.write(head.tensors, {**(metadata or {}), "kind": head.kind})


def head_from_bytes(data: bytes) -> HeadValues:
    """Read what `head_to_bytes` made; the arrays look into `data`.

    Raises:
        ConfigError: `head-invalid`: too large, damaged, or no head.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise head_invalid(f"found {len(data)} bytes, expected at most {MAX_HEAD_BYTES}")
    try:
        tensors, words = safetensors_file.read(data)
    except FrameError as error:
        raise head_invalid(str(error)) from None
    return HeadValues(words.get("kind", ""), tensors)


def head_invalid(what: str, *, hint: str = "") -> ConfigError:
    """The `head-invalid` error."""
    return ConfigError(
        "head-invalid", f"personal head: {what}", hint=hint or "a new head is fitted from the own labels"
    )


def _problem(kind: str, tensors: Mapping[str, Array]) -> str:
    if kind not in NAMES:
        return f"found kind {kind[:40]!r}, expected {HIDDEN} or {SOFTMAX}"
    if set(tensors) != set(NAMES[kind]):
        return f"tensors {', '.join(sorted(tensors))[:200]}, expected {', '.join(NAMES[kind])}"
    width = 0
    for layer in range(len(NAMES[kind]) // 2):
        weight, bias = tensors[f"layers.{layer}.weight"], tensors[f"layers.{layer}.bias"]
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or not min(weight.shape) >= 1:
            return (
                f"layers.{layer} has shapes {weight.shape} and {bias.shape}, expected (outputs, inputs) and (outputs,)"
            )
        if max(weight.shape) > MAX_HEAD_WIDTH or (layer and weight.shape[1] != width):
            return f"layers.{layer} has {weight.shape[1]} inputs, expected {width or f'at most {MAX_HEAD_WIDTH}'}"
        width = len(weight)
    for name, values in tensors.items():
        if values.dtype != np.float32 or not np.isfinite(values).all():
            return f"{name} is {values.dtype} or not finite, expected finite float32"
    return ""
