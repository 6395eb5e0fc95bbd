"""One block as an ONNX graph without its weights: a skeleton. Needs torch, onnx and onnxscript; writes no file.

torch's exporter, told to optimise, folds, reorders and renames parameters, and which ones depends on their size. So it
is told not to, and afterwards everything is folded that is not derived from a parameter. What stays in the graph of a
parameter (a transposition, the reordering of the gates of a GRU) is folded by onnxruntime when it makes the session.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

from blossom_edge.codec.skeleton_file import (
    DIGEST_KEY,
    EXPORTER_KEY,
    MAX_IR_VERSION,
    MAX_OPSET,
    MAX_SKELETON_BYTES,
    TYPE_KEY,
    seal_skeleton,
)
from blossom_edge.core.blocks import BlockId, BlockSpec
from blossom_edge.core.errors import BlossomError
from blossom_edge.export.needed import need_exporter
from blossom_edge.export.ports import AXES, Port, Ports, block_ports
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digest

_FOLD_LIMIT = 8192
"""A folded constant has at most this many bytes: what is larger stays in the graph as it is."""
_MAX_FOLDS = 8
_CHATTER = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")


def export_skeleton(federation: Federation, block: BlockId) -> bytes:
    """The skeleton of one block: an ONNX file in which every parameter is a named, empty place of its shape.

    Equal federations, and equal versions of torch and onnxscript, give equal bytes. Whether it computes what torch
    does is for `parity` to say.

    Raises:
        ConfigError: `package-missing`.
        BlossomError: `export-failed`: torch cannot export the module, a parameter was lost on the way, or it is too
            large.
        KeyError: the federation has no such block.
    """
    need_exporter()
    from blossom_edge.export.module import block_module

    spec, ports = federation.spec[block], block_ports(federation, block)
    model = export_graph(block_module(federation, block), ports, what=str(block))
    fold_around_parameters(model, {t.name for t in spec.tensors})
    data = _skeleton_bytes(model, spec, ports, digest=skeleton_digest(federation, block))
    if len(data) > MAX_SKELETON_BYTES:
        raise export_failed(spec, f"its skeleton has {len(data)} bytes, at most {MAX_SKELETON_BYTES} can be sent")
    return data


def exporter_versions() -> dict[str, str]:
    """The versions that decide about the bytes of a skeleton, by package."""
    import onnxscript
    import torch

    return {"torch": torch.__version__.partition("+")[0], "onnxscript": onnxscript.__version__}


def export_graph(module: Any, ports: Ports, *, what: str, optimize: bool = False, takes_many: bool = False) -> Any:
    """The module in torch's ONNX form (`onnx_ir.Model`); batch and modality stay open.

    optimize: with torch's own foldings, which lose the names of parameters. takes_many: `forward` has `*inputs`.

    Raises:
        BlossomError: `export-failed`.
    """
    import torch

    dims = {name: torch.export.Dim(name, min=1, max=most) for name, most in AXES.items()}
    # sizes of 1 would be taken for constants
    inputs = {name: torch.from_numpy(v) for name, v in ports.example(batch=3, modalities=2, seed=0).items()}
    shapes = tuple({i: dims[a] for i, a in enumerate(p.shape) if isinstance(a, str)} for p in ports.inputs)
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs[p.name] for p in ports.inputs),
                input_names=[p.name for p in ports.inputs],
                output_names=[p.name for p in ports.outputs],
                opset_version=MAX_OPSET,
                dynamo=True,
                optimize=optimize,
                external_data=False,
                verbose=False,
                dynamic_shapes=(shapes,) if takes_many else shapes,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise BlossomError("export-failed", f"{what}: torch cannot export it: {_reason(error)}", hint=_HINT) from error
    if program is None:
        raise BlossomError("export-failed", f"{what}: torch exported nothing", hint=_HINT)
    return program.model


def fold_around_parameters(model: Any, parameters: set[str]) -> None:
    """Work out everything that is the same for all inputs and weights; leave what is derived from a parameter."""
    import onnxscript.optimizer as optimizer

    optimizer.inline(model)
    for _ in range(_MAX_FOLDS):
        derived = _derived(model, parameters)

        def should_fold(node: Any, derived: set[str] = derived) -> bool | None:
            return False if any(v is not None and v.name in derived for v in node.inputs) else None

        with _quiet():
            result = optimizer.fold_constants(
                model,
                onnx_shape_inference=True,
                input_size_limit=_FOLD_LIMIT,
                output_size_limit=_FOLD_LIMIT,
                should_fold=should_fold,
            )
            optimizer.remove_unused_nodes(model)
        if not result.modified:
            return


def export_failed(spec: BlockSpec, why: str) -> BlossomError:
    """The `export-failed` error of a block."""
    return BlossomError("export-failed", f"{spec.id} ({spec.type}): {why}", hint=_HINT)


_HINT = "blossom_edge.testing.block_types checks a block type step by step"


def _reason(error: BaseException) -> str:
    """The first line of what torch's exporter stumbled over; around it are pages about how to debug torch."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _derived(model: Any, parameters: set[str]) -> set[str]:
    """The names of all values that depend on a parameter."""
    derived = set(parameters)
    for node in model.graph:  # sorted: a value is made before it is used
        if any(value is not None and value.name in derived for value in node.inputs):
            derived.update(value.name for value in node.outputs)
    return derived


def _skeleton_bytes(model: Any, spec: BlockSpec, ports: Ports, *, digest: str) -> bytes:
    import onnx
    import onnx_ir

    proto = onnx_ir.to_proto(model)
    graph = proto.graph
    expected = {t.name: t.shape for t in spec.tensors}
    found = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    if lost := sorted(name for name, shape in expected.items() if found.get(name) != shape):
        raise export_failed(spec, f"the graph lost {', '.join(lost)}")
    if proto.functions or any(node.domain not in ("", "ai.onnx") for node in graph.node):
        domains = sorted({node.domain for node in graph.node if node.domain} | {f.domain for f in proto.functions})
        raise export_failed(spec, f"found operators of {', '.join(domains)}, expected those of ONNX alone")
    at = 0
    for tensor in graph.initializer:
        if tensor.name in expected:
            at += _empty(tensor, at)
    _strip(graph)
    _rename(graph, keep={*expected, *(p.name for p in (*ports.inputs, *ports.outputs))})
    by_name = sorted(graph.initializer, key=lambda t: (t.name not in expected, t.name))
    clean = onnx.helper.make_graph(
        list(graph.node),
        spec.type,
        [_value_info(p) for p in ports.inputs if p.name in {i.name for i in graph.input}],
        [_value_info(p) for p in ports.outputs],
        initializer=by_name,
    )
    result = onnx.helper.make_model(
        clean,
        ir_version=MAX_IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", MAX_OPSET)],
        producer_name="blossom-edge",
    )
    exporter = " ".join(f"{name} {version}" for name, version in exporter_versions().items())
    onnx.helper.set_model_props(result, {DIGEST_KEY: digest, TYPE_KEY: spec.type, EXPORTER_KEY: exporter})
    if (opset := {o.domain: o.version for o in proto.opset_import}.get("")) != MAX_OPSET:
        raise export_failed(spec, f"the exporter gave opset {opset}, expected {MAX_OPSET}")
    return seal_skeleton(bytes(result.SerializeToString(deterministic=True)))


def _empty(tensor: Any, at: int) -> int:
    """Turn a parameter into a place for one; returns how many bytes go there."""
    size: int = math.prod(tensor.dims) * 4
    for field in ("raw_data", "float_data", "doc_string", "external_data", "metadata_props"):
        tensor.ClearField(field)
    tensor.data_location = tensor.EXTERNAL
    for key, value in (("location", "weights"), ("offset", str(at)), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return size


def _strip(graph: Any) -> None:
    """Drop what is for people alone: names and notes of nodes."""
    for node in graph.node:
        for field in ("name", "doc_string", "metadata_props", "overload"):
            node.ClearField(field)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.HasField("g"):
                _strip(attribute.g)
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")


def _rename(graph: Any, *, keep: set[str]) -> None:
    """Number the values between inputs and outputs: the exporter's own names change with its versions."""
    new: dict[str, str] = {"": "", **{name: name for name in keep}}

    def name_of(old: str) -> str:
        if old not in new:
            new[old] = f"_{len(new)}"
        return new[old]

    def walk(part: Any) -> None:
        for node in part.node:
            node.input[:] = [name_of(name) for name in node.input]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    walk(attribute.g)
            node.output[:] = [name_of(name) for name in node.output]
        for value in (*part.initializer, *part.input, *part.output):
            value.name = name_of(value.name)

    walk(graph)


def _value_info(port: Port) -> Any:
    import onnx

    element = onnx.TensorProto.BOOL if port.is_bool else onnx.TensorProto.FLOAT
    return onnx.helper.make_tensor_value_info(port.name, element, list(port.shape))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter warns, logs and prints to itself: what matters is raised, or seen by the checks."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
