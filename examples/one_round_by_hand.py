"""One BLOSSOM round by hand: three devices, four blocks, plain numpy.

Run it: `python examples/one_round_by_hand.py`. At its core, what the product does over MQTT, with receipts and
restarts, is this (BLOSSOM, arXiv:2603.27552):

    every device: start from the round's values of the blocks it owns, train, send delta = local - base
    every shared block: base + sum(n_i * delta_i) / sum(n_i) over the devices that own the block
    every private block: stays on its device, is never sent

The model of a device with modality m is  y = head . fusion . encoder_m . x ; it learns by gradient descent
on (y - t)^2 / 2.
"""

import numpy as np

TASK = ("fusion/har", "head/har")  # owned by every device of the task; encoders only by those with the modality
DEVICES = {  # in device-id order: modality, inputs x (n, 3), targets t (n,)
    "pi-a": ("accel", [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]], [1.0, 0.5]),
    "pi-b": ("accel", [[2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.0]], [0.0, 1.0, 0.5, 0.25]),
    "pi-c": ("gyro", [[0.5, 1.5, 1.0], [1.0, 0.0, 0.5]], [1.0, 0.0]),
}
LEARNING_RATE = 0.1


def start() -> dict[str, np.ndarray]:
    """The values of all blocks before the round, float32."""
    return {
        "encoder/accel": np.array([[0.5, 0.25, 0.0], [0.0, 0.5, 0.25]], dtype=np.float32),
        "encoder/gyro": np.array([[0.25, 0.0, 0.5], [0.5, 0.25, 0.0]], dtype=np.float32),
        "fusion/har": np.array([[1.0, 0.5], [0.0, 1.0]], dtype=np.float32),
        "head/har": np.array([0.5, -0.25], dtype=np.float32),
    }


def train(device: str, base: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """One pass over the device's samples; returns its new blocks (float32) and its number of samples."""
    modality, inputs, targets = DEVICES[device]
    encoder_name = f"encoder/{modality}"
    encoder, fusion, head = (base[name].astype(np.float64) for name in (encoder_name, *TASK))
    for x, target in zip(np.array(inputs), targets, strict=True):
        embedding = encoder @ x
        fused = fusion @ embedding
        error = head @ fused - target  # derivative of (y - t)^2 / 2
        to_fused = error * head
        to_embedding = fusion.T @ to_fused
        head = head - LEARNING_RATE * error * fused
        fusion = fusion - LEARNING_RATE * np.outer(to_fused, embedding)
        encoder = encoder - LEARNING_RATE * np.outer(to_embedding, x)
    local = dict(zip((encoder_name, *TASK), (encoder, fusion, head), strict=True))
    return {name: values.astype(np.float32) for name, values in local.items()}, len(targets)


def run(private: tuple[str, ...] = ()) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """One round; returns the shared blocks after it, and per device the private blocks, which stayed there."""
    base, at_home, sent = start(), {}, {name: [] for name in start()}
    for device in sorted(DEVICES):
        local, samples = train(device, base)
        at_home[device] = {name: values for name, values in local.items() if name in private}
        for name, values in local.items():
            if name not in private:
                sent[name].append((device, samples, values - base[name]))
        print(
            f"{device} trains {', '.join(local)} on {samples} samples, keeps {', '.join(at_home[device]) or 'nothing'}"
        )

    shared = {}
    for name, values in base.items():
        if name in private:
            continue
        owners = [device for device, _, _ in sent[name]]
        total = [n * delta.astype(np.float64) for _, n, delta in sent[name]]  # float64, in device-id order
        mean = sum(total[1:], start=total[0]) / sum(n for _, n, _ in sent[name])
        shared[name] = (values.astype(np.float64) + mean).astype(np.float32)
        print(f"\n{name}: mean over {', '.join(owners)}")
        for device, samples, delta in sent[name]:
            print(f"  delta of {device} (weight {samples}): {show(delta)}")
        print(f"  before {show(values)}\n  after  {show(shared[name])}")
    return shared, at_home


def show(values: np.ndarray) -> list:
    """The values for reading: four digits."""
    return values.astype(np.float64).round(4).tolist()


if __name__ == "__main__":
    print("== everything shared ==")
    run()
    print("\n== fusion and head private ==")
    run(private=TASK)
