"""Addresses of brokers: what is accepted, what is refused, and that a password is never shown."""

from __future__ import annotations

import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.transport.address import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address("localhost", 18830)),
        ("localhost:1884", Address("localhost", 1884)),
        (" 192.168.1.7:18830 ", Address("192.168.1.7", 18830)),
        ("[::1]:1884", Address("::1", 1884)),
        ("user:pw@box:1", Address("box", 1, "user", "pw")),
        ("mqtt://box", Address("box", 1883)),
        ("mqtt://box:1884/", Address("box", 1884)),
        ("mqtt://user@box", Address("box", 1883, "user")),
        ("mqtt://us%40er:p%2Fw%3A@box:1", Address("box", 1, "us@er", "p/w:")),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(address.url()) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1883",
        "box:",
        "box:port",
        "box:70000",
        "box:0",
        "box:-1",
        "two boxes:1",
        "http://box:1883",
        "mqtts://box",
        "mqtt://",
        "mqtt://box/topic",
        "mqtt://box?x=1",
        "[::1",
    ],
)
def test_what_is_no_address_is_a_config_error_of_one_line(text: str) -> None:
    if text == "box:":
        assert Address.parse(text) == Address("box")  # an empty port is none
        return
    with pytest.raises(ConfigError) as failure:
        Address.parse(text)
    assert failure.value.error_id == "settings-invalid"
    assert "\n" not in failure.value.line()


def test_a_password_is_shown_neither_by_repr_nor_by_str_nor_by_an_error() -> None:
    address = Address("box", 1884, "user", "geheim")
    assert str(address) == "box:1884"
    assert "geheim" not in repr(address)
    with pytest.raises(ConfigError) as failure:
        Address.parse("mqtt://user:geheim@box:port")
    assert "geheim" not in failure.value.line()


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert str(Address("::1", 1884)) == "[::1]:1884"
