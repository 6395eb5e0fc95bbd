"""The messages of protocol 1: what stands in each, and its limits.

A message is a frozen model with strict fields (unknown ones are refused). It travels as JSON in the
frame's header, or in the frame's body where it may be longer (`IN_BODY`); a chunk's bytes are the body.
`KIND` is the number on the wire, `NAME` the last level of its topic, `SIGNED` whether a frame without
a valid signature is refused. A model is built when it is first used: a device never uses half of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from blossom_edge.codec.fields import (
    Bitmap,
    Block,
    Codec,
    Cohort,
    Count,
    Key,
    Name,
    Number,
    Part,
    Seconds,
    Sha,
    Small,
    Text,
)
from blossom_edge.codec.planned import PlannedBlock as PlannedBlock
from blossom_edge.codec.planned import PlannedTraining as PlannedTraining

MAX_CHUNK_BYTES = 96 * 1024
"""Largest chunk payload: fits the brokers and clouds in use, header included in their 128 KiB."""

MAX_CHUNKS = 8192
"""Most chunks of one transfer: a bitmap of them fits a header."""

MAX_TRANSFER_BYTES = MAX_CHUNKS * MAX_CHUNK_BYTES


class WireMessage(Part):
    """Base of all messages; `data` is empty except for chunks."""

    KIND: ClassVar[int]
    NAME: ClassVar[str]
    SIGNED: ClassVar[bool] = True
    IN_BODY: ClassVar[bool] = False
    HAS_DATA: ClassVar[bool] = False

    data: bytes = Field(default=b"", exclude=True, repr=False, max_length=MAX_CHUNK_BYTES)


class HeldBlock(Part):
    """A version of a block that a device has."""

    block: Block
    cohort: Cohort = ""
    version: Count
    sha256: Sha


# from device to gateway


class Hello(WireMessage):
    """I am here: who I am, what I have, what I speak."""

    KIND, NAME, IN_BODY = 1, "hello", True
    boot: Count
    connection: Count
    protocol_min: Small
    protocol_max: Small
    software: Text
    key: Key
    profile: Name
    profile_digest: Sha
    role: Literal["train", "personalize", "infer"]
    modalities: Annotated[tuple[Name, ...], Field(max_length=32)]
    tasks: Annotated[tuple[Name, ...], Field(max_length=32)]
    """Tasks the device serves; empty for all of the federation."""
    codecs: Annotated[tuple[Codec, ...], Field(max_length=16)]
    federation_digest: Sha | None = None
    """Of the federation the device already knows, so that it need not be sent again."""
    held: Annotated[tuple[HeldBlock, ...], Field(max_length=256)] = ()
    epoch: Count = 0
    sequence: Count = 0
    ledger_seq: Count = 0
    """Newest ledger position this device saw signed: a gateway with an older ledger has lost something."""


class Bye(WireMessage):
    """I am gone; also the will. Ignored when an event with a newer (boot, connection) was seen."""

    KIND, NAME = 2, "bye"
    boot: Count
    connection: Count
    reason: Text = ""


class Offer(WireMessage):
    """I have an update of one block: its scope, size and hash. Chunks follow in the granted window."""

    KIND, NAME = 3, "offer"
    epoch: Count
    round: Count
    block: Block
    cohort: Cohort = ""
    base_version: Count
    num_samples: Annotated[int, Field(ge=1, le=2**40)]
    num_steps: Annotated[int, Field(ge=1, le=2**32)]
    codec: Codec
    sha256: Sha
    num_bytes: Annotated[int, Field(ge=1, le=MAX_TRANSFER_BYTES)]
    num_chunks: Annotated[int, Field(ge=1, le=MAX_CHUNKS)]
    sequence: Count


class UploadChunk(WireMessage):
    """A piece of an offered update; covered by the offer's hash."""

    KIND, NAME, SIGNED, HAS_DATA = 4, "chunk", False, True
    block: Block
    cohort: Cohort = ""
    round: Count
    sha: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    index: Small


class Ask(WireMessage):
    """I miss pieces of a block version that was cast; `missing` is a bitmap, empty for all of it."""

    KIND, NAME = 5, "ask"
    epoch: Count
    block: Block
    cohort: Cohort = ""
    version: Count
    missing: Bitmap = ""


class MetricSum(Part):
    """A metric as a sum over `count` samples."""

    total: Number
    count: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class State(WireMessage):
    """What I am doing in this round, and the score of the model I received (sums and counts)."""

    KIND, NAME, IN_BODY = 6, "state", True
    epoch: Count
    round: Count
    phase: Literal["fetching", "training", "uploading", "waiting", "skipped", "evaluated"]
    reason: Text = ""
    present: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    score: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,80}$")], MetricSum] = Field(
        default_factory=dict, max_length=64
    )
    num_windows: Count = 0
    num_steps: Count = 0
    sequence: Count


class WantSkeletons(WireMessage):
    """I run blocks as ONNX and have no graph for these: digests of skeletons."""

    KIND, NAME, IN_BODY = 7, "want", True
    epoch: Count
    skeletons: Annotated[tuple[Sha, ...], Field(min_length=1, max_length=64)]


class UsedVersion(Part):
    """The version of a block that a prediction was made with."""

    block: Block
    version: Count


class PredictionReport(WireMessage):
    """What the model says of the last window; sent only by devices whose people want it (`--publish`).

    `labels` are the classes predicted (one for a classification), `confidence` belongs to the first of them; a
    regression has a `value` in its unit. `age_s` is the time since it was made. `versions` names the model: with
    `personal` the `head/...` among them is the device's own, numbered for itself.
    """

    KIND, NAME, IN_BODY = 8, "prediction", True
    epoch: Count
    task: Name
    kind: Literal["classification", "multilabel", "regression"]
    labels: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    value: Number | None = None
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    latency_ms: Seconds
    age_s: Seconds
    personal: bool = False
    present: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    versions: Annotated[tuple[UsedVersion, ...], Field(max_length=256)] = ()
    sequence: Count


# from gateway to one device


class Welcome(WireMessage):
    """You are in: the federation, where it is, what to remember."""

    KIND, NAME, IN_BODY = 10, "welcome", True
    key: Key
    protocol: Small
    epoch: Count
    round: Count
    running: Literal["waiting", "open", "paused", "finished"]
    federation_digest: Sha
    federation: dict[str, Any] | None
    """The federation file as data; None when the hello named this digest."""
    versions: Annotated[tuple[HeldBlock, ...], Field(max_length=4096)]
    sequence: Count
    ledger_seq: Count
    ledger_hash: Sha
    boot: Count
    come_back_s: Seconds


class Reject(WireMessage):
    """You are not in, and why; a final one is not to be tried again with the same hello."""

    KIND, NAME, IN_BODY = 11, "reject", True
    key: Key
    type: Literal["protocol", "key", "federation", "unowned", "quota", "epoch", "role"]
    final: bool
    reason: Text
    hint: Text = ""
    come_back_s: Seconds = 0.0


class Plan(WireMessage):
    """A round: what to start from, how to train, how long is left."""

    KIND, NAME, IN_BODY = 12, "plan", True
    epoch: Count
    round: Count
    remaining_s: Seconds
    blocks: Annotated[tuple[PlannedBlock, ...], Field(max_length=256)]
    training: PlannedTraining
    codec: Codec
    min_new_windows: Count


class Grant(WireMessage):
    """Send these chunks: `first` .. `first + count - 1`."""

    KIND, NAME = 13, "grant"
    round: Count
    block: Block
    cohort: Cohort = ""
    sha256: Sha
    first: Small
    count: Small


class Need(WireMessage):
    """These chunks did not arrive (bitmap, bit 0 of the first byte is chunk 0): send them again."""

    KIND, NAME = 14, "need"
    round: Count
    block: Block
    cohort: Cohort = ""
    sha256: Sha
    missing: Bitmap


class Receipt(WireMessage):
    """Kept: your update is on the gateway's disk. The only acknowledgement that counts."""

    KIND, NAME = 15, "receipt"
    epoch: Count
    round: Count
    block: Block
    cohort: Cohort = ""
    base_version: Count
    sha256: Sha
    sequence: Count
    ledger_seq: Count
    ledger_hash: Sha


class Refusal(WireMessage):
    """Not taken, and why. After a final one the update is dropped; else offer it again later."""

    KIND, NAME, IN_BODY = 16, "refusal", True
    epoch: Count
    round: Count
    block: Block
    cohort: Cohort = ""
    sha256: Sha
    type: Literal["late", "stale", "conflict", "policy", "size", "codec", "hash", "nonfinite", "norm", "busy", "replay"]
    final: bool
    reason: Text
    hint: Text = ""


class Skeleton(WireMessage):
    """The graph of a block without its weights (an ONNX file, in one piece), or why there is none."""

    KIND, NAME, HAS_DATA = 17, "skeleton", True
    digest: Sha
    sha256: Sha
    """Of the data, also when there is none."""
    reason: Text = ""
    """Why there is no data; empty when it is here."""


# from gateway to all; `Repair` to one


class CastChunk(WireMessage):
    """A piece of a committed block version; covered by the hash in the signed commit and plan."""

    KIND, NAME, SIGNED, HAS_DATA = 20, "chunk", False, True
    block: Block
    cohort: Cohort = ""
    version: Count
    codec: Codec
    sha256: Sha
    num_bytes: Annotated[int, Field(ge=1, le=MAX_TRANSFER_BYTES)]
    index: Small
    count: Annotated[int, Field(ge=1, le=MAX_CHUNKS)]


class CommittedBlock(Part):
    """What became of one block in a round: a new version with its members, or held and why."""

    block: Block
    cohort: Cohort = ""
    version: Count
    sha256: Sha
    members: Annotated[tuple[Name, ...], Field(max_length=10000)] = ()
    held: Text = ""


class Commit(WireMessage):
    """A round is over. Members take their codec's new residual, others add the sent delta back."""

    KIND, NAME, IN_BODY = 21, "commit", True
    epoch: Count
    round: Count
    blocks: Annotated[tuple[CommittedBlock, ...], Field(max_length=4096)]
    ledger_seq: Count
    ledger_hash: Sha
    running: Literal["waiting", "open", "paused", "finished"]
    next_s: Seconds


class Announce(WireMessage):
    """The aggregator (re)started: say hello again. Also what the retained head says."""

    KIND, NAME = 22, "announce"
    epoch: Count
    boot: Count
    round: Count
    key: Key
    ledger_seq: Count
    ledger_hash: Sha


UP: tuple[type[WireMessage], ...] = (
    Hello,
    Bye,
    Offer,
    UploadChunk,
    Ask,
    State,
    WantSkeletons,
    PredictionReport,
)
DOWN: tuple[type[WireMessage], ...] = (Welcome, Reject, Plan, Grant, Need, Receipt, Refusal, Skeleton, CastChunk)
CAST: tuple[type[WireMessage], ...] = (CastChunk, Commit, Announce)
BY_KIND: dict[int, type[WireMessage]] = {m.KIND: m for m in (*UP, *DOWN, *CAST)}
