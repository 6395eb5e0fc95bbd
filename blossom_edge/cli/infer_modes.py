"""The three ways of `blossom-edge infer`: as a member of a federation, with what is on disk, with a bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blossom_edge.cli.joining import Place, check_known_labels, check_packages, find_place, make_agent
from blossom_edge.cli.prediction_view import PredictionView
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.fixed_model import FixedModel
from blossom_edge.client.folder import place_of
from blossom_edge.client.held_model import read_device
from blossom_edge.client.learner import Learner, WindowUser
from blossom_edge.client.predicting import ModelInUse
from blossom_edge.client.store import Store
from blossom_edge.console.output import Output
from blossom_edge.core.errors import ConfigError, LinkError, StorageError
from blossom_edge.durable import make_folder
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.model_folder import look
from blossom_edge.simulation.learner import Live, make_learner, open_windows

if TYPE_CHECKING:
    from blossom_edge.cli.infer_bundle import BundleModel
    from firmware_profiles import Profile

LOOK_AGAIN_S = 30.0
SILENT = frozenset({"gateway-unreachable", "gateway-silent"})
"""Nobody answers: it may come."""
NAP_S = 0.05
"""Longest nap between two looks at the clock, so that Ctrl-C is heard."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command. sensing: what `open_windows` takes beside profile, federation and live sensors.

    labels: those of `--label`. root: the data folder. name: of this device.
    """

    out: Output
    profile: Profile
    view: PredictionView
    stack: ExitStack
    should_stop: Callable[[], bool]
    sensing: Mapping[str, Any]
    labels: Mapping[str, str]
    root: Path
    name: str

    def live(self, folder: Path) -> Live | None:
        """What real sensors need; None for simulated and replayed ones."""
        simulated = self.sensing["mock"] or self.sensing["replay"] is not None
        return None if simulated else Live(folder, labels=self.labels)

    def store(self) -> Store:
        """The device's folder, locked until the run ends."""
        make_folder(self.root)
        store = Store(self.root, self.name)
        self.stack.callback(store.close)
        return store


def run_member(
    run: Run,
    gateway: str,
    federation: str | None,
    *,
    publish: bool,
    password: str | None,
    gateway_key: str | None,
    patience_s: float,
) -> None:
    """Take part in the federation of a gateway, and go on when it is finished.

    Raises:
        ConfigError: `usage`: the profile's role is to train; what `join` raises.
    """
    if run.profile.compute.role == "train":
        raise ConfigError(
            "usage",
            f"{run.profile.id} has compute.role train, which predicts nothing while it takes part",
            hint="`blossom-edge join` trains; --set compute.role=infer (or personalize) predicts",
        )
    if run.sensing["replay"] is not None and run.sensing["speed"] is None:
        run = replace(run, sensing={**run.sensing, "speed": 1.0})  # versions come while it plays

    def find(seconds: float) -> Place:
        return find_place(run.root, gateway, federation, password=password, patience_s=seconds)

    place = _first_answer(run, find, federation, patience_s=patience_s)
    if place is None:
        return
    check_packages(run.profile)
    store = run.store()
    check_known_labels(run.labels, store.known_federation(place.federation))
    agent = make_agent(
        run.out,
        run.profile,
        place,
        store,
        gateway_key=gateway_key,
        publish=publish,
        stays=True,
        on_prediction=run.view.show,
        live=run.live(store.folder),
        **run.sensing,
    )
    run.stack.callback(lambda: agent.leave("infer has ended"))
    stop = agent.run(should_stop=run.should_stop)
    if agent.learner is not None and agent.learner.user is not None:
        run.view.score = agent.learner.user.score
    if stop.error is not None:
        raise stop.error


def _first_answer(
    run: Run, find: Callable[[float], Place], federation: str | None, *, patience_s: float
) -> Place | None:
    """The gateway's place. While none answers, the model on disk predicts, if there is one; None: that was the end.

    Raises:
        LinkError: none answers, and there is no model yet; or it refuses the login.
    """
    try:
        return find(patience_s)
    except LinkError as error:
        if error.error_id not in SILENT or not _has_model(run, federation):
            raise
        run.out.note(f"{error}; it is looked for again every {LOOK_AGAIN_S:.0f} s")
    found: list[Place] = []
    look_at = time.monotonic() + LOOK_AGAIN_S

    def should_stop() -> bool:
        nonlocal look_at
        if time.monotonic() >= look_at:
            with suppress(LinkError):
                found.append(find(min(patience_s, 1.0)))
            look_at = time.monotonic() + LOOK_AGAIN_S
        return bool(found) or run.should_stop()

    with ExitStack() as stack:
        run_held(replace(run, stack=stack, should_stop=should_stop), federation)
    return found[0] if found else None


def _has_model(run: Run, federation: str | None) -> bool:
    """Whether something is on disk that can predict."""
    folder = run.root / "devices" / run.name
    try:
        held = read_device(folder, federation)
        state = look(place_of(folder, held.federation.name, held.federation.digest))
    except StorageError:
        return False
    return state is not None and state.in_use is not None


def run_held(run: Run, federation: str | None) -> None:
    """Run what an earlier join or infer left on this device's disk.

    Raises:
        StorageError: `nothing-found`: there is no model yet.
    """
    try:
        held = read_device(run.root / "devices" / run.name, federation)
    except StorageError as error:
        hint = "take part first: name a gateway with --gateway" if error.error_id == "nothing-found" else error.hint
        raise StorageError(error.error_id, str(error), hint=hint) from error
    store = run.store()
    check_known_labels(run.labels, held.federation)
    run.out.note(f"no gateway: federation {held.federation.name} as {store.device} has it on disk")
    live = run.live(store.folder)
    if run.profile.compute.role == "train":
        _run_fixed(run, held.federation, lambda: _trained(run, store, held.federation), live)
        return
    learner = make_learner(run.profile, device_id=store.device, live=live, **run.sensing)(held.federation)
    run.stack.callback(learner.close)
    member = learner.user
    if member is None:
        raise RuntimeError("a learner of this role has no model")
    _checkpoint, versions = store.enter(held.federation)
    blocks = DeviceBlocks(held.federation, tuple(sorted(run.profile.modalities)), run.sensing["tasks"])
    shared = {block: key for block, key in blocks.keys.items() if key in blocks.shared}
    member.open(store.place, keys=shared, boot=store.boot)
    learner.poll(time.monotonic())
    taken = member.take(versions)
    if not member.status().get("generation"):
        raise StorageError("nothing-found", f"{store.device}: {taken.words}", hint="name a gateway with --gateway")
    _loop(run, learner, member)


def run_bundle(run: Run, opened: BundleModel) -> None:
    """Run a bundle; nothing is written."""
    used = ModelInUse(
        opened.model, opened.heads, opened.versions, opened.own_versions, generation=0, gates=opened.gates
    )
    tasks = tuple(run.sensing["tasks"]) or opened.tasks
    unknown = sorted(set(tasks) - set(opened.tasks))
    if unknown:
        raise ConfigError("usage", f"no task {unknown[0]} in this bundle", hint=f"there is {', '.join(opened.tasks)}")
    run = replace(run, sensing={**run.sensing, "tasks": tasks})
    _run_fixed(run, opened.federation, lambda: used, run.live(run.root / "devices" / run.name))


def _run_fixed(run: Run, federation: Federation, load: Callable[[], ModelInUse], live: Live | None) -> None:
    used = load()
    learner, collector = open_windows(run.profile, federation, live=live, keep_fresh=True, **run.sensing)
    run.stack.callback(learner.close)
    _loop(run, learner, FixedModel(federation, collector, used, clock=time.perf_counter, tasks=run.sensing["tasks"]))


def _trained(run: Run, store: Store, federation: Federation) -> ModelInUse:
    """The shared and private blocks of a device that trains, as its last round left them."""
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.skeleton_set import SkeletonSet

    held = read_device(store.folder, federation.name)
    store.enter(federation)
    skeletons = SkeletonSet(store.place / "skeletons")
    model = OnnxModel.build(federation, held.blocks, skeletons.get)
    if not model.tasks:
        raise StorageError("nothing-found", f"{store.device} serves no task", hint="let it join a federation first")
    if held.untrained:
        run.out.warn(f"not trained yet: {', '.join(map(str, held.untrained))}")
    return ModelInUse(model, {}, {str(block): version for block, version in held.versions.items()}, {})


def _loop(run: Run, learner: Learner, model: WindowUser) -> None:
    """Look at the sensors and predict until there is nothing more, or somebody stops it.

    Only such an end is a clean one (`close`): an error counts as a start that the model did not survive.
    """
    while True:
        now = time.monotonic()
        learner.poll(now)
        for prediction in model.update(now):
            run.view.show(prediction)
        run.view.score = model.score
        if run.should_stop() or learner.done():
            model.close()
            return
        until = now + (learner.poll_s or 0.0)
        while not run.should_stop() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, NAP_S))
