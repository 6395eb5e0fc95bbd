"""Whether a skeleton with given weights computes in onnxruntime what the block computes in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import BlockId, BlockSpec, Tensors
from blossom_edge.core.errors import RemoteError
from blossom_edge.export.graph import export_failed
from blossom_edge.export.module import block_module
from blossom_edge.export.ports import Values, block_ports
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.inference.runtime import RuntimeOptions, Session, make_session

LARGEST_ERROR = 1e-5
"""The largest difference between both, relative to the largest output of torch (or to 1, if that is smaller)."""
BATCHES = (1, 4, 7)
MODALITIES = (1, 2, 3)


def check_parity(
    federation: Federation, block: BlockId, skeleton: bytes, *, seed: int, windows: Sequence[NDArray[Any]] = ()
) -> float:
    """Run one block in both with random weights, and return the largest relative error.

    Inputs are random, in batches of 1, 4 and 7 rows, of 1 to 3 modalities with random masks among them, and, for an
    encoder, each of `windows`: (batch, time, width), for example recorded ones.

    Raises:
        BlossomError: `export-failed`: the error is above 1e-5, or an output has another shape.
        ConfigError: `package-missing`: onnxruntime.
    """
    spec, ports = federation.spec[block], block_ports(federation, block)
    tensors = random_values(spec, seed=seed)
    digest = skeleton_digest(federation, block)
    try:
        session = make_session(skeleton, spec, tensors, digest=digest, options=RuntimeOptions(), name=str(block))
    except RemoteError as error:
        raise export_failed(spec, f"the skeleton cannot be used: {error}") from None
    module = block_module(federation, block, tensors)
    many = MODALITIES if any("modality" in port.shape for port in ports.inputs) else (1,)
    cases = [ports.example(batch=b, modalities=m, seed=seed + b + 16 * m) for b in BATCHES for m in many]
    cases += [{"window": np.ascontiguousarray(w, dtype=np.float32)} for w in windows]
    return max(_compare(spec, module, session, case) for case in cases)


def random_values(spec: BlockSpec, *, seed: int) -> Tensors:
    """Random weights of about the size that training gives: normal with a spread of 1/sqrt(inputs), at most 0.3."""
    generator = np.random.Generator(np.random.Philox(seed))
    values: dict[str, NDArray[np.float32]] = {}
    for tensor in spec.tensors:
        inputs = int(np.prod(tensor.shape[1:])) if len(tensor.shape) > 1 else 1
        spread = min(0.3, 1.0 / np.sqrt(inputs))
        values[tensor.name] = (spread * generator.standard_normal(tensor.shape)).astype(np.float32)
    return values


def largest_error(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """The largest difference, relative to the largest expected value or to 1; infinite where one is not a number."""
    if expected.size == 0:
        return 0.0
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(expected.astype(np.float64) - found.astype(np.float64)).max()) / scale
    return error if np.isfinite(error) else float("inf")


def _compare(spec: BlockSpec, module: Any, session: Session, inputs: Values) -> float:
    import torch

    with torch.no_grad():
        given = module(*(torch.from_numpy(value) for value in inputs.values()))
    expected = [value.numpy() for value in (given if isinstance(given, tuple) else (given,))]
    found = session.run({name: inputs[name] for name in session.inputs})
    shapes = {name: value.shape for name, value in inputs.items()}
    if (wrong := [list(v.shape) for v in found]) != (right := [list(v.shape) for v in expected]):
        raise export_failed(spec, f"for {_words(shapes)} onnxruntime gives {wrong}, torch {right}")
    error = max(largest_error(a, b) for a, b in zip(expected, found, strict=True))
    if not error <= LARGEST_ERROR:
        raise export_failed(
            spec, f"for {_words(shapes)} onnxruntime is {error:.1e} away from torch, expected at most {LARGEST_ERROR:g}"
        )
    return error


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
