"""What a device with one modality sends and receives in a round of `har`, counted on its own TCP connection.

One encoder has 150,976 values: down and up in float32 that is 2 x 150,976 x 4 = 1,207,808 bytes, in float16 half.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from live import Place

from blossom_edge.testing.fault_proxy import FaultProxy

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.broker, pytest.mark.timeout(120)]

VALUES = 150_976
ROUNDS = 3
SETTINGS = [
    f"--set=schedule={{every_s=2.0, stop_rounds={ROUNDS}}}",
    "--set=training.steps=1",
    "--set=rounds.rejoin_s=30.0",
]


@pytest.mark.parametrize(("codec", "value_bytes"), [("float32", 4), ("float16", 2)])
def test_a_round_costs_one_encoder_down_and_up(place: Place, codec: str, value_bytes: int) -> None:
    expected = 2 * VALUES * value_bytes
    place.serve("--until-finished", f"--set=codec={{up='{codec}', down='{codec}'}}", *SETTINGS, federation="har")
    proxy = FaultProxy(place.port)
    try:
        device = place.join("a", "--profile=rpi4-accel", "--mock", gateway=f"127.0.0.1:{proxy.port}")
        other = place.join("b", "--profile=rpi4-accel", "--mock", "--seed=1")
        totals = [_total_after(place, proxy, number) for number in range(1, ROUNDS + 1)]
        assert [device.wait(), other.wait()] == [0, 0]
        whole = proxy.up.num_bytes + proxy.down.num_bytes
    finally:
        proxy.close()

    on_the_wire = [after - before for before, after in pairwise(totals)]
    assert on_the_wire == [pytest.approx(expected, rel=0.01)] * (ROUNDS - 1)
    assert whole == pytest.approx(ROUNDS * expected, rel=0.02)  # with the federation, the search for it, goodbyes

    told = place.device("a")["bytes"]
    for number in range(1, ROUNDS + 1):
        up, down = told[str(number)]
        assert up == pytest.approx(expected / 2, rel=0.01)
        assert down == pytest.approx(expected / 2, rel=0.01)
    at_gateway = place.at_gateway("a")
    assert at_gateway["bytes_up"] == pytest.approx(ROUNDS * expected / 2, rel=0.01)
    assert at_gateway["bytes_down"] == pytest.approx(ROUNDS * expected / 2, rel=0.01)


def _total_after(place: Place, proxy: FaultProxy, number: int) -> int:
    """Bytes in both directions when a round's version has come and the next round has not begun."""
    place.wait_for(lambda: place.device("a").get("versions", {}).get("encoder/accel") == number, f"version {number}")
    return proxy.up.num_bytes + proxy.down.num_bytes
