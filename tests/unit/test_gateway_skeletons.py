"""Skeletons at the gateway: what an operator may add, what a device gets, and that nothing of a device's gets in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.raw_device import RawDevice, make_skeleton

import aggregator.skeletons
from aggregator.cli import program
from aggregator.recovery import open_truth
from aggregator.service import Service
from aggregator.skeletons import AT_ONCE, Skeletons, read_bounded
from blossom_edge.codec.envelope import encode
from blossom_edge.codec.messages import Skeleton, UploadChunk, WantSkeletons
from blossom_edge.codec.skeleton_file import MAX_SKELETON_BYTES, check_skeleton
from blossom_edge.console.program import run
from blossom_edge.core.blocks import BlockId
from blossom_edge.core.errors import RemoteError
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.skeletons import skeleton_digest
from blossom_edge.transport import topics
from blossom_edge.transport.loopback import LoopbackBroker

NO_DATA = hashlib.sha256(b"").hexdigest()
HAR = load_federation("har")
ACCEL = skeleton_digest(HAR, BlockId.parse("encoder/accel"))
HEAD = skeleton_digest(HAR, BlockId.parse("head/har"))


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that comes without skeletons, whatever the real one has."""
    folder = tmp_path / "package"
    monkeypatch.setattr(aggregator.skeletons, "PACKAGE", folder)
    return folder


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Gateway:
    """A service on a loopback broker, with one device that has said hello."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.broker = Clock(), LoopbackBroker()
        self.folder = folder
        self.truth = open_truth(folder, HAR)
        self.service = Service(self.truth, self.broker.link("gateway"), clock=self.clock)
        self.device = self.meet("watch-1")

    def meet(self, name: str, **more: Any) -> RawDevice:
        device = RawDevice(self.broker.link(name), HAR, name, **more)
        device.hello()
        self.run()
        device.heard()
        return device

    def run(self) -> None:
        while self.service.step(0.0):
            pass

    def asked(self, *digests: str) -> list[Skeleton]:
        """The answers that a `want` brings, and more steps as long as some wait."""
        self.device.want(*digests)
        self.run()
        while (due := self.service.next_due()) is not None and due <= self.clock.now:
            self.service.step(0.0)
        return self.device.heard(Skeleton)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "gateway")
    yield gateway
    gateway.truth.ledger.close()


def put(folder: Path, digest: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{digest}.onnx"
    path.write_bytes(data)
    return path


# ---- what a device gets


def test_a_device_gets_the_skeleton_of_the_package_as_it_is(gateway: Gateway, package: Path) -> None:
    data = make_skeleton(HAR, "encoder/accel")
    put(package, ACCEL, data)
    (answer,) = gateway.asked(ACCEL)
    assert answer == Skeleton(digest=ACCEL, sha256=hashlib.sha256(data).hexdigest(), data=data)
    check_skeleton(answer.data, HAR.spec[BlockId.parse("encoder/accel")], digest=ACCEL)


def test_what_is_added_while_the_gateway_runs_is_sent_from_then_on(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    (none,) = gateway.asked(ACCEL)
    assert (none.data, none.sha256) == (b"", NO_DATA)
    assert "no skeleton of encoder/accel, encoder/gyro here" in none.reason
    assert "blossom-edge export" in none.reason
    assert "blossom-aggregator federations add-skeleton" in none.reason
    gateway.clock.now += 2
    assert gateway.asked(ACCEL)[0].data == b""
    assert caplog.messages.count("skeleton-missing") == 1, "once for each digest"
    put(gateway.folder / "skeletons", ACCEL, make_skeleton(HAR, "encoder/accel"))
    gateway.clock.now += 2
    assert gateway.asked(ACCEL)[0].data == make_skeleton(HAR, "encoder/accel")


def test_one_digest_serves_all_blocks_that_share_it() -> None:
    shelf = Skeletons(HAR, Path("nowhere"))
    assert skeleton_digest(HAR, BlockId.parse("encoder/gyro")) == ACCEL
    assert shelf.blocks[ACCEL] == (BlockId.parse("encoder/accel"), BlockId.parse("encoder/gyro"))
    assert {block for blocks in shelf.blocks.values() for block in blocks} == {spec.id for spec in HAR.spec.blocks}


def test_a_digest_of_no_block_is_refused_and_counted_and_the_others_are_answered(gateway: Gateway) -> None:
    answers = gateway.asked("ab" * 32, HEAD)
    assert [answer.digest for answer in answers] == [HEAD]
    assert gateway.service.dropped["policy"] == 1


def test_the_same_digest_goes_to_the_same_device_once_in_a_second(gateway: Gateway, package: Path) -> None:
    put(package, ACCEL, make_skeleton(HAR, "encoder/accel"))
    assert len(gateway.asked(ACCEL, ACCEL)) == 1
    gateway.clock.now += 0.9
    assert gateway.asked(ACCEL) == []
    other = gateway.meet("watch-2")
    other.want(ACCEL)
    gateway.run()
    assert len(other.heard(Skeleton)) == 1, "another device is another matter"
    gateway.clock.now += 0.2
    assert len(gateway.asked(ACCEL)) == 1


def test_many_answers_do_not_keep_other_messages_waiting(gateway: Gateway) -> None:
    digests = list(Skeletons(HAR, Path("nowhere")).blocks)
    assert len(digests) > 1
    federation_wide = [gateway.meet(f"watch-{n}") for n in range(2, 8)]
    for device in federation_wide:
        device.want(*digests)
    before = len(federation_wide) * len(digests)
    gateway.service.step(0.0)
    assert len(gateway.service._desk) <= before
    sent_by_one_step = sum(len(device.heard(Skeleton)) for device in federation_wide)
    assert 0 < sent_by_one_step <= AT_ONCE
    gateway.asked(digests[0])
    assert sum(len(device.heard(Skeleton)) for device in federation_wide) + sent_by_one_step == before


def test_a_damaged_file_is_not_sent_and_said_so(gateway: Gateway, package: Path) -> None:
    put(gateway.folder / "skeletons", ACCEL, make_skeleton(HAR, "encoder/accel")[:-3])
    (answer,) = gateway.asked(ACCEL)
    assert answer.data == b""
    assert "damaged" in answer.reason
    put(package, ACCEL, make_skeleton(HAR, "encoder/accel"))
    gateway.clock.now += 2
    assert gateway.asked(ACCEL)[0].data, "the good one of the package counts"


def test_who_is_not_known_or_does_not_sign_gets_nothing(gateway: Gateway, package: Path) -> None:
    put(package, ACCEL, make_skeleton(HAR, "encoder/accel"))
    stranger = RawDevice(gateway.broker.link("stranger"), HAR, "stranger")
    stranger.want(ACCEL)
    gateway.run()
    assert stranger.heard() == []
    gateway.device.say(_want(ACCEL), key=stranger.key)
    gateway.run()
    assert gateway.device.heard() == []
    assert gateway.service.dropped == {"frame": 1, "signature": 1}


def test_nothing_that_a_device_sends_becomes_a_skeleton(gateway: Gateway) -> None:
    """Neither as the message that goes down, nor in another's topic, nor as an update: the folder is never written."""
    data = make_skeleton(HAR, "encoder/accel")
    sha256 = hashlib.sha256(data).hexdigest()
    down = Skeleton(digest=ACCEL, sha256=sha256, data=data)
    gateway.device.say(down)
    gateway.device.say(UploadChunk(block="encoder/accel", round=1, sha=sha256[:16], index=0, data=data))
    forged = encode(down, scope=f"{HAR.name}/{gateway.device.device}", sign=gateway.device.key)
    for topic in (topics.up(HAR.name, "watch-1", "want"), topics.down(HAR.name, "watch-1", "skeleton")):
        gateway.device.link.publish(topic, forged)
    gateway.run()
    assert sum(gateway.service.dropped.values()) >= 2
    assert not list(gateway.folder.rglob("*.onnx"))
    assert not any(data[:64] in path.read_bytes() for path in gateway.folder.rglob("*") if path.is_file())
    gateway.device.heard()
    assert gateway.asked(ACCEL)[0].data == b""


def _want(digest: str) -> WantSkeletons:
    return WantSkeletons(epoch=1, skeletons=(digest,))


# ---- what an operator may add


def call(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(program, [str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def add(
    folder: Path, *files: Path, capsys: pytest.CaptureFixture[str], federation: str = "har"
) -> tuple[int, str, str]:
    options = ["--federation", federation, "--data-dir", folder]
    return call("federations", "add-skeleton", *files, *options, capsys=capsys)


def test_a_right_file_is_added_and_its_blocks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "accel.onnx"
    file.write_bytes(make_skeleton(HAR, "encoder/accel"))
    code, out, err = add(tmp_path / "gateway", file, capsys=capsys)
    assert (code, err) == (0, "")
    assert "skeleton of encoder/accel, encoder/gyro" in out
    assert (tmp_path / "gateway" / "skeletons" / f"{ACCEL}.onnx").read_bytes() == file.read_bytes()


def test_the_federation_of_the_data_folder_is_taken_where_none_is_named(
    tmp_path: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "head.onnx"
    file.write_bytes(make_skeleton(HAR, "head/har"))
    code, out, _ = call("federations", "add-skeleton", file, "--data-dir", gateway.folder, "--json", capsys=capsys)
    assert code == 0
    (added,) = json.loads(out)["added"]
    assert (added["digest"], added["blocks"]) == (HEAD, ["head/har"])
    assert gateway.asked(HEAD)[0].data == file.read_bytes()
    code, _, err = call("federations", "add-skeleton", file, "--data-dir", tmp_path / "empty", capsys=capsys)
    assert code == 2
    assert "holds no federation yet" in err


def _foreign() -> Federation:
    return load_federation("har", sets=["blocks.head/har.hidden=17"])


def _truncated() -> bytes:
    return make_skeleton(HAR, "encoder/accel")[:-10]


def _embedded() -> bytes:
    name = HAR.spec[BlockId.parse("head/har")].tensors[0]
    return make_skeleton(HAR, "head/har", inside={name.name: bytes(4 * name.size)})


WRONG = {
    "cut short": (_truncated, ["truncated"]),
    "another model's head": (
        lambda: make_skeleton(_foreign(), "head/har"),
        [
            "skeleton of another block",
            skeleton_digest(_foreign(), BlockId.parse("head/har"))[:12],
            f"head/har {HEAD[:12]}",
        ],
    ),
    "the digest of another block": (lambda: make_skeleton(HAR, "head/har", digest=ACCEL), ["parameter missing"]),
    "weights in the file": (_embedded, ["weights embedded"]),
    "no ONNX": (lambda: b"PK\x03\x04 some other file", ["not ONNX"]),
    "empty": (lambda: b"", ["not ONNX"]),
    "too large": (lambda: bytes(MAX_SKELETON_BYTES + 1), ["too large"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_by_name_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = WRONG[name]
    good, wrong = tmp_path / "good.onnx", tmp_path / "wrong.onnx"
    good.write_bytes(make_skeleton(HAR, "encoder/accel"))
    wrong.write_bytes(make())
    code, out, err = add(tmp_path / "gateway", good, wrong, capsys=capsys)
    assert (code, out) == (2, "")
    for word in ("wrong.onnx", "[skeleton-invalid]", "nothing was added", *words):
        assert word in err
    assert len(err.splitlines()) == 1
    assert not list((tmp_path / "gateway").rglob("*.onnx"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = add(tmp_path / "gateway", tmp_path / "no.onnx", tmp_path / "nor.onnx", capsys=capsys)
    assert code == 2
    assert "no.onnx" in err
    assert "nor.onnx" in err
    code, _, err = add(tmp_path / "gateway", tmp_path, capsys=capsys)
    assert (code, "Is a directory" in err) == (2, True)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RemoteError, match="too large"):
        read_bounded(tmp_path / "sparse")


def test_the_list_says_what_is_there_what_is_lacking_and_the_next_step(
    tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(package, HEAD, make_skeleton(HAR, "head/har"))
    folder = tmp_path / "gateway"
    (folder / "skeletons").mkdir(parents=True)
    put(folder / "skeletons", ACCEL, make_skeleton(HAR, "encoder/accel"))
    code, out, err = call("federations", "skeletons", "har", "--data-dir", folder, capsys=capsys)
    assert code == 0
    rows = {words[0]: words[2] for line in out.splitlines()[1:] if len(words := line.split()) >= 3}
    assert (rows["head/har"], rows["encoder/accel"], rows["fusion/har"]) == ("package", "data", "lacking")
    assert "fusion/har" in err
    assert "add-skeleton" in err
    code, out, _ = call("federations", "skeletons", "har", "--data-dir", folder, "--json", capsys=capsys)
    found = json.loads(out)
    assert found["lacking"] == ["fusion/har", "fusion/har.accel", "fusion/har.gyro"]
    assert {r["block"]: r["where"] for r in found["skeletons"]}["encoder/gyro"] == "data folder"
