"""onnxruntime, loaded when it is needed, and sessions of one block each. Never runs a graph with weights inside.

Weights come in through `add_external_initializers`, before onnxruntime works on the graph. `add_initializer` over
embedded weights would be silently wrong: their old values are already folded into others by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.codec.skeleton_file import check_skeleton
from blossom_edge.core.blocks import Array, BlockSpec, Tensors
from blossom_edge.core.errors import ConfigError, RemoteError

MIN_VERSION = (1, 20)
"""The first onnxruntime that takes values from outside a graph (`add_external_initializers`) as we use it."""
CPU = "CPUExecutionProvider"
INSTALL = "pip install 'blossom-edge[onnx]'"

Feeds = Mapping[str, NDArray[Any]]
Buffers = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How sessions compute: threads inside an operator, whether they spin while they wait, providers by preference.

    The CPU is always there as the last provider; a provider that this onnxruntime does not have is passed over.
    """

    threads: int = 1
    spinning: bool = False
    providers: tuple[str, ...] = ()


DEFAULT_OPTIONS = RuntimeOptions()


class Session:
    """One block, ready to run, from any thread.

    `inputs` are the names that the graph asks for (an input that a block does not use is not among them), `outputs`
    those that it gives; `provider` computes what it can, the CPU the rest.
    """

    __slots__ = ("_errors", "_label", "_session", "inputs", "outputs", "provider")

    def __init__(self, session: Any, *, label: str, errors: tuple[type[Exception], ...]) -> None:
        self.inputs = tuple(str(i.name) for i in session.get_inputs())
        self.outputs = tuple(str(o.name) for o in session.get_outputs())
        self.provider = str(session.get_providers()[0])
        self._session = session
        self._label = label
        self._errors = errors

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Feeds by name (more than the graph asks for may be there) to the outputs, in the order of `outputs`.

        Raises:
            KeyError: an input is missing.
            RemoteError: `skeleton-invalid`: the graph cannot be run on this.
        """
        try:
            found: list[NDArray[Any]] = self._session.run(self.outputs, {name: feeds[name] for name in self.inputs})
        except self._errors as error:
            raise _refused(self._label, error) from error
        return found

    def bind(self, feeds: Buffers, results: Buffers) -> Callable[[], None]:
        """A call that reads and writes these arrays where they lie: it costs about a third of what `run` does.

        The arrays must be contiguous, of the right types, and are kept by the call. It must not be called from two
        threads at once. An output that is not in `results` is dropped. Only for sessions on the CPU.

        Raises:
            KeyError: an input is missing.
            RemoteError: `skeleton-invalid`: the graph does not take these, or (from the call) cannot be run on them.
        """
        session, binding, label, errors = self._session, self._session.io_binding(), self._label, self._errors
        held = {name: feeds[name] for name in self.inputs} | {name: results[name] for name in results}
        try:
            for name in self.inputs:
                array = feeds[name]
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for name in self.outputs:
                if name in results:
                    array = results[name]
                    binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
                else:
                    binding.bind_output(name, "cpu")
        except errors as error:
            raise _refused(label, error) from error

        def call() -> None:
            try:
                session.run_with_iobinding(binding)
            except errors as error:
                raise _refused(f"{label} on {', '.join(held)}", error) from error

        return call


def load_onnxruntime() -> Any:
    """The onnxruntime module; the first call takes about 0.1 s and 20 MB.

    Raises:
        ConfigError: `package-missing`; `runtime-too-old`.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("package-missing", f"onnxruntime cannot be loaded: {error}", hint=INSTALL) from None
    check_version(str(onnxruntime.__version__))
    return onnxruntime


def check_version(found: str) -> None:
    """Hold a version of onnxruntime against the oldest that works; one that cannot be read passes.

    Raises:
        ConfigError: `runtime-too-old`.
    """
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers and (int(numbers[1]), int(numbers[2])) < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        raise ConfigError(
            "runtime-too-old",
            f"onnxruntime: found {found}, expected {least} or newer",
            hint=f"pip install --upgrade 'onnxruntime>={least}'",
        )


def choose_providers(wanted: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Those of `wanted` that are `available`, in order, then the CPU."""
    return (*(p for p in dict.fromkeys(wanted) if p in available and p != CPU), CPU)


def check_block(tensors: Tensors, spec: BlockSpec) -> dict[str, NDArray[np.float32]]:
    """The block's values as contiguous arrays in the order of `spec`: exactly its names and shapes, float32, finite.

    Raises:
        RemoteError: `block-invalid`.
    """
    wanted = {tensor.name: tensor.shape for tensor in spec.tensors}
    if missing := sorted(set(wanted) - set(tensors)):
        raise _block_invalid(spec, f"tensor missing: {missing[0]}")
    if extra := sorted(set(tensors) - set(wanted)):
        raise _block_invalid(spec, f"tensor unknown: {extra[0][:80]}")
    return {name: _checked(spec, name, tensors[name], shape) for name, shape in wanted.items()}


def make_session(
    skeleton: bytes,
    spec: BlockSpec,
    tensors: Tensors,
    *,
    digest: str,
    options: RuntimeOptions = DEFAULT_OPTIONS,
    name: str = "",
) -> Session:
    """Join a skeleton and the values of its block to a session; both are checked before onnxruntime sees them.

    `digest` is the one that the federation asks for (`federation.skeletons.skeleton_digest`); `name` is for errors.
    The session has a copy of the values: theirs may be changed or dropped afterwards.

    Raises:
        ConfigError: `package-missing`, `runtime-too-old`.
        RemoteError: `skeleton-invalid`, `block-invalid`.
    """
    values = check_block(tensors, spec)
    _check_once(skeleton, spec, digest, name)
    runtime = load_onnxruntime()
    label, errors = name or f"skeleton of {spec.id}", _runtime_errors(runtime)
    providers = choose_providers(options.providers, runtime.get_available_providers())
    try:
        settings = _settings(runtime, options)
        held = [runtime.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
        if held:
            settings.add_external_initializers(list(values), held)
        session = runtime.InferenceSession(skeleton, settings, providers=list(providers))
    except errors as error:
        raise _refused(label, error) from error
    return Session(session, label=label, errors=errors)


@lru_cache(maxsize=64)
def _check_once(skeleton: bytes, spec: BlockSpec, digest: str, name: str) -> None:
    """`check_skeleton`, once for what passed: a device checks the same few graphs at every swap, 1 ms each."""
    check_skeleton(skeleton, spec, digest=digest, name=name)


def _settings(runtime: Any, options: RuntimeOptions) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    settings.enable_cpu_mem_arena = False
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    return settings


def _runtime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes of its own, which have only Exception in common, and pybind11's."""
    own = vars(runtime.capi.onnxruntime_pybind11_state).values()
    classes = tuple(c for c in own if isinstance(c, type) and issubclass(c, Exception))
    return (*classes, RuntimeError, ValueError, TypeError, IndexError, MemoryError)


def _checked(spec: BlockSpec, name: str, values: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if values.shape != shape:
        raise _block_invalid(spec, f"{name} has shape {list(values.shape)}, expected {list(shape)}")
    if values.dtype != np.float32:
        raise _block_invalid(spec, f"{name} is {values.dtype}, expected float32")
    if not np.isfinite(values).all():
        raise _block_invalid(spec, f"{name} has values that are not finite")
    return np.ascontiguousarray(values, dtype=np.float32)


def _block_invalid(spec: BlockSpec, what: str) -> RemoteError:
    return RemoteError(f"{spec.id}: {what}", error_id="block-invalid", hint="the block in use goes on running")


def _refused(label: str, error: Exception) -> RemoteError:
    """One line of ours with the first words of onnxruntime's."""
    words = " ".join(str(error).split())[:200]
    return RemoteError(
        f"{label}: onnxruntime refuses it: {type(error).__name__}: {words}",
        error_id="skeleton-invalid",
        hint="export it again: blossom-edge export, then add-skeleton",
    )
