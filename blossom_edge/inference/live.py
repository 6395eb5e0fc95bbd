"""The model that a torch-free device runs now, and its exchange: built beside, tried, kept, then exchanged at once.

Whatever is wrong with what comes, the model in use goes on running; a version that was refused is not tried again.
One thread exchanges; any may predict: it takes `current` once per window. Knows neither link nor sensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blossom_edge.console.logs import log_event
from blossom_edge.core.blocks import BlockId, BlockKey, Tensors
from blossom_edge.core.errors import BlossomError, ConfigError, RemoteError, StorageError
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.canary import CanaryWindows, blank, judge, observe
from blossom_edge.inference.generation import Generation, Received, Swap, Used, own_name, run_model
from blossom_edge.inference.live_types import BAD_BLOCK, BAD_SKELETON, Build, Heads, MakeHeads, RunModel
from blossom_edge.inference.model_folder import ORDERS, ModelFolder, read_block
from blossom_edge.inference.model_state import CRASH_LOOP, Kept, ModelState
from blossom_edge.inference.orders import Order, Orders

if TYPE_CHECKING:
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.runtime import RuntimeOptions

log = logging.getLogger("blossom_edge")


class LiveModel:
    """The generations of one device.

    current: what runs, None while there is nothing; previous: what it replaced, if that is still in memory.
    keys: the shared blocks of this device, with their keys. decode: bytes of a block to its tensors. clock: seconds,
    for durations. boot: the number of this start. own_heads: whether this device has any. speaks_own: of a task with an
    own head, whether that is what speaks; only the score of what speaks is judged. stamp: UTC as text for "since when",
    empty while it is not known.
    """

    def __init__(
        self,
        federation: Federation,
        folder: ModelFolder,
        *,
        skeletons: Callable[[str], bytes | None],
        options: RuntimeOptions,
        keys: Mapping[BlockId, BlockKey],
        decode: Callable[[BlockKey, bytes], Tensors],
        clock: Callable[[], float],
        boot: int,
        stamp: Callable[[], str | None] = lambda: None,
        own_heads: bool = True,
        speaks_own: Callable[[str], bool] = lambda task: True,
        build: Build | None = None,
        run: RunModel = run_model,
    ) -> None:
        """Take up what an earlier run left: after a crash loop, or where a file is damaged, the generation before.

        Raises:
            ConfigError: `package-missing`, `runtime-too-old`.
            StorageError: `disk-failed`.
        """
        self.current: Generation | None = None
        self.previous: Generation | None = None
        self.folder = folder
        self._federation, self._skeletons, self._options = federation, skeletons, options
        self._blocks = {key: block for block, key in keys.items()}
        self._decode, self._clock, self._boot = decode, clock, boot
        self._utc = stamp
        self._own_heads, self._speaks_own = own_heads, speaks_own
        self._build, self._run = build, run
        self._make_heads: MakeHeads | None = None
        self._orders = Orders(folder.path / ORDERS)
        started = folder.state.start(boot, stamp=self._stamp())
        if started.number != folder.state.number:
            self._log("model-rolled-back", CRASH_LOOP, generation=started.number)
        folder.write(started)
        self._take_up()

    # ---- exchange

    def offer(
        self, held: Mapping[BlockKey, Received], *, windows: CanaryWindows, make_heads: MakeHeads | None = None
    ) -> Swap:
        """Use the versions held that are new, neither pinned away nor refused before; all of them or none that works.

        A block whose bytes cannot be used is left out (and refused), the others are tried without it. Any failure
        leaves the model in use as it is. `held` has the bytes of the hashes that it names: the download saw to that.

        Raises:
            ConfigError: `package-missing`, `runtime-too-old`.
            StorageError: `disk-failed`; the model in use stays.
        """
        self._make_heads = make_heads or self._make_heads
        if self.current is None:
            self._take_up()
        wanted = self._wanted(held)
        base = self.current.model if self.current is not None else None
        model, seconds, failures = self._sessions(wanted, base)
        for key, error in failures.items():
            if error.error_id in BAD_BLOCK:
                self._refuse({key: wanted[key].used}, str(error), by="check")
        words = [str(error) for error in failures.values()]
        new = {key: received for key, received in wanted.items() if key not in failures}
        graphs_lack = self.current is None and any(e.error_id in BAD_SKELETON for e in failures.values())
        if model is None or not new or graphs_lack:  # half a model must not take the place of the one on disk
            return Swap(False, (), "; ".join(words), seconds)
        if self.current is None and not self._own_heads and not model.tasks:
            return Swap(False, (), "; ".join([*words, "without it no task can be served"]), seconds)
        before = self.current.heads if self.current is not None else {}
        heads, began = before, self._clock()
        try:
            heads = self._heads_for(model, before)
            why = self._try(model, heads, windows)
        except BlossomError as error:  # a graph fails on a window, or what it gives is nothing to learn from
            if not isinstance(error, RemoteError) and error.error_id != "head-invalid":
                raise
            why = str(error)
        canary_s = self._clock() - began
        if why:
            self._refuse({key: received.used for key, received in new.items()}, why, by="canary")
            return Swap(False, (), "; ".join([*words, why]), seconds, canary_s)
        self._exchange(new, model, heads)
        return Swap(True, tuple(sorted(new)), "; ".join(words), seconds, canary_s)

    def rollback(self, keys: Collection[BlockKey] | None = None, *, reason: str, by: str = "person") -> Swap:
        """Back to the generation before, or only these blocks; what is left is refused.

        Raises:
            ConfigError: `nothing-found`, `usage`: nothing to go back to, or a block is pinned.
            BlossomError: the version before cannot be used: `file-damaged`, `block-invalid`, ...; nothing changes.
        """
        state = self.folder.state.roll_back(keys, reason, by=by, boots=(self._boot,), stamp=self._stamp())
        kept, current, before = state.in_use, self.current, self.previous
        if kept is None or current is None:
            raise StorageError("file-damaged", "nothing is in use", hint="wait for the gateway")
        versions = {key: used for key, used in kept.versions.items() if key in self._blocks}
        changed = {key: used for key, used in versions.items() if current.versions.get(key) != used}
        whole = state.previous is None
        seconds: dict[BlockKey, float] = {}
        if whole and before is not None and before.versions == versions:
            model, heads = before.model, before.heads
        else:
            received = {key: read_block(self.folder.place, key, used) for key, used in changed.items()}
            made, seconds, failures = self._sessions(received, current.model)
            if made is None or failures:
                raise next(iter(failures.values()))
            model = made
            heads = self._heads_on_disk(kept) if whole else self._heads_for(model, current.heads)
        if not whole and heads is not current.heads:
            number = state.next_head_number
            state = state.new_heads(number, self.folder.keep_heads(number, heads))
        self.folder.write(state)
        self.previous = None if whole else before
        self.current = _generation(state, versions, model, heads)
        self.folder.sweep()
        self._log("model-rolled-back", reason, generation=state.number, block=_names(changed))
        return Swap(True, tuple(sorted(changed)), "", seconds)

    def adopt_heads(self, heads: Heads) -> None:
        """Use other own heads on the same blocks, fitted anew to what the person said.

        Raises:
            StorageError: `disk-failed`; those in use stay.
        """
        if self.current is None:
            return
        state = self.folder.state
        number = state.next_head_number
        self.folder.write(state.new_heads(number, self.folder.keep_heads(number, heads)))
        self.current = replace(self.current, heads=dict(heads), head_number=number)
        self.folder.sweep()

    def keep_gates(self, gates: Mapping[str, float]) -> None:
        """Remember how own heads are mixed with shared ones. Raises StorageError (`disk-failed`)."""
        if dict(gates) != dict(self.folder.state.gates):
            self.folder.write(replace(self.folder.state, gates=dict(gates)))

    def pin(self, key: BlockKey) -> None:
        """The block stays at the version in use.

        Raises:
            ConfigError: `nothing-found`: it is not in use.
            StorageError: `disk-failed`.
        """
        self.folder.write(self.folder.state.pin(key))
        log_event(log, "block-pinned", block=str(key), version=self.folder.state.pinned[key].version)

    def unpin(self, key: BlockKey) -> None:
        """The block follows the gateway again, and versions that were refused may be tried again.

        Raises:
            StorageError: `disk-failed`.
        """
        self.folder.write(self.folder.state.unpin(key))
        log_event(log, "block-unpinned", block=str(key))

    # ---- the process

    def proved(self) -> None:
        """The generation has worked; that before leaves memory (rollback reads its file). Raises StorageError."""
        if self.folder.state.trial is not None:
            self.folder.write(self.folder.state.prove())
        self.previous = None

    def ended(self) -> None:
        """The process ends as it should, so this start was no crash. Raises StorageError."""
        self.folder.write(self.folder.state.end())

    def take_orders(self) -> bool:
        """Carry out what a person asked for with `blossom-edge blocks`; whether to offer the held versions again.

        Raises:
            StorageError: `disk-failed`.
        """
        return self._orders.carry_out(self._do) > 0

    def facts(self) -> dict[str, Any]:
        """What is in use and what was refused, for `status`: plain data."""
        state = self.folder.state
        return {
            "generation": self.current.number if self.current is not None else 0,
            "versions": self.current.shown() if self.current is not None else {},
            "on_trial": state.trial is not None,
            "pinned": {str(key): used.version for key, used in sorted(state.pinned.items())},
            "refused": [
                {"block": str(r.key), "version": r.used.version, "reason": r.reason, "by": r.by} for r in state.refused
            ],
            "damage": list(self.folder.damage),
        }

    # ---- inside

    def _do(self, order: Order) -> str:
        for key in order.blocks:
            if key not in self._blocks:
                raise ConfigError("nothing-found", f"{key} is no block that this device runs")
        if order.word == "rollback":
            swap = self.rollback(order.blocks or None, reason="rolled back by hand")
            return f"rolled back: {', '.join(map(str, swap.changed))}"
        for key in order.blocks:
            (self.pin if order.word == "pin" else self.unpin)(key)
        return ""

    def _wanted(self, held: Mapping[BlockKey, Received]) -> dict[BlockKey, Received]:
        state, found = self.folder.state, {}
        now = self.current.versions if self.current is not None else {}
        for key in sorted({*held, *state.pinned} & set(self._blocks)):
            received, pinned = held.get(key), state.pinned.get(key)
            if pinned is not None and now.get(key) != pinned and (received is None or received.used != pinned):
                received = self._pinned(key, pinned) or received
                pinned = self.folder.state.pinned.get(key)
            if received is None or received.used == now.get(key) or pinned not in (None, received.used):
                continue
            if state.refusal(key, received.used) is None:
                found[key] = received
        return found

    def _pinned(self, key: BlockKey, used: Used) -> Received | None:
        """A pinned version from disk; if it is lost, so is the pin: better a newer version than none."""
        try:
            return read_block(self.folder.place, key, used)
        except StorageError as error:
            state = self.folder.state
            self.folder.write(replace(state, pinned={k: u for k, u in state.pinned.items() if k != key}))
            self.folder.damage.append(str(error))
            self._log("pin-lost", str(error), block=str(key))
            return None

    def _sessions(
        self, received: Mapping[BlockKey, Received], base: OnnxModel | None
    ) -> tuple[OnnxModel | None, dict[BlockKey, float], dict[BlockKey, BlossomError]]:
        """`base` with these blocks, one after the other: seconds of each, and those that cannot be used."""
        build = self._build
        if build is None:
            from blossom_edge.inference.chain import OnnxModel

            build = OnnxModel.build
        model, seconds, failures = base, {}, {}
        for key, version in sorted(received.items()):
            block, began = self._blocks[key], self._clock()
            try:
                others: dict[BlockId, Tensors] = {} if model is None else {b: {} for b in model.blocks}
                model = build(
                    self._federation,
                    {**others, block: self._decode(key, version.data)},
                    self._skeletons,
                    options=self._options,
                    reuse=model,
                    changed={block},
                )
                seconds[key] = self._clock() - began
            except BlossomError as error:
                if error.error_id not in BAD_BLOCK | BAD_SKELETON:
                    raise
                self._log("block-unusable", str(error), block=str(key), version=version.version)
                failures[key] = error
        return model, seconds, failures

    def _heads_for(self, model: OnnxModel, before: Heads) -> Heads:
        made = self._make_heads(model, before) if self._make_heads is not None and self._own_heads else None
        return before if made is None else made

    def _heads_on_disk(self, kept: Kept) -> Heads:
        return self.folder.read_heads(kept) if self._own_heads else {}

    def _try(self, model: OnnxModel, heads: Heads, stored: CanaryWindows) -> str:
        """Why the candidate is not to be used; empty if it may be."""
        now, run = self.current, self._run
        windows = stored.windows if len(stored) else blank(self._federation)
        old, new = observe(
            None if now is None else lambda inputs, present: run(now.model, now.heads, inputs, present),
            lambda inputs, present: run(model, heads, inputs, present),
            windows,
            clock=self._clock,
        )
        tasks = self._federation.tasks
        spoken = heads if now is None else now.heads
        names = {own_name(t) if t in spoken and self._speaks_own(t) else t: t for t in tasks}
        return judge(old, new, windows, tasks, names)

    def _exchange(self, new: Mapping[BlockKey, Received], model: OnnxModel, heads: Heads) -> None:
        state, now = self.folder.state, self.current
        for key, received in sorted(new.items()):
            self.folder.keep_block(key, received)
        number, files = 0, dict[str, str]()
        if now is not None and heads is now.heads and state.in_use is not None:
            number, files = state.in_use.head_number, dict(state.in_use.heads)
        elif heads:
            number = state.next_head_number
            files = self.folder.keep_heads(number, heads)
        versions = {**(now.versions if now is not None else {}), **{key: r.used for key, r in new.items()}}
        state = state.exchange(versions, head_number=number, heads=files, boot=self._boot, stamp=self._stamp())
        self.folder.write(state)
        self.previous, self.current = now, _generation(state, versions, model, heads)
        self.folder.sweep()
        log_event(log, "model-exchanged", generation=state.number, block=_names(new))

    def _refuse(self, versions: Mapping[BlockKey, Used], why: str, *, by: str) -> None:
        self.folder.write(self.folder.state.refuse(versions, why, by=by))
        self._log("versions-refused", why, block=_names(versions), by=by)

    def _take_up(self) -> None:
        """What is in use on disk becomes `current`; what cannot be read is named, and the generation before tried.

        Where a skeleton is missing nothing is changed: it is tried again at the next offer.
        """
        while (kept := self.folder.state.in_use) is not None and self.current is None:
            try:
                self.current = self._load(kept)
            except (StorageError, RemoteError) as error:
                if error.error_id == "disk-failed":
                    raise
                if error.error_id in BAD_SKELETON:
                    return
                self.folder.damage.append(str(error))
                self._log("model-damaged", str(error), generation=kept.number)
                self.folder.write(self.folder.state.lose())

    def _load(self, kept: Kept) -> Generation:
        here = {key: used for key, used in kept.versions.items() if key in self._blocks}
        received = {key: read_block(self.folder.place, key, used) for key, used in here.items()}
        model, _, failures = self._sessions(received, None)
        if failures or model is None:
            raise next(iter(failures.values()), StorageError("file-damaged", "nothing of it belongs to this device"))
        return Generation(kept.number, here, model, self._heads_on_disk(kept), kept.head_number)

    def _stamp(self) -> str:
        return self._utc() or ""

    def _log(self, event: str, reason: str, **fields: object) -> None:
        log_event(log, event, level=logging.WARNING, reason=reason, **fields)


def _generation(state: ModelState, versions: Mapping[BlockKey, Used], model: OnnxModel, heads: Heads) -> Generation:
    number = state.in_use.head_number if state.in_use is not None else 0
    return Generation(state.number, dict(versions), model, heads, number)


def _names(keys: Collection[BlockKey]) -> list[str]:
    return [str(key) for key in sorted(keys)]
