"""A personal head in numpy: a softmax layer or one hidden layer over the features of `features.head_features`.

It is trained on the device's own labels and never leaves it. Its tensors have the names and the layout of the torch
block type `mlp`. Never imports torch or onnxruntime, nor numpy.random (5 to 7 MB on a small board).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array
from blossom_edge.federation.philox import philox_words
from blossom_edge.inference.head_values import (
    HIDDEN,
    NAMES,
    SOFTMAX,
    HeadValues,
    Values,
    head_from_bytes,
    head_invalid,
    head_to_bytes,
)
from blossom_edge.inference.scoring import labelled_rows

__all__ = ["Fit", "HeadValues", "apply_head", "fit_head", "head_from_bytes", "head_to_bytes", "loss_and_gradients"]

BATCH = 32
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2
"""Decoupled (AdamW), on weights: a head of thousands of values learns from tens to hundreds of windows."""
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_START_ANEW = "leave the old head out, so that a new one is fitted"


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit_head` did; `finished`: all passes were made.

    `loss` is the head's mean loss on the labelled windows; of a regression the squared error in the unit of the labels.
    """

    head: HeadValues
    loss: float
    steps: int
    finished: bool = True


def apply_head(head: HeadValues, features: Array) -> Values:
    """(n, features) to (n, outputs): logits, or for a regression the value in the unit of its labels.

    Raises:
        ConfigError: `head-invalid`: the features have another width.
    """
    _check_width(head, features)
    return _forward(_layers(head), np.asarray(features, np.float32))[-1]


def loss_and_gradients(
    head: HeadValues, features: Array, labels: NDArray[Any], task_type: str
) -> tuple[float, dict[str, Values]]:
    """The mean loss over the windows and its gradient by every tensor: what torch's autograd gives.

    Cross entropy, binary cross entropy (the mean over windows and classes), or the squared error of the first output.
    All windows must have a label.

    Raises:
        ConfigError: `head-invalid`: the features have another width.
    """
    _check_width(head, features)
    gradients = {name: np.zeros_like(values) for name, values in head.tensors.items()}
    layers = _layers(HeadValues(head.kind, gradients))
    return _learn(_layers(head), layers, np.asarray(features, np.float32), labels, task_type), gradients


def fit_head(
    features: Array,
    labels: NDArray[Any],
    *,
    task_type: str,
    num_outputs: int,
    head: HeadValues | None = None,
    hidden: int = 64,
    epochs: int = 10,
    seed: int = 0,
    keep_going: Callable[[], bool] | None = None,
) -> Fit:
    """Train a head on the labelled windows: a new one with `hidden` ReLUs (0: softmax), or go on from `head`.

    features (n, d); labels as in `WindowSet.labels`. Inside, features (and the labels of a regression) are standardised
    by their own mean and spread; both are folded into the layers before and after, so that what comes out is a plain
    head on raw features. Equal arguments give equal bits on one machine. `keep_going` is asked before each pass of
    `epochs`; when it says no, the head as it is then is given.

    Raises:
        ConfigError: `head-invalid`: no labelled window, a class that is none, a `head` for another width (features of
            other modalities: start anew), or values that are not finite.
    """
    rows = labelled_rows(labels)
    x, y = np.asarray(features, np.float32)[rows], labels[rows]
    _check_labels(y, task_type, num_outputs)
    if head is not None and not head.fits(num_features=x.shape[1], num_outputs=num_outputs):
        have, want = (head.num_features, head.num_outputs), (x.shape[1], num_outputs)
        raise head_invalid(f"one for (features, outputs) {have} cannot go on with {want}", hint=_START_ANEW)
    scales = _Scales.of(x, y, task_type)
    begun = scales.inside(
        head if head is not None else _new_head(x.shape[1], num_outputs, hidden, seed=seed), new=head is None
    )
    x, inside_y = scales.features(x), scales.labels(y)
    flat = _Flat(begun)
    steps, finished = 0, True
    for epoch in range(epochs):
        if keep_going is not None and not keep_going():
            finished = False
            break
        for batch in _batches(len(x), seed=seed, epoch=epoch):
            steps += 1
            _learn(flat.layers, flat.gradients, x[batch], inside_y[batch], task_type)
            flat.step(steps)
    done = scales.outside(flat.values())
    loss = _loss(_forward(_layers(done), np.asarray(features, np.float32)[rows])[-1], y, task_type)[0]
    return Fit(done, loss, steps, finished)


Layers = list[tuple[Values, Values]]


def _layers(head: HeadValues) -> Layers:
    names = NAMES[head.kind]
    return [(head.tensors[w], head.tensors[b]) for w, b in zip(names[::2], names[1::2], strict=True)]


def _forward(layers: Layers, x: Values) -> list[Values]:
    """What each layer gives, after its ReLU; the last one has none."""
    found = []
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T
        x += bias
        if i + 1 < len(layers):
            np.maximum(x, 0.0, out=x)
        found.append(x)
    return found


def _learn(layers: Layers, gradients: Layers, x: Values, labels: NDArray[Any], task_type: str) -> float:
    """The mean loss; its gradients are written into `gradients`."""
    states = _forward(layers, x)
    loss, delta = _loss(states[-1], labels, task_type)
    for i in reversed(range(len(layers))):
        weight_gradient, bias_gradient = gradients[i]
        below = states[i - 1] if i else x
        np.matmul(delta.T, below, out=weight_gradient)
        delta.sum(axis=0, out=bias_gradient)
        if i:
            delta = delta @ layers[i][0]
            delta *= below > 0
    return loss


def _loss(outputs: Values, labels: NDArray[Any], task_type: str) -> tuple[float, Values]:
    """The mean loss and its gradient by the outputs."""
    num = len(outputs)
    if task_type == "classification":
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        delta = np.exp(shifted)
        sums = delta.sum(axis=1)
        rows = np.arange(num)
        loss = float((np.log(sums) - shifted[rows, labels]).mean())
        delta /= sums[:, None]
        delta[rows, labels] -= 1.0
        return loss, delta / np.float32(num)
    if task_type == "multilabel":
        wanted = labels.astype(np.float32, copy=False)
        each = np.maximum(outputs, 0.0) - outputs * wanted + np.log1p(np.exp(-np.abs(outputs)))
        delta = (np.tanh(outputs * 0.5) + 1.0) * 0.5 - wanted
        return float(each.mean()), (delta / np.float32(delta.size)).astype(np.float32, copy=False)
    error = outputs[:, 0] - labels.astype(np.float32, copy=False)
    delta = np.zeros_like(outputs)
    delta[:, 0] = error * np.float32(2.0 / num)
    return float(np.square(error).mean()), delta


class _Flat:
    """A head's values in one array with AdamW's state beside it: a step is a few operations, however many layers."""

    def __init__(self, head: HeadValues) -> None:
        self.kind = head.kind
        shapes = {name: head.tensors[name].shape for name in NAMES[head.kind]}
        size = sum(math.prod(shape) for shape in shapes.values())
        self._weights, self._gradients, self._decay = (np.zeros(size, np.float32) for _ in range(3))
        self._mean, self._square = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._named, slopes = {}, {}
        at = 0
        for name, shape in shapes.items():
            end = at + math.prod(shape)
            self._weights[at:end] = head.tensors[name].ravel()
            self._decay[at:end] = WEIGHT_DECAY if name.endswith("weight") else 0.0
            self._named[name] = self._weights[at:end].reshape(shape)
            slopes[name] = self._gradients[at:end].reshape(shape)
            at = end
        names = NAMES[head.kind]
        pairs = list(zip(names[::2], names[1::2], strict=True))
        self.layers: Layers = [(self._named[w], self._named[b]) for w, b in pairs]
        self.gradients: Layers = [(slopes[w], slopes[b]) for w, b in pairs]

    def values(self) -> HeadValues:
        """A copy of the head as it is."""
        if not np.isfinite(self._weights).all():
            raise head_invalid("learning gave values that are not finite")
        return HeadValues(self.kind, {name: values.copy() for name, values in self._named.items()})

    def step(self, number: int) -> None:
        """One step of AdamW (arXiv:1711.05101) with the gradients that are there; `number` counts from 1."""
        first, second = _BETAS
        self._mean += (1 - first) * (self._gradients - self._mean)
        self._square += (1 - second) * (np.square(self._gradients) - self._square)
        rate = LEARNING_RATE * math.sqrt(1 - second**number) / (1 - first**number)
        self._weights -= LEARNING_RATE * self._decay * self._weights
        self._weights -= rate * self._mean / (np.sqrt(self._square) + _EPSILON)


@dataclass(frozen=True, slots=True)
class _Scales:
    """Mean and spread of features and of a regression's labels; a head can be moved in and out without loss.

    All features have one spread: one for each would make the noise of a feature that hardly moves as loud as the rest.
    """

    mean: NDArray[np.float64]
    spread: float
    centre: float
    scale: float

    @classmethod
    def of(cls, x: Values, y: NDArray[Any], task_type: str) -> _Scales:
        mean = x.mean(axis=0, dtype=np.float64)
        spread = float(np.sqrt(np.square(x - mean).mean())) or 1.0
        if task_type != "regression":
            return cls(mean, spread, 0.0, 1.0)
        return cls(mean, spread, float(y.mean(dtype=np.float64)), float(y.std(dtype=np.float64)) or 1.0)

    def features(self, x: Values) -> Values:
        return ((x - self.mean) / self.spread).astype(np.float32)

    def labels(self, y: NDArray[Any]) -> NDArray[Any]:
        return ((y - self.centre) / self.scale).astype(np.float32) if y.dtype.kind == "f" else y

    def inside(self, head: HeadValues, *, new: bool) -> HeadValues:
        """From raw features and units to standardised ones; a new head is at home there."""
        if new:
            return head
        t = {name: values.astype(np.float64) for name, values in head.tensors.items()}
        t["layers.0.bias"] += t["layers.0.weight"] @ self.mean
        t["layers.0.weight"] *= self.spread
        weight, bias = NAMES[head.kind][-2:]
        t[bias] = (t[bias] - self.centre) / self.scale
        t[weight] /= self.scale
        return _head(head.kind, t)

    def outside(self, head: HeadValues) -> HeadValues:
        """The reverse of `inside`."""
        t = {name: values.astype(np.float64) for name, values in head.tensors.items()}
        weight, bias = NAMES[head.kind][-2:]
        t[weight] *= self.scale
        t[bias] = t[bias] * self.scale + self.centre
        t["layers.0.weight"] /= self.spread
        t["layers.0.bias"] -= t["layers.0.weight"] @ self.mean
        return _head(head.kind, t)


def _head(kind: str, tensors: Mapping[str, NDArray[np.float64]]) -> HeadValues:
    return HeadValues(kind, {name: values.astype(np.float32) for name, values in tensors.items()})


def _new_head(num_features: int, num_outputs: int, hidden: int, *, seed: int) -> HeadValues:
    """Uniform in +-1/sqrt(inputs) of each layer, as torch's; a softmax layer starts at zero."""
    if hidden == 0:
        zeros = np.zeros((num_outputs, num_features), np.float32), np.zeros(num_outputs, np.float32)
        return HeadValues(SOFTMAX, dict(zip(NAMES[SOFTMAX], zeros, strict=True)))
    tensors: dict[str, Values] = {}
    for i, (outputs, inputs) in enumerate(((hidden, num_features), (num_outputs, hidden))):
        for name, shape in ((f"layers.{i}.weight", (outputs, inputs)), (f"layers.{i}.bias", (outputs,))):
            words = philox_words(_key(f"{seed}\n{name}"), math.prod(shape)) >> np.uint64(11)
            unit = words.astype(np.float64) * 2.0**-52 - 1.0
            tensors[name] = (unit / math.sqrt(inputs)).astype(np.float32).reshape(shape)
    return HeadValues(HIDDEN, tensors)


def _batches(num: int, *, seed: int, epoch: int) -> Iterator[NDArray[np.int_]]:
    """A new order in each pass, in batches of nearly equal size, at most `BATCH`."""
    order = np.argsort(philox_words(_key(f"{seed}\norder\n{epoch}"), num), kind="stable")
    yield from np.array_split(order, -(-num // BATCH))


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def _check_width(head: HeadValues, features: Array) -> None:
    if features.ndim != 2 or features.shape[1] != head.num_features:
        raise head_invalid(f"features {features.shape}, expected (n, {head.num_features})", hint=_START_ANEW)


def _check_labels(y: NDArray[Any], task_type: str, num_outputs: int) -> None:
    if not len(y):
        raise head_invalid("no labelled window to learn from", hint="label some: blossom-edge label")
    if task_type == "classification" and (y.dtype.kind not in "iu" or int(y.max()) >= num_outputs):
        raise head_invalid(f"found label {y.max()}, expected a class from 0 to {num_outputs - 1}")
    if task_type == "multilabel" and y.shape[1:] != (num_outputs,):
        raise head_invalid(f"labels {y.shape}, expected (n, {num_outputs})")
