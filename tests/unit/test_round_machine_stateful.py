"""The round machine under everything devices, operators and crashes can do to it, in any order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("hypothesis")
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.learning import tiny
from support.machine import ACCEL, GYRO, bye, hello, make_machine, name_of, offer, outcomes_of, said

from aggregator.rounds import Aggregate, Command, Confirm, Keep, Phase, Receive, Record, Running, Send
from blossom_edge.codec.messages import Plan, Refusal
from blossom_edge.core.blocks import BlockKey
from blossom_edge.core.names import DeviceId

CAST: dict[str, tuple[str, ...]] = {"a": ("accel",), "b": ("accel",), "c": ("accel", "gyro"), "d": ("gyro",)}
DEVICES = st.sampled_from(sorted(CAST))
BLOCKS = st.sampled_from([ACCEL, GYRO, BlockKey.parse("head/har")])
LAST = 3
FEDERATION = tiny(
    "rounds.min_devices=2",
    "rounds.deadline_s=60.0",
    "rounds.start_after_s=30.0",
    "blocks.encoder/gyro.quorum=2",
    f"schedule.stop_rounds={LAST}",
)


class RoundsUnderFire(RuleBasedStateMachine):
    """Carries out the machine's commands on a ledger in memory; a crash may come after any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ledger: list[Mapping[str, Any]] = []
        self.receipts: set[tuple[int, str, str, str]] = set()
        self.receiving: dict[tuple[str, BlockKey], Any] = {}
        self.connection: Counter[str] = Counter()
        self.sequence = 100
        self.crash_after: int | None = None
        self.machine = make_machine(FEDERATION)

    # ---- the service, as far as it matters

    def carry_out(self, commands: Sequence[Command]) -> None:
        queue = deque(commands)
        while queue:
            if self.crash_after is not None:
                if self.crash_after == 0:
                    self.crash_after = None
                    self.restart()
                    return
                self.crash_after -= 1
            self.carry_out_one(queue.popleft(), queue)

    def carry_out_one(self, command: Command, queue: deque[Command]) -> None:
        if isinstance(command, Record):
            self.append(command.record)
        elif isinstance(command, Keep):
            self.append(command.record)
            self.receipts.add(_facts(command.offer, command.accepted.device))
        elif isinstance(command, Confirm):
            self.receipts.add(_facts(command.offer, command.device))
        elif isinstance(command, Receive):
            self.receiving[command.device, BlockKey.parse(command.offer.block)] = command.offer
        elif isinstance(command, Aggregate):
            queue.extend(self.machine.aggregated(outcomes_of(self.machine, command), self.now))
        elif isinstance(command, Send):
            self.check_sent(command)

    def append(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "accept":
            last = next(r for r in reversed(self.ledger) if r["type"] in ("open", "freeze", "commit"))
            assert (last["type"], last["round"]) == ("open", record["round"]), "accepted into a round that is not open"
        self.ledger.append(record)

    def check_sent(self, command: Send) -> None:
        if isinstance(command.message, Plan):
            plan, current = command.message, self.machine.state.current
            assert current is not None
            assert plan.round == current.number
            assert command.device in current.participants
            assert 0.0 <= plan.remaining_s <= FEDERATION.rounds.deadline_s
            kinds = {f"encoder/{m}" for m in CAST[command.device]}
            assert {b.block for b in plan.blocks} <= kinds, "a plan asks only for shared blocks that the device owns"
        elif isinstance(command.message, Refusal):
            assert command.message.reason

    def restart(self) -> None:
        self.machine = make_machine(FEDERATION, self.ledger)
        self.receiving.clear()
        self.carry_out(self.machine.resume(self.now))

    # ---- what may happen

    @rule(devices=st.sets(DEVICES, min_size=2))
    def devices_come_and_a_round_may_open(self, devices: set[str]) -> None:
        for device in sorted(devices):
            self.a_device_says_hello(device)
        self.carry_out(self.machine.tick(self.now))

    @precondition(lambda self: self.machine.state.current is not None)
    @rule(data=st.data(), number=st.integers(1, 6), chunks_come=st.booleans())
    def participants_deliver(self, data: st.DataObject, number: int, chunks_come: bool) -> None:
        for _ in range(number):
            state = self.machine.state
            pairs = [(d, k) for d, keys in state.awaited(self.now).items() for k in keys]
            if not pairs:
                return
            device, key = data.draw(st.sampled_from(pairs))
            self.sequence += 1
            made = offer(device, state.round, key, version=state.version(key).number, sequence=self.sequence)
            self.carry_out(self.machine.offer(device, made, self.now))
            if chunks_come and (device, key) in self.receiving:
                del self.receiving[device, key]
                self.carry_out(self.machine.update(device, made, b"", norm=1.0, now=self.now))

    @rule(device=DEVICES)
    def a_device_says_hello(self, device: str) -> None:
        self.connection[device] += 1
        said_hello = hello(device, CAST[device], connection=self.connection[device])
        self.carry_out(self.machine.hello(DeviceId(device), said_hello, self.now))

    @rule(device=DEVICES, age=st.integers(0, 2))
    def a_device_leaves_or_an_old_will_comes(self, device: str, age: int) -> None:
        connection = max(0, self.connection[device] - age)
        self.carry_out(self.machine.bye(DeviceId(device), bye(connection), self.now))

    @rule(device=DEVICES, block=BLOCKS, other=st.booleans(), back=st.sampled_from([0, 0, 0, 1]))
    def a_device_offers(self, device: str, block: BlockKey, other: bool, back: int) -> None:
        state = self.machine.state
        changes = {"sha256": name_of("other", device, state.round)} if other else {}
        self.sequence += 1
        made = offer(
            device,
            max(0, state.round - back),
            block,
            version=state.versions[block].number if block in state.versions else 0,
            sequence=self.sequence,
            **changes,
        )
        self.carry_out(self.machine.offer(DeviceId(device), made, self.now))

    @precondition(lambda self: self.receiving)
    @rule(data=st.data(), norm=st.sampled_from([1.0, 1.0, 1e6]), again=st.booleans())
    def the_chunks_of_an_offer_are_all_here(self, data: st.DataObject, norm: float, again: bool) -> None:
        pair = data.draw(st.sampled_from(sorted(self.receiving)))
        made = self.receiving[pair] if again else self.receiving.pop(pair)
        self.carry_out(self.machine.update(DeviceId(pair[0]), made, b"", norm=norm, now=self.now))

    @rule(device=DEVICES, phase=st.sampled_from(["training", "skipped"]), present=st.sampled_from([(), ("accel",)]))
    def a_device_says_what_it_does(self, device: str, phase: str, present: tuple[str, ...]) -> None:
        self.sequence += 1
        message = said(self.machine.state.round, phase, sequence=self.sequence, present=present, loss=1.0)
        self.carry_out(self.machine.device_state(DeviceId(device), message, self.now))

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.machine.tick(self.now))
        current = self.machine.state.current
        assert current is None or self.now < current.deadline, "a round ends by its deadline"

    @rule(seconds=st.sampled_from([0.0, 100.0]))
    def the_operator_pauses_and_resumes(self, seconds: float) -> None:
        self.carry_out(self.machine.control("pause", self.now))
        self.time_passes(seconds)
        if self.machine.state.running is Running.PAUSED:
            self.carry_out(self.machine.control("resume", self.now))

    @rule(device=DEVICES)
    def the_operator_forgets_a_device(self, device: str) -> None:
        self.carry_out(self.machine.forget(DeviceId(device)))

    @rule(number=st.integers(0, 5))
    def the_gateway_loses_its_link_or_crashes_now_or_in_the_midst_of_the_next_commands(self, number: int) -> None:
        if number == 0:
            self.machine.everybody_gone(self.now)
        elif number == 1:
            self.restart()
        else:
            self.crash_after = number - 2

    # ---- what must hold

    def records(self, kind: str) -> list[Mapping[str, Any]]:
        return [r for r in self.ledger if r["type"] == kind]

    @invariant()
    def each_update_counts_at_most_once(self) -> None:
        counts = Counter((r["round"], r["block"], r["device"]) for r in self.records("accept"))
        assert set(counts.values()) <= {1}

    @invariant()
    def whoever_has_a_receipt_stands_in_the_ledger_with_that_content(self) -> None:
        assert self.receipts <= {(r["round"], r["block"], r["device"], r["sha256"]) for r in self.records("accept")}

    @invariant()
    def an_accepted_update_is_in_the_members_of_its_commit_or_its_block_is_held_with_a_reason(self) -> None:
        commits = {r["round"]: r["blocks"] for r in self.records("commit")}
        expected: dict[tuple[int, str], list[str]] = {}
        for accept in self.records("accept"):
            if accept["round"] in commits:
                expected.setdefault((accept["round"], accept["block"]), []).append(accept["device"])
        for number, blocks in commits.items():
            for block, body in blocks.items():
                devices = sorted(expected.pop((number, block), []))
                assert body["members"] == ([] if body["held"] else devices)
                assert bool(body["held"]) != bool(body["members"])
        assert not expected, "accepted for a block that the commit does not name"

    @invariant()
    def members_own_their_block(self) -> None:
        for commit in self.records("commit"):
            for block, body in commit["blocks"].items():
                assert all(block.removeprefix("encoder/") in CAST[device] for device in body["members"])

    @invariant()
    def rounds_and_versions_go_up_one_by_one(self) -> None:
        assert [r["round"] for r in self.records("commit")] == list(range(1, len(self.records("commit")) + 1))
        last: Counter[str] = Counter()
        for commit in self.records("commit"):
            for block, body in commit["blocks"].items():
                last[block] += bool(body["members"])
                assert body["version"] == last[block]

    @invariant()
    def the_state_is_what_the_ledger_says(self) -> None:
        state, again = self.machine.state, make_machine(FEDERATION, self.ledger).state
        assert (state.round, state.phase, state.running) == (again.round, again.phase, again.running)
        assert state.history == again.history
        assert sorted(state.members) == sorted(again.members)
        assert {k: v for k, v in state.versions.items() if v.number} == {
            k: v for k, v in again.versions.items() if v.number
        }
        assert (state.current is None) == (again.current is None) == (state.phase is Phase.WAITING)
        if state.current is not None and again.current is not None:
            assert state.current.accepted == again.current.accepted
        assert state.phase is not Phase.FROZEN, "between two events nothing stays frozen"
        assert state.round < LAST or state.phase is Phase.OPEN or state.running is not Running.YES
        assert state.round <= LAST, "after its last round no other may open"

    @invariant()
    def somebody_wakes_the_machine_while_a_round_is_open(self) -> None:
        if self.machine.state.phase is Phase.OPEN:
            due = self.machine.next_due(self.now)
            assert due is not None
            assert due > self.now or self.now == 0.0


def _facts(made: Any, device: str) -> tuple[int, str, str, str]:
    return made.round, made.block, device, made.sha256


TestRoundsUnderFire = RoundsUnderFire.TestCase
TestRoundsUnderFire.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
