"""Agreed normalisation: the mean over the devices' figures is that over all their samples, and it is settled once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blossom_edge.client.learner import Learner
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey
from blossom_edge.core.scale import apply_scale, is_known, mean_and_spread, next_scale, own_scale
from blossom_edge.core.windows import WindowSet
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.world import SimulatedDevice, World

ACCEL = BlockId.parse("scale/accel")


def test_the_figures_by_hand() -> None:
    windows = np.array([[[1.0, 10.0], [3.0, 10.0]], [[5.0, 10.0], [7.0, 10.0]]], np.float32)
    scale = own_scale(windows, 2)
    assert scale["mean"].tolist() == [4.0, 10.0]
    assert scale["variance"].tolist() == [5.0, 0.0]  # (9 + 1 + 1 + 9) / 4
    _, spread = mean_and_spread(scale)
    assert spread == pytest.approx([np.sqrt(5.0), 1.0])  # the second channel stood still
    assert apply_scale(scale, windows)[0, :, 0] == pytest.approx([-3 / np.sqrt(5), -1 / np.sqrt(5)])
    assert apply_scale(scale, windows + 1)[0, :, 1] == pytest.approx([1.0, 1.0])


def test_the_two_steps_by_hand() -> None:
    """Two devices with the samples 1, 3 and 8: the mean is 4, the variance (9 + 1 + 16) / 3."""
    one, other = np.array([[[1.0]], [[3.0]]], np.float32), np.array([[[8.0]]], np.float32)
    first = {"known": np.zeros(1), "mean": np.zeros(1), "variance": np.ones(1)}
    steps = [next_scale(first, one), next_scale(first, other)]
    second = {name: (2 * steps[0][name] + steps[1][name]) / 3 for name in first}
    assert (second["known"][0], second["mean"][0], second["variance"][0]) == pytest.approx((1.0, 4.0, 1.0))
    assert not is_known(second)
    assert apply_scale(second, one) is one
    steps = [next_scale(second, one), next_scale(second, other)]
    settled = {name: (2 * steps[0][name] + steps[1][name]) / 3 for name in first}
    assert is_known(settled)
    assert (settled["mean"][0], settled["variance"][0]) == pytest.approx((4.0, 26 / 3))


def test_the_channel_runs_fastest_in_framed_samples() -> None:
    window = np.array([[[1.0, 100.0, 3.0, 300.0]]], np.float32)  # two values of two channels
    assert own_scale(window, 2)["mean"].tolist() == [2.0, 200.0]
    assert apply_scale(own_scale(window, 2), window)[0, 0] == pytest.approx([-1, -1, 1, 1])


def device(name: str, windows: WindowSet) -> SimulatedDevice:
    return SimulatedDevice(name, "any", tuple(sorted(windows.inputs)), _learner(name, windows))


def _learner(name: str, windows: WindowSet) -> Callable[[Federation], Learner]:
    def make(federation: Federation) -> Learner:
        from blossom_edge.training.trainer import TorchTrainer

        trainer = TorchTrainer(
            federation, device_id=name, train=lambda: windows, holdout=lambda: windows, compute="cpu", threads=1
        )
        return Learner(trainer)

    return make


def shifted(count: int, *modalities: str, by: float, seed: int) -> WindowSet:
    from small_model import make_windows

    plain = make_windows(np.arange(count, dtype=np.int64) % 7, {m: [1] * count for m in modalities}, seed=seed)
    inputs = {m: (values * 3 + by).astype(np.float32) for m, values in plain.inputs.items()}
    return WindowSet(inputs, plain.present, plain.labels, plain.times)


@pytest.mark.parametrize(("codec", "offset"), [("float32", 5.0), ("float16", 9.81), ("float32", 3000.0)])
def test_devices_agree_in_two_rounds_and_never_wait_for_a_scale_again(
    tmp_path: Path, codec: str, offset: float
) -> None:
    pytest.importorskip("torch")
    from small_model import small

    federation = small(
        "modalities.accel.normalise=agreed",
        "schedule.stop_rounds=4",
        "rounds.min_devices=2",
        f"codec.down={codec}",
        f"codec.up={codec}",
    )
    first, second = shifted(30, "accel", "gyro", by=offset, seed=1), shifted(70, "accel", by=offset - 0.5, seed=2)
    world = World(federation, [device("one", first), device("two", second)], tmp_path)
    topics: list[str] = []
    world.broker.watch(lambda topic, payload: topics.append(topic))
    world.run()
    assert not [topic for topic in topics if topic.endswith("/refusal")]
    state = world.truth.machine.state
    version = state.version(BlockKey(ACCEL))
    settled = make_codec("float32").decode(world.truth.versions.get(version.sha256), federation.spec[ACCEL])
    samples = np.concatenate([first.inputs["accel"], second.inputs["accel"]]).reshape(-1, 3).astype(np.float64)
    mean, spread = mean_and_spread(settled)
    assert is_known(settled)
    digits = 1e-5 if codec == "float32" else 1e-3
    assert mean == pytest.approx(samples.mean(axis=0), rel=digits)
    assert spread == pytest.approx(samples.std(axis=0), rel=10 * digits)
    assert version.number == 2
    planned = [set(r["blocks"]) for r in world.truth.ledger.records if r["type"] == "open"]
    assert ["scale/accel" in blocks for blocks in planned] == [True, True, False, False]
    assert world.clock.now < federation.rounds.deadline_s, "a round waited for what nobody sends"
    world.close()


def test_a_modality_that_comes_later_is_agreed_on_when_its_first_device_is_here(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from small_model import small

    federation = small(
        "modalities.accel.normalise=agreed",
        "modalities.gyro.normalise=agreed",
        "schedule.stop_rounds=4",
        "rounds.min_devices=1",
    )
    world = World(federation, [device("one", shifted(30, "accel", by=5.0, seed=1))], tmp_path)
    world.run(until=lambda w: w.truth.machine.state.round >= 2)
    world.join(device("late", shifted(40, "gyro", by=9.0, seed=3)))
    world.run()
    versions = {str(key): v.number for key, v in world.truth.machine.state.versions.items()}
    assert versions["scale/accel"] == versions["scale/gyro"] == 2
    world.close()


def test_what_the_model_sees_does_not_depend_on_unit_and_offset_once_all_agree() -> None:
    torch = pytest.importorskip("torch")
    from small_model import first_blocks, small

    from blossom_edge.models.block_model import BlockModel

    federation = small("modalities.accel.normalise=agreed")
    blocks = first_blocks(federation, "accel")
    plain = shifted(20, "accel", by=0.0, seed=1).inputs["accel"]
    answers = []
    for factor, offset in ((1.0, 0.0), (50.0, -700.0)):
        windows = (plain * factor + offset).astype(np.float32)
        model = BlockModel(federation, blocks).eval()
        model.load({**blocks, ACCEL: own_scale(windows, 3)})
        mask = {"accel": torch.ones(20, dtype=torch.bool)}
        answers.append(model({"accel": torch.from_numpy(windows)}, mask)["har"].detach().numpy())
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)


@pytest.mark.parametrize("variance", [[4.0, 0.0, 1.0], [4.0, 1e-13, 1.0], [4.0, -1.0, 1.0]])
def test_a_channel_that_stood_still_may_move_later(variance: list[float]) -> None:
    """Flat while all agreed, as a sensor that was not worn: its first move must not be a million spreads."""
    torch = pytest.importorskip("torch")
    from blossom_edge.models.block_model import Scale

    windows = np.array([[[2.0, 3.0, 5.0]]], np.float32)
    scale = {"known": np.array([2.0]), "mean": np.zeros(3), "variance": np.array(variance)}
    scale = {name: values.astype(np.float32) for name, values in scale.items()}
    module = Scale(3)
    module.load_state_dict({name: torch.from_numpy(values) for name, values in scale.items()})
    assert apply_scale(scale, windows)[0, 0] == pytest.approx([1.0, 3.0, 5.0])
    assert module(torch.from_numpy(windows))[0, 0].tolist() == pytest.approx([1.0, 3.0, 5.0])
