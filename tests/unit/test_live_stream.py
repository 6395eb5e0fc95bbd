"""A live model and the world: own heads, orders of a person, and a stream of windows that does not stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from support.swapping import (
    ACCEL,
    HEAD,
    STORED,
    all_at,
    at,
    held_at,
    live_model,
    outputs,
    own_head,
    running,
    spoiled,
    versions_of,
    windows,
)

from blossom_edge.core.blocks import BlockKey
from blossom_edge.federation.load import load_federation
from blossom_edge.inference.chain import OnnxModel
from blossom_edge.inference.generation import own_name, run_model
from blossom_edge.inference.head_values import HeadValues
from blossom_edge.inference.model_folder import ORDERS
from blossom_edge.inference.orders import Ask, Order

# ---- own heads


def test_own_heads_are_made_for_new_encoders_and_found_again_after_a_restart(tmp_path: Path) -> None:
    live = live_model(tmp_path)
    asked: list[Any] = []

    def make_heads(model: OnnxModel, before: Any) -> dict[str, HeadValues]:
        asked.append((model.blocks, dict(before)))
        return {"har": own_head()}

    live.offer(held_at(1), windows=STORED, make_heads=make_heads)
    live.offer(held_at(2), windows=STORED, make_heads=make_heads)
    assert [set(before) for _, before in asked] == [set(), {"har"}]
    assert live.current is not None
    assert (live.current.head_number, set(live.current.heads)) == (2, {"har"})
    again = live_model(tmp_path, boot=2)
    assert again.current is not None
    assert (again.current.head_number, set(again.current.heads)) == (2, {"har"})
    live.adopt_heads({"har": own_head()})
    assert live.current.head_number == 3
    assert {p.name for p in live.folder.path.glob("head.*")} == {
        "head.har.1.safetensors", "head.har.3.safetensors"
    }  # fmt: skip
    live.rollback(reason="worse")
    assert live.current.head_number == 1


# ---- orders


def test_orders_of_a_person_are_carried_out_and_answered(tmp_path: Path) -> None:
    live = at(tmp_path, 1, 2)
    folder = live.folder.path / ORDERS
    assert live.take_orders() is False
    asks = [
        Ask(folder, Order("pin", (ACCEL,))), Ask(folder, Order("rollback")), Ask(folder, Order("rollback", (HEAD,))),
        Ask(folder, Order("unpin", (ACCEL,))), Ask(folder, Order("pin", (BlockKey(ACCEL.block, "other"),))),
    ]  # fmt: skip
    assert live.take_orders() is True
    answers = [ask.answer() for ask in asks]
    assert [answer is not None and answer.done for answer in answers] == [True, False, True, True, False]
    assert answers[1] is not None
    assert answers[1].message == "encoder/accel is pinned to version 2"
    assert "pin --off" in answers[1].hint
    assert versions_of(live) == {**all_at(2), "head/har": 1}
    assert live.folder.state.pinned == {}
    for ask in asks:
        ask.withdraw()
    assert list(folder.iterdir()) == []


def test_an_order_that_makes_no_sense_is_answered_and_one_from_before_the_start_is_dropped(tmp_path: Path) -> None:
    live = at(tmp_path, 1)
    folder = live.folder.path / ORDERS
    for name, text in (("1.ask", "nonsense"), ("2.ask", '{"word": "explode", "blocks": []}'), ("3.ask", "x" * 20_000)):
        (folder / name).write_text(text)
    assert live.take_orders() is False
    assert sorted(path.name for path in folder.iterdir()) == ["1.answer", "2.answer", "3.answer"]
    old = Ask(folder, Order("rollback"))
    live_model(tmp_path, boot=2)
    assert old.answer() is None
    assert list(folder.iterdir()) == []


# ---- a stream


@pytest.mark.timeout(60)
def test_exchanges_in_the_middle_of_a_stream_lose_and_double_no_window_and_no_prediction_mixes_versions(
    tmp_path: Path,
) -> None:
    batch = windows(24, seed=3)
    live = at(tmp_path, 1)
    generations = {1: running(live)}
    predicted: list[tuple[int, int, dict[str, int], Any]] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def predict_stream() -> None:
        number = 0
        try:
            while not done.is_set() or number % len(batch):
                row = number % len(batch)
                one = batch.take(np.array([row]))
                generation = running(live)
                predicted.append((number, generation.number, generation.shown(), outputs(generation, one)[0]))
                number += 1
        except BaseException as error:  # outermost: told by the test
            failed.append(error)

    stream = threading.Thread(target=predict_stream)
    stream.start()
    try:
        taken = 0
        for version in range(2, 14):
            bad = version % 3 == 0
            held = {**held_at(version), HEAD: spoiled(HEAD, version, np.nan)} if bad else held_at(version, ACCEL, HEAD)
            before = len(predicted)
            swap = live.offer(held_at(version - 1) | {HEAD: held[HEAD]} if bad else held, windows=STORED)
            taken += swap.taken
            generations[running(live).number] = running(live)
            if version % 5 == 0:
                live.rollback(reason="in the stream")
                generations[running(live).number] = running(live)
            until = time.monotonic() + 20.0
            while len(predicted) < before + 3 and stream.is_alive() and time.monotonic() < until:
                done.wait(0.001)  # let some windows pass between two exchanges
    finally:
        done.set()
        stream.join(30.0)
    assert failed == []
    assert taken >= 6
    assert len(live.folder.state.refused) >= 4
    assert [number for number, *_ in predicted] == list(range(len(predicted))), "each window once, in order"
    numbers = [generation for _, generation, *_ in predicted]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) >= 6, "windows fell between the exchanges"
    for number, generation, shown, found in predicted:
        assert shown == generations[generation].shown()
        expected = outputs(generations[generation], batch.take(np.array([number % len(batch)])))[0]
        np.testing.assert_array_equal(found, expected)


# ---- what own heads say


class Encoders:
    """A model that has embeddings alone: of `accel` the window's first value, of `gyro` its double."""

    federation = load_federation(
        "har",
        sets=[
            "tasks.speed={type='regression', unit='km/h', mean=30.0, spread=10.0, modalities=['gyro']}",
            "blocks.fusion/speed={type='concat', width=8}",
            "blocks.head/speed={type='mlp', hidden=8}",
        ],
    )

    def embed(self, inputs: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
        first = {m: values[:, 0, :1] * np.float32(present[m])[:, None] for m, values in inputs.items()}
        return {"accel": first["accel"], "gyro": 2 * first["gyro"]}

    def outputs(self, inputs: Mapping[str, Any], present: Mapping[str, Any], embeddings: Any) -> dict[str, Any]:
        return {}


def head_of(weight: list[list[float]]) -> HeadValues:
    values = np.array(weight, np.float32)
    return HeadValues("softmax", {"layers.0.weight": values, "layers.0.bias": np.zeros(len(values), np.float32)})


def said_by_own(task: str, head: HeadValues, batch: Any) -> Any:
    model: Any = Encoders()
    return run_model(model, {task: head}, batch.inputs, batch.present).get(own_name(task))


def test_an_own_head_sees_the_modalities_of_its_task_and_speaks_in_the_tasks_unit() -> None:
    batch = windows(2)
    gyro = batch.inputs["gyro"][:, 0, 0]
    # features of `speed` are (2 * gyro, flag): 0.5 * 2 * gyro + 0.25 * 1 in spreads of 10 km/h about 30 km/h.
    np.testing.assert_allclose(
        said_by_own("speed", head_of([[0.5, 0.25]]), batch)[:, 0], 30.0 + 10.0 * (gyro + 0.25), rtol=1e-5
    )
    accel = batch.inputs["accel"][:, 0, 0]
    # features of `har` are (accel, 2 * gyro, flag, flag): logits as they are.
    np.testing.assert_allclose(
        said_by_own("har", head_of([[1.0, 0.5, 0.0, 3.0]]), batch)[:, 0], accel + gyro + 3.0, rtol=1e-5
    )


def test_an_own_head_says_nothing_without_its_modalities_or_on_other_encoders() -> None:
    batch = windows(2)
    assert said_by_own("speed", head_of([[0.5, 0.25, 1.0]]), batch) is None
    batch.present["gyro"][:] = False
    assert said_by_own("speed", head_of([[0.5, 0.25]]), batch) is None
    assert said_by_own("har", head_of([[1.0, 0.5, 0.0, 3.0]]), batch) is not None
