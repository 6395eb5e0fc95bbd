"""Scans of IIO buffers: what is unpacked is what an independent decoder, bit by bit, finds in the same bytes."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from blossom_edge.sensors.drivers.iio_scan import ScanElement, ScanLayout, ScanType

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st


def bit_by_bit(data: bytes, kind: ScanType, start: int) -> int:
    """The value of one element that begins at byte `start`, without any arithmetic of words."""
    width = kind.storage // 8
    places = range(width) if not kind.big_endian else range(width - 1, -1, -1)
    bits = [data[start + place] >> i & 1 for place in places for i in range(8)]  # lowest first
    bits = bits[kind.shift : kind.shift + kind.bits]
    value = sum(bit << i for i, bit in enumerate(bits))
    return value - (1 << len(bits)) if kind.signed and bits[-1] else value


@st.composite
def scan_types(draw: st.DrawFn) -> ScanType:
    storage = draw(st.sampled_from([8, 16, 32, 64]))
    bits = draw(st.integers(1, min(storage, 63)))
    shift = draw(st.integers(0, storage - bits))
    repeat = draw(st.sampled_from([1, 1, 1, 2, 4]))
    return ScanType(draw(st.booleans()), draw(st.booleans()), bits, storage, repeat, shift)


@given(st.lists(scan_types(), min_size=1, max_size=6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_value_of_every_scan_is_what_its_bits_say(kinds: list[ScanType], count: int, random: Random) -> None:
    elements = [ScanElement(f"in_c{i}", i, kind) for i, kind in enumerate(kinds)]
    layout = ScanLayout(reversed(elements))
    data = random.randbytes(layout.size * count)
    end = 0
    for element in elements:
        start = -(-end // element.type.length) * element.type.length  # the next multiple of its own length
        end = start + element.type.length
        found = layout.values(data, element.name)
        assert found.shape == (count, element.type.repeat)
        step = element.type.storage // 8
        for scan in range(count):
            for item in range(element.type.repeat):
                place = scan * layout.size + start + item * step
                assert found[scan, item] == bit_by_bit(data, element.type, place)
    assert layout.size >= end
    assert layout.size % max(kind.length for kind in kinds) == 0


def test_six_axes_and_a_timestamp_take_24_bytes() -> None:
    axis, stamp = ScanType.parse("be:s16/16>>0"), ScanType.parse("le:s64/64>>0\n")
    layout = ScanLayout([*(ScanElement(f"in_{i}", i, axis) for i in range(6)), ScanElement("in_timestamp", 7, stamp)])
    assert layout.offsets == {**{f"in_{i}": 2 * i for i in range(6)}, "in_timestamp": 16}
    assert layout.size == 24


def test_a_short_element_behind_a_long_one_fills_the_scan_up_to_the_long_one() -> None:
    layout = ScanLayout(
        [ScanElement("in_a", 0, ScanType.parse("le:u32/32>>0")), ScanElement("in_b", 1, ScanType.parse("le:u8/8>>0"))]
    )
    assert layout.size == 8


def test_a_value_of_12_bits_above_4_empty_ones_keeps_its_sign() -> None:
    layout = ScanLayout([ScanElement("in_voltage0", 0, ScanType.parse("be:s12/16>>4"))])
    # 0xFFF0 -> 0xFFF = -1; 0x8000 -> 0x800 = -2048; 0x7FFF -> 0x7FF = 2047: the 4 lowest bits do not count
    assert layout.values(bytes.fromhex("fff080007fff"), "in_voltage0")[:, 0].tolist() == [-1, -2048, 2047]


def test_18_bits_in_the_upper_three_bytes_are_those_of_a_max30102() -> None:
    layout = ScanLayout([ScanElement("in_intensity_red", 0, ScanType.parse("be:u18/32>>8"))])
    # bytes 03 FF FF 00: 0x3FFFF00 >> 8 = 0x3FFFF = 262143; the upper six of the 24 bits are dropped
    assert layout.values(bytes.fromhex("03ffff00fc000200"), "in_intensity_red")[:, 0].tolist() == [262143, 2]


def test_a_quaternion_is_four_values_of_one_element() -> None:
    kind = ScanType.parse("le:s16/16X4>>0")
    layout = ScanLayout([ScanElement("in_rot_quaternion", 0, kind)])
    assert layout.size == 8
    assert layout.values(np.array([1, -2, 3, -4], "<i2").tobytes(), "in_rot_quaternion").tolist() == [[1, -2, 3, -4]]


@pytest.mark.parametrize("text", ["", "le:s16/16", "xe:s16/16>>0", "le:s17/16>>0", "le:s12/12>>0", "le:s64/128>>0"])
def test_what_is_no_scan_type_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="scan type"):
        ScanType.parse(text)
