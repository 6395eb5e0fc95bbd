"""The members of a bundle that hold weights: blocks and own heads, each held against what it must be.

Pure: bytes in, arrays out. Nothing of a member is used unless all of it is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.codec import safetensors_file
from blossom_edge.core.blocks import BlockSpec, Tensors
from blossom_edge.core.errors import BlossomError
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import embedding_width, encoder_id
from blossom_edge.inference.bundle_manifest import block_file, head_file
from blossom_edge.inference.head_values import HeadValues, head_from_bytes
from blossom_edge.inference.sealed_zip import EXPORT_AGAIN, invalid

_Arrays = dict[str, NDArray[Any]]


def max_block_bytes(spec: BlockSpec) -> int:
    """The largest member that a block can have."""
    return 4 * spec.num_values + safetensors_file.MAX_HEADER_BYTES + 8


def pack_tensors(tensors: Tensors, what: str) -> bytes:
    """The member for the values of `what`, a block.

    Raises:
        BlossomError: `local-value`: an array that no file can hold.
    """
    return safetensors_file.write(dict(tensors), {"of": what})


def unpack_block(data: bytes, spec: BlockSpec, source: str) -> Tensors:
    """The tensors of a block.

    Raises:
        ConfigError: `bundle-invalid`, naming member and tensor.
    """
    tensors = _read(data, str(spec.id), block_file(spec.id), source)
    return _checked(tensors, {t.name: t.shape for t in spec.tensors}, block_file(spec.id), source)


def unpack_head(
    data: bytes, *, federation: Federation, task: str, modalities: tuple[str, ...], source: str
) -> HeadValues:
    """A device's own head of `task`; it sees the embeddings of `modalities` and a flag for each of them.

    Raises:
        ConfigError: `bundle-invalid`, naming the member.
    """
    file = head_file(task)
    try:
        head = head_from_bytes(data)
    except BlossomError as error:
        raise invalid(source, f"member {file}: {error}", hint=EXPORT_AGAIN) from None
    inputs = sum(embedding_width(federation, encoder_id(m)) + 1 for m in modalities)
    outputs = federation.tasks[task].num_outputs
    if not head.fits(num_features=inputs, num_outputs=outputs):
        found = f"found {head.num_features} inputs and {head.num_outputs} outputs, expected {inputs} and {outputs}"
        raise invalid(source, f"member {file}: {found}", hint=EXPORT_AGAIN)
    return head


def _read(data: bytes, what: str, file: str, source: str) -> _Arrays:
    try:
        tensors, metadata = safetensors_file.read(data)
    except BlossomError as error:
        raise invalid(source, f"member {file}: {error}") from None
    if metadata.get("of") != what:
        found = repr(metadata.get("of"))[:80]
        raise invalid(
            source, f"member {file}: found the values of {found}, expected those of {what}", hint=EXPORT_AGAIN
        )
    return tensors


def _checked(tensors: _Arrays, shapes: Mapping[str, tuple[int, ...]], file: str, source: str) -> _Arrays:
    """Exactly these names and shapes, float32, finite."""
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise invalid(source, f"member {file}: tensor {missing[0]} is missing", hint=EXPORT_AGAIN)
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise invalid(source, f"member {file}: found tensor {extra[0][:80]!r}, expected none such", hint=EXPORT_AGAIN)
    for name, values in sorted(tensors.items()):
        if values.dtype != np.float32 or values.shape != shapes[name]:
            found = f"found {values.dtype} {list(values.shape)}, expected float32 {list(shapes[name])}"
            raise invalid(source, f"member {file}: {name}: {found}", hint=EXPORT_AGAIN)
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            raise invalid(
                source,
                f"member {file}: {name}: found {bad} values that are NaN or infinite, expected none",
                hint="export it again from a device whose model works",
            )
    return tensors
