"""Frames: what comes back, what is refused, and that garbage raises nothing but RemoteError."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blossom_edge.codec import envelope
from blossom_edge.codec.envelope import decode, encode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.messages import (
    BY_KIND,
    CAST,
    DOWN,
    UP,
    Announce,
    Bye,
    Commit,
    CommittedBlock,
    Hello,
    Plan,
    UploadChunk,
    Welcome,
)
from blossom_edge.core.errors import BlossomError, FrameError, LinkError, RemoteError

KEY = SigningKey.from_bytes(bytes(range(32)))
OTHER = SigningKey.from_bytes(bytes(range(1, 33)))
SCOPE = "har/watch-1"
ALL = frozenset(BY_KIND.values())

BYE = Bye(boot=3, connection=2, reason="stopped")
CHUNK = UploadChunk(block="encoder/accel", round=4, sha="0123456789abcdef", index=0, data=b"\x00\x01\x02\x03")
COMMIT = Commit(
    epoch=0,
    round=4,
    blocks=(CommittedBlock(block="head/har", version=5, sha256="a" * 64, members=("watch-1", "watch-2")),),
    ledger_seq=9,
    ledger_hash="b" * 64,
    running="open",
    next_s=5.0,
)


def frame(kind: int, header: bytes, body: bytes = b"", *, signature: bytes = b"", flags: int | None = None) -> bytes:
    """A frame by hand, with a right checksum: what a hostile peer can send."""
    rest = header + signature + body
    flag = (1 if signature else 0) if flags is None else flags
    return struct.pack("<4sBBBBHII", b"BLSM", 1, kind, flag, 0, len(header), len(body), zlib.crc32(rest)) + rest


def chunk_header(**changes: object) -> bytes:
    fields = {"block": "head/har", "cohort": "", "round": 1, "sha": "0" * 16, "index": 0}
    return json.dumps(fields | changes).encode()


@pytest.mark.parametrize("message", [BYE, CHUNK, COMMIT], ids=lambda m: type(m).__name__)
def test_a_message_comes_back_from_its_frame(message):
    got = decode(encode(message, scope=SCOPE, sign=KEY), allowed=ALL)
    assert got.message == message
    assert type(got.message) is type(message)


def test_the_prefix_is_18_bytes_as_documented():
    payload = encode(CHUNK, scope=SCOPE)
    header = b'{"block":"encoder/accel","cohort":"","round":4,"sha":"0123456789abcdef","index":0}'
    assert payload[:8] == b"BLSM" + bytes([1, 4, 0, 0])  # protocol 1, kind 4, no flags, reserved
    assert payload[8:10] == len(header).to_bytes(2, "little")
    assert payload[10:14] == (4).to_bytes(4, "little")
    assert payload[14:18] == zlib.crc32(header + CHUNK.data).to_bytes(4, "little")
    assert payload[18:] == header + CHUNK.data


def test_a_signed_frame_has_64_bytes_between_header_and_body():
    payload = encode(COMMIT, scope="har/", sign=KEY)
    assert payload[6] == 1
    assert payload[8:10] == b"\0\0"
    assert payload[18 + 64 :].startswith(b'{"epoch":0,')


def test_a_signature_holds_for_its_key_and_scope_only():
    got = decode(encode(BYE, scope=SCOPE, sign=KEY), allowed=UP)
    got.check(SCOPE, KEY.public_hex)
    for scope, key in ((SCOPE, OTHER.public_hex), ("har/watch-2", KEY.public_hex), ("har/", KEY.public_hex)):
        with pytest.raises(RemoteError) as caught:
            got.check(scope, key)
        assert caught.value.error_id == "signature"


@pytest.mark.parametrize("message", [BYE, COMMIT], ids=["header", "body"])
def test_a_changed_text_with_a_mended_checksum_does_not_verify(message):
    payload = encode(message, scope=SCOPE, sign=KEY)
    changed = bytearray(payload.replace(b'"watch-2"', b'"watch-3"').replace(b"stopped", b"stepped"))
    changed[14:18] = zlib.crc32(changed[18:]).to_bytes(4, "little")
    got = decode(bytes(changed), allowed=ALL)
    with pytest.raises(RemoteError, match="not signed by the key"):
        got.check(SCOPE, KEY.public_hex)


def test_a_signature_does_not_hold_for_another_kind_with_the_same_text():
    got = decode(encode(BYE, scope=SCOPE, sign=KEY), allowed=UP)
    as_welcome = envelope.Frame(Welcome.model_construct(), got.signature, got.signed_part)
    with pytest.raises(RemoteError):
        as_welcome.check(SCOPE, KEY.public_hex)


def test_a_chunk_has_no_signature_to_check():
    got = decode(encode(CHUNK, scope=SCOPE, sign=KEY), allowed=UP)
    assert got.signature == b""
    with pytest.raises(RemoteError):
        got.check(SCOPE, KEY.public_hex)


def test_a_signed_kind_without_signature_is_refused():
    header = encode(BYE, scope=SCOPE, sign=KEY)[18:-64]
    with pytest.raises(FrameError, match="not signed"):
        decode(frame(Bye.KIND, header), allowed=UP)


def test_an_unsigned_kind_with_a_signature_is_refused():
    with pytest.raises(FrameError, match="never signed"):
        decode(frame(4, chunk_header(), signature=bytes(64)), allowed=UP)


def test_a_kind_of_another_topic_is_refused_before_its_text_is_read():
    payload = frame(Plan.KIND, b"", b"not even JSON", signature=bytes(64))
    with pytest.raises(FrameError, match="does not belong"):
        decode(payload, allowed=UP)
    with pytest.raises(FrameError, match="no valid JSON"):
        decode(payload, allowed=DOWN)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(0, 0x58, "not a frame of ours"), (4, 2, "protocol 2"), (5, 99, "kind 99"), (6, 2, "flags"), (7, 1, "flags")],
)
def test_a_wrong_prefix_is_named(at, value, said):
    payload = bytearray(encode(CHUNK, scope=SCOPE))
    payload[at] = value
    with pytest.raises(FrameError, match=said):
        decode(bytes(payload), allowed=ALL)


def test_more_bytes_than_a_frame_may_have_are_refused_first():
    with pytest.raises(FrameError, match="at most 131072"):
        decode(b"\0" * (128 * 1024 + 1), allowed=ALL)


def test_a_header_over_4_kib_is_refused():
    with pytest.raises(FrameError, match="header 4097"):
        decode(frame(4, b" " * 4097), allowed=UP)


def test_a_body_over_96_kib_is_refused():
    with pytest.raises(FrameError, match="body 98305"):
        decode(frame(4, chunk_header(), bytes(98305)), allowed=UP)


@pytest.mark.parametrize(("kind", "header", "body"), [(21, b"{}", b"{}"), (2, b"{}", b"{}")], ids=["header", "body"])
def test_text_in_the_wrong_place_is_refused(kind, header, body):
    with pytest.raises(FrameError, match="where there is none"):
        decode(frame(kind, header, body, signature=bytes(64)), allowed=ALL)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (chunk_header(data="AAAA"), "data among the fields"),
        (chunk_header(extra=1), "extra"),
        (chunk_header(index=-1), "index"),
        (chunk_header(index=65536), "index"),
        (chunk_header(index="0"), "index"),
        (chunk_header(index=True), "index"),
        (chunk_header(block="encoder/../x"), "block"),
        (chunk_header(block="encoder/x\n"), "block"),
        (chunk_header(sha="0" * 15), "sha"),
        (chunk_header(index=float("nan")), "NaN is no number"),
        (chunk_header(index=float("inf")), "Infinity is no number"),
        (chunk_header()[:-1] + b', "index": 1e400}', "too large"),
        (chunk_header()[:-1] + b', "index": 1}', "a key stands twice"),
        (chunk_header(index=10**30), "too large"),
        (chunk_header(index=[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]), "nested deeper"),
        (b"[" * 4096, "nested deeper"),
        (b"[1]", "a JSON list, not an object"),
        (b'{"block": "\xff"}', "no valid JSON"),
        (b'{"block": "\\ud800"}', "no valid|Invalid JSON|surrogate"),
        (b"", "no valid JSON"),
    ],
)
def test_text_that_is_no_message_is_refused(header, said):
    with pytest.raises(FrameError, match=said):
        decode(frame(4, header), allowed=UP)


@pytest.mark.parametrize("text", [b"[" * 98304, b'{"a":' * 14000 + b"1" + b"}" * 14000], ids=["open", "closed"])
def test_deep_nesting_in_a_body_is_refused_and_not_recursed_into(text):
    with pytest.raises(FrameError, match="nested deeper"):
        decode(frame(Commit.KIND, b"", text, signature=bytes(64)), allowed=CAST)


@pytest.mark.parametrize("message", [BYE, CHUNK, COMMIT], ids=lambda m: type(m).__name__)
def test_a_frame_cut_anywhere_is_refused(message):
    payload = encode(message, scope=SCOPE, sign=KEY)
    for length in range(len(payload)):
        with pytest.raises(FrameError):
            decode(payload[:length], allowed=ALL)
    with pytest.raises(FrameError):
        decode(payload + b"\0", allowed=ALL)


@pytest.mark.parametrize("message", [BYE, CHUNK, COMMIT], ids=lambda m: type(m).__name__)
def test_every_single_flipped_bit_behind_the_prefix_is_seen(message):
    payload = encode(message, scope=SCOPE, sign=KEY)
    for at in range(18, len(payload)):
        for bit in range(8):
            changed = bytearray(payload)
            changed[at] ^= 1 << bit
            with pytest.raises(FrameError, match="checksum"):
                decode(bytes(changed), allowed=ALL)


@given(st.binary(max_size=400))
def test_random_bytes_raise_only_remote_errors(payload):
    with pytest.raises(RemoteError):
        decode(payload, allowed=ALL)


@given(
    st.sampled_from(sorted(BY_KIND)),
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
            max_leaves=10,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_random_text_in_a_well_formed_frame_raises_only_remote_errors(kind, text):
    cls = BY_KIND[kind]
    header, body = (b"", text) if cls.IN_BODY else (text, b"")
    with pytest.raises(RemoteError):
        decode(frame(kind, header, body, signature=bytes(64) if cls.SIGNED else b""), allowed=ALL)


@given(
    st.sampled_from([BYE, CHUNK, COMMIT]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255))),
    st.booleans(),
)
def test_a_mutated_frame_is_refused_or_is_a_message(message, changes, mend):
    payload = bytearray(encode(message, scope=SCOPE, sign=KEY))
    for at, value in changes:
        payload[at % len(payload)] = value
    if mend:
        payload[14:18] = zlib.crc32(payload[18:]).to_bytes(4, "little")
    try:
        got = decode(bytes(payload), allowed=ALL)
    except RemoteError:
        return
    encode(got.message, scope=SCOPE, sign=KEY)  # whatever was let in can be written again


def test_a_message_that_does_not_fit_is_not_made():
    members = tuple(f"device-{n:05}" for n in range(10000))
    block = CommittedBlock(block="head/har", version=1, sha256="0" * 64, members=members)
    with pytest.raises(LinkError) as caught:
        encode(COMMIT.model_copy(update={"blocks": (block,)}), scope="har/", sign=KEY)
    assert caught.value.error_id == "too-large"


def test_the_largest_chunk_fits_the_smallest_broker_limit():
    payload = encode(CHUNK.model_copy(update={"data": bytes(96 * 1024)}), scope=SCOPE)
    assert len(payload) < 128 * 1024
    assert decode(payload, allowed=UP).message.data == bytes(96 * 1024)
    with pytest.raises(LinkError):
        encode(CHUNK.model_copy(update={"data": bytes(96 * 1024 + 1)}), scope=SCOPE)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", {1, 2}], ids=["nan", "inf", "surrogate", "set"]
)
def test_a_value_that_json_cannot_say_is_not_sent(value):
    welcome = Welcome.model_construct(**{"federation": {"seed": value}})
    with pytest.raises(BlossomError) as caught:
        encode(welcome, scope=SCOPE, sign=KEY)
    assert caught.value.error_id == "local-value"


def test_data_on_a_kind_without_data_is_not_sent():
    with pytest.raises(BlossomError, match="carries no data"):
        encode(BYE.model_copy(update={"data": b"x"}), scope=SCOPE, sign=KEY)


def test_a_signed_kind_is_not_made_without_a_key():
    with pytest.raises(ValueError, match="must be signed"):
        encode(Announce.model_construct(), scope="har/")


def test_a_hello_can_be_checked_with_the_key_it_brings():
    hello = Hello(
        boot=1,
        connection=1,
        protocol_min=1,
        protocol_max=1,
        software="0.1",
        key=KEY.public_hex,
        profile="sim-imu",
        profile_digest="0" * 64,
        role="train",
        modalities=("accel", "gyro"),
        tasks=(),
        codecs=("float32",),
    )
    got = decode(encode(hello, scope=SCOPE, sign=KEY), allowed=UP)
    assert isinstance(got.message, Hello)
    got.check(SCOPE, got.message.key)
