"""Whether a block type keeps what the federation relies on: for the tests of a package that brings one of its own.

    def test_tiny_conv_is_a_block_type():
        federation = load_federation("har", sets=["blocks.encoder/accel={type='tiny_conv'}"])
        check_block_type(federation, BlockId.parse("encoder/accel"))

Our own types are held to the same. Needs `blossom-edge[export]`; takes about a second for a small block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blossom_edge.core.blocks import BlockId, BlockSpec
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation

BATCH = 5
TOLERANCE = 1e-5


class NotKept(AssertionError):
    """A block type breaks a rule: which block, which rule, what was found."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A block that keeps all rules: the size of its skeleton, and how far onnxruntime is from torch (relative)."""

    block: BlockId
    skeleton_bytes: int
    error: float


def check_block_type(federation: Federation, block: BlockId, *, seed: int = 0) -> Checked:
    """Check one block of a federation, and with it its type with these options.

    * its module has exactly the tensors of the specification, all float32 parameters, no buffers and no other tensors
    * its first values are finite, and no matrix of them is all zero
    * every parameter gets a finite gradient
    * a row's output does not depend on the other rows; what is absent does not matter to a fusion
    * it can be exported, no parameter is lost, and onnxruntime computes what torch does

    Raises:
        NotKept: the first rule that is broken.
        BlossomError: `export-failed`.
        ConfigError: `package-missing`.
    """
    from blossom_edge.export.graph import export_skeleton
    from blossom_edge.export.needed import need_exporter
    from blossom_edge.export.parity import check_parity

    need_exporter()
    spec = federation.spec[block]
    _check_tensors(federation, spec)
    _check_first_values(federation, spec)
    _check_computation(federation, spec, seed=seed)
    skeleton = export_skeleton(federation, block)
    return Checked(block, len(skeleton), check_parity(federation, block, skeleton, seed=seed))


def _check_tensors(federation: Federation, spec: BlockSpec) -> None:
    import torch

    from blossom_edge.models.block_model import make_block

    names = [t.name for t in spec.tensors]
    _hold(spec, names == sorted(names), f"`tensors` are in the order {', '.join(names)}, expected sorted by name")
    with torch.device("meta"):  # as the model of a device makes it: without values
        module = make_block(federation, spec)
    parameters = {name: tuple(value.shape) for name, value in module.named_parameters()}
    expected = {t.name: t.shape for t in spec.tensors}
    for name in sorted({*parameters, *expected}):
        found, wanted = parameters.get(name), expected.get(name)
        _hold(spec, found == wanted, f"parameter {name} of its module has shape {found}, `tensors` says {wanted}")
    buffers = [name for name, _ in module.named_buffers()]
    _hold(spec, not buffers, f"buffers {', '.join(buffers)}: they would not be averaged; use none (no batch norm)")
    for name, value in module.named_parameters():
        _hold(spec, value.dtype == torch.float32, f"parameter {name} is {value.dtype}, expected float32")
    for where, part in module.named_modules():
        for name, value in vars(part).items():
            label = f"{where}.{name}".lstrip(".")
            is_tensor = isinstance(value, torch.Tensor)
            _hold(spec, not is_tensor, f"{label} is a tensor and no parameter; make it in forward")


def _check_first_values(federation: Federation, spec: BlockSpec) -> None:
    for name, values in initial_block(spec, federation.digest, federation.seed).items():
        _hold(spec, bool(np.isfinite(values).all()), f"first values of {name} are not finite")
        dead = values.ndim > 1 and not values.any()
        _hold(spec, not dead, f"{name} starts at zero; a matrix must be called `weight`, alone or behind a dot")


def _check_computation(federation: Federation, spec: BlockSpec, *, seed: int) -> None:
    import torch

    from blossom_edge.export.module import block_module
    from blossom_edge.export.ports import block_ports

    ports = block_ports(federation, spec.id)
    module = block_module(federation, spec.id, initial_block(spec, federation.digest, federation.seed))
    inputs = {n: torch.from_numpy(v) for n, v in ports.example(batch=BATCH, modalities=3, seed=seed).items()}
    outputs = _outputs(module(*inputs.values()))
    for port, value in zip(ports.outputs, outputs, strict=True):
        found, wanted = list(value.shape), [BATCH if isinstance(axis, str) else axis for axis in port.shape]
        _hold(spec, found == wanted, f"{port.name} has shape {found}, expected {wanted}")
        _hold(spec, bool(torch.isfinite(value).all()), f"{port.name} has values that are not finite")
    moved = [value.square().sum() for value in outputs if value.requires_grad]
    if moved:
        torch.autograd.backward(moved)
    for name, parameter in module.named_parameters():
        good = parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
        _hold(spec, good, f"parameter {name} gets no finite gradient")
    with torch.no_grad():
        alone = _outputs(module(*(value[:1] for value in inputs.values())))
        _hold(spec, _near(alone, [v[:1] for v in outputs]), "the output of a row depends on the other rows")
        if "present" in inputs:
            absent = ~inputs["present"]
            values = inputs["values"].masked_fill(absent.unsqueeze(2), 7.0)
            other = _outputs(module(values, inputs["scores"].masked_fill(absent, 7.0), inputs["present"]))
            _hold(spec, _near(other, outputs), "the output depends on what is absent")


def _outputs(given: Any) -> list[Any]:
    return list(given) if isinstance(given, tuple) else [given]


def _near(a: list[Any], b: list[Any]) -> bool:
    return all(bool(((x - y).abs() <= TOLERANCE * (1.0 + y.abs())).all()) for x, y in zip(a, b, strict=True))


def _hold(spec: BlockSpec, kept: bool, what: str) -> None:
    if not kept:
        raise NotKept(f"{spec.id} ({spec.type}): {what}")
