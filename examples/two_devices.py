"""Two devices with different sensors learn together, and everything that one of them sends is looked at.

Run it: `python examples/two_devices.py` (some seconds; needs torch). Gateway and devices run in this process, on
loopback and in virtual time: the same service, agents and bytes as `serve` and `join`, and equal in every run. `both`
has an accelerometer and a gyroscope, `watch` an accelerometer alone: `encoder/accel` is averaged over both devices,
`encoder/gyro` takes the delta of the one that has it, and fusion and head never leave.
"""

import tempfile
from collections import Counter
from pathlib import Path

from blossom_edge.client.fit import check_fit, load_device_profile
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.simulation.learner import make_learner
from blossom_edge.simulation.world import SimulatedDevice, World

ROUNDS = 2
DEVICES = {"both": "jetson-imu", "watch": "rpi4-accel"}  # id: profile; the watch has an accelerometer alone


def make_device(name: str, profile_name: str, federation: Federation, *, seed: int) -> SimulatedDevice:
    """A device as its profile describes it, with simulated sensors and three labelled windows per class."""
    profile = load_device_profile(profile_name, sets=("compute.device=cpu", "compute.threads=1"))
    modalities = check_fit(profile, federation)  # says exactly what differs, if anything does
    learner = make_learner(profile, device_id=name, mock=True, seed=seed, speed=0.0, labels_per_class=3)
    return SimulatedDevice(name, profile.id, modalities, learner, profile_digest=profile.digest)


def run(folder: Path) -> list[dict[str, dict[str, object]]]:
    """Run the federation to its end; returns for each round what the gateway wrote down of each block."""
    federation = load_federation("har", sets=(f"schedule.stop_rounds={ROUNDS}", "rounds.min_devices=2"))
    world = World(federation, [make_device(*d, federation, seed=i) for i, d in enumerate(DEVICES.items())], folder)

    sent: Counter[tuple[str, str]] = Counter()

    def listen(topic: str, payload: bytes) -> None:
        parts = topic.split("/")  # bl/1/{federation}/up/{device}/{kind}
        if parts[3] == "up":
            sent[parts[4], parts[5]] += len(payload)

    world.broker.watch(listen)
    world.run()
    commits = [dict(record["blocks"]) for record in world.truth.ledger.records if record["type"] == "commit"]

    for number, blocks in enumerate(commits, 1):
        print(f"round {number}")
        for block, outcome in blocks.items():
            print(f"  {block}: mean over {', '.join(outcome['members'])}, now version {outcome['version']}")
    for agent in world.agents:
        name = agent.session.facts.device
        owned = federation.spec.owned(agent.session.facts.modalities, federation.tasks)
        print(f"\n{name} has {', '.join(agent.session.facts.modalities)}")
        print(f"  shared: {', '.join(str(spec.id) for spec in owned if spec.leaves_device)}")
        print(f"  stays:  {', '.join(str(spec.id) for spec in owned if not spec.leaves_device)}")
        for (device, kind), num_bytes in sorted(sent.items()):
            if device == name:
                print(f"  sent {num_bytes:>9,} bytes of {kind}")
        for number, metrics in sorted(agent.scores.items()):
            print(f"  accuracy with the model of round {number - 1}: {metrics['har.accuracy'].mean:.2f}")
    world.close()
    return commits


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        run(Path(scratch))
