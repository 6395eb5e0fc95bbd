"""Topics: what we make we can take apart, and filters cover what MQTT says they cover."""

from __future__ import annotations

import pytest

from blossom_edge.transport import topics
from blossom_edge.transport.topics import Topic, matches


def test_every_topic_we_make_is_taken_apart_again() -> None:
    assert Topic.parse(topics.up("fed", "imu-1", "offer")) == Topic("fed", "up", "imu-1", "offer")
    assert Topic.parse(topics.down("fed", "imu-1", "receipt")) == Topic("fed", "down", "imu-1", "receipt")
    assert Topic.parse(topics.cast("fed", "commit")) == Topic("fed", "cast", "", "commit")
    assert Topic.parse(topics.cast_block("fed", "encoder/accel", "c1")) == Topic("fed", "cast", "", "chunk")
    assert Topic.parse(topics.head("fed")) == Topic("fed", "head", "", "")


def test_topics_on_the_wire_are_these() -> None:
    assert topics.up("fed", "imu-1", "offer") == "bl/1/fed/up/imu-1/offer"
    assert topics.down("fed", "imu-1", "receipt") == "bl/1/fed/down/imu-1/receipt"
    assert topics.cast("fed", "commit") == "bl/1/fed/cast/commit"
    assert topics.cast_block("fed", "encoder/accel", "") == "bl/1/fed/cast/chunk/encoder/accel"
    assert topics.cast_block("fed", "head/har", "old") == "bl/1/fed/cast/chunk/head/har/old"
    assert topics.head("fed") == "bl/1/fed/head"


def test_the_longest_topic_fits_the_clouds() -> None:
    name = "n" * 63
    for longest in (topics.down(name, name, name), topics.cast_block(name, f"encoder/{name}", name)):
        assert len(longest.encode()) <= 256
        assert longest.count("/") <= 7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bl",
        "bl/1/fed",
        "bl/2/fed/head",
        "bl/1/fed/head/more",
        "bl/1/fed/up/imu",
        "bl/1/fed/up/imu/offer/more",
        "bl/1/fed/cast/plan/x",
        "bl/1/fed/cast/chunk",
        "bl/1/fed/cast/chunk/encoder",
        "bl/1/fed/up//offer",
        "bl/1/fed/up/Imu/offer",
        "bl/1/Fed/head",
        "bl/1/fed/up/+/offer",
        "bl/1/fed/cast",
        "bl/1/fed/cast/chunk/encoder/accel/cohort/x",
        "bl/1/fed/cast/chunk//accel",
        "bl/1/fed/sideways/imu/offer",
        "/bl/1/fed/head",
        "bl/1/fed/up/imu\n/offer",
        "$SYS/broker/uptime",
    ],
)
def test_what_is_no_topic_of_ours_is_none(text: str) -> None:
    assert Topic.parse(text) is None


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+", "a/b", True),
        ("+", "/a", False),
        ("a/+/c", "a/b/c", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),  # the parent too: MQTT 5.0, 4.7.1.2
        ("a/#", "b", False),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("bl/1/f/up/+/hello", "bl/1/f/up/d/hello", True),
        ("bl/1/f/up/+/hello", "bl/1/g/up/d/hello", False),
    ],
)
def test_filters_cover_what_mqtt_says(topic_filter: str, topic: str, covered: bool) -> None:
    assert matches(topic_filter, topic) is covered
