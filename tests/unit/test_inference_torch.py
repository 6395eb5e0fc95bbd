"""What runs without torch gives what torch gives: the chain, the scores, and the gradients of a personal head."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from blossom_edge.federation.initial import initial_block  # noqa: E402
from blossom_edge.federation.load import load_federation  # noqa: E402
from blossom_edge.federation.schema import Task  # noqa: E402
from blossom_edge.inference.chain import OnnxModel  # noqa: E402
from blossom_edge.inference.head import HeadValues, apply_head, loss_and_gradients  # noqa: E402
from blossom_edge.inference.scoring import score  # noqa: E402
from blossom_edge.inference.skeleton_set import SkeletonSet  # noqa: E402
from blossom_edge.models.block_model import BlockModel  # noqa: E402
from blossom_edge.training.losses import score_sums, training_loss  # noqa: E402

pytestmark = pytest.mark.torch

ATTENTION = ("har", 'blocks."fusion/har".type=attention')
TASKS = {
    "classification": Task(type="classification", classes=("a", "b", "c")),
    "multilabel": Task(type="multilabel", classes=("a", "b", "c")),
    "regression": Task(type="regression", unit="m"),
}


def masks_of(kind: str, modalities: list[str], num: int) -> dict[str, np.ndarray]:
    generator = np.random.Generator(np.random.Philox(3))
    masks = {m: np.ones(num, np.bool_) for m in modalities}
    if kind == "some rows":
        masks = {m: generator.random(num) < 0.6 for m in modalities}
    if kind == "one modality":
        masks |= {m: np.zeros(num, np.bool_) for m in modalities[1:]}
    if kind == "nothing":
        masks = {m: np.zeros(num, np.bool_) for m in modalities}
    return masks


@pytest.mark.parametrize("name", ["har", "two-tasks", "audio-image", ATTENTION])
def test_the_chain_gives_what_the_torch_model_gives(name: str | tuple[str, str]) -> None:
    federation = load_federation(name) if isinstance(name, str) else load_federation(name[0], sets=name[1:])
    blocks = {s.id: initial_block(s, federation.digest, 3) for s in federation.spec.blocks}
    model = BlockModel(federation, list(blocks))
    model.load(blocks)
    model.eval()
    chain = OnnxModel.build(federation, blocks, SkeletonSet().get)
    assert chain.tasks == model.tasks
    generator = np.random.Generator(np.random.Philox(1))
    for num in (1, 5):
        inputs = {
            m: generator.standard_normal((num, s.window, s.width), dtype=np.float32)
            for m, s in federation.modalities.items()
        }
        for kind in ("all", "some rows", "one modality", "nothing"):
            present = masks_of(kind, sorted(inputs), num)
            with torch.inference_mode():
                expected = model(
                    {m: torch.from_numpy(x) for m, x in inputs.items()},
                    {m: torch.from_numpy(x) for m, x in present.items()},
                )
            found = chain.outputs(inputs, present)
            assert found.keys() == expected.keys(), (num, kind)
            for task, values in expected.items():
                np.testing.assert_allclose(found[task], values.numpy(), atol=1e-5, err_msg=f"{task} {num} {kind}")


def labels_of(kind: str, num: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(9))
    if kind == "classification":
        return generator.integers(0, 3, num)
    if kind == "multilabel":
        return (generator.random((num, 3)) < 0.5).astype(np.float32)
    return generator.standard_normal(num, dtype=np.float32)


@pytest.mark.parametrize("kind", ["softmax", "hidden"])
@pytest.mark.parametrize("task_type", sorted(TASKS))
def test_loss_and_gradients_of_a_head_are_those_of_torch(kind: str, task_type: str) -> None:
    outputs = 1 if task_type == "regression" else 3
    generator = np.random.Generator(np.random.Philox(4))
    shapes = {"layers.0.weight": (outputs, 6), "layers.0.bias": (outputs,)}
    if kind == "hidden":
        shapes = {"layers.0.weight": (5, 6), "layers.0.bias": (5,)}
        shapes |= {"layers.1.weight": (outputs, 5), "layers.1.bias": (outputs,)}
    head = HeadValues(kind, {n: generator.standard_normal(s, dtype=np.float32) for n, s in shapes.items()})
    features, labels = generator.standard_normal((17, 6), dtype=np.float32), labels_of(task_type, 17)
    parameters = {n: torch.tensor(v, requires_grad=True) for n, v in head.tensors.items()}
    x = torch.from_numpy(features) @ parameters["layers.0.weight"].T + parameters["layers.0.bias"]
    if kind == "hidden":
        x = torch.relu(x) @ parameters["layers.1.weight"].T + parameters["layers.1.bias"]
    expected = training_loss(TASKS[task_type], x, torch.from_numpy(labels))
    expected.backward()
    loss, gradients = loss_and_gradients(head, features, labels, task_type)
    np.testing.assert_allclose(apply_head(head, features), x.detach().numpy(), atol=1e-5)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert gradients.keys() == parameters.keys()
    for name, parameter in parameters.items():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("task_type", sorted(TASKS))
def test_scores_are_those_of_the_trainer(task_type: str) -> None:
    generator = np.random.Generator(np.random.Philox(6))
    outputs = 3 * generator.standard_normal((20, 1 if task_type == "regression" else 3), dtype=np.float32)
    labels = labels_of(task_type, 20)
    expected = score_sums(TASKS[task_type], torch.from_numpy(outputs), torch.from_numpy(labels))
    found = score("gait", TASKS[task_type], outputs, labels)
    assert found.keys() == {f"gait.{name}" for name in expected}
    for name, total in expected.items():
        assert found[f"gait.{name}"].total == pytest.approx(total.item(), rel=1e-5)
        assert found[f"gait.{name}"].count == 20
