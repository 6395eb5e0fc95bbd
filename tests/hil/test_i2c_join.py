"""A whole device on an I2C bus that is not there: `join --profile jetson-imu`, a model of the chip behind smbus2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import TINY, WINDOWS, Place, rounds_of

from aggregator.broker.mosquitto import find_mosquitto

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(120)]

BOARD = """
import math, os, sys, threading, time
from blossom_edge.cli.main import main
from blossom_edge.testing.fake_i2c import FakeMpu6050, at_rest
from blossom_edge.testing.fake_smbus2 import install_fake_smbus2

os.environ["BLOSSOM_ROOT"] = sys.argv.pop(1)
chip = FakeMpu6050(lambda channel, t: at_rest(channel, t) + math.sin(9 * t))

def reset_in_mid_run():  # after ten samples, before the first window is whole
    while chip.delivered < 140:
        time.sleep(0.01)
    chip.reset()

threading.Thread(target=reset_in_mid_run, daemon=True).start()
with install_fake_smbus2({7: {0x68: chip}}):
    main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, TINY.replace("stop_rounds = 3", "stop_rounds = 3\nevery_s = 6.0"))  # time for ten windows
    yield place
    place.close()


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_boards_with_only_i2c_train_and_upload_and_outlive_a_reset_of_the_chip(place: Place, tmp_path: Path) -> None:
    gateway = place.serve("--until-finished")
    (tmp_path / "root").mkdir()
    boards = [
        place.run_script(
            f"board-{n}",
            BOARD,
            *(str(tmp_path / "root"), "join", "--profile=jetson-imu", f"--id=board-{n}", *WINDOWS),
            *(f"--gateway=127.0.0.1:{place.port}", f"--data-dir={place.edge_folder}", "--label=move=walk", "--wait=20"),
        )
        for n in range(2)
    ]
    assert [board.wait() for board in boards] == [0, 0]
    assert gateway.wait() == 0
    assert all("lost its settings and is set up again" in board.err for board in boards)
    records = place.records()
    assert rounds_of(records) == [1, 2, 3]
    commits = [record for record in records if record["type"] == "commit"]
    assert commits[-1]["blocks"]["encoder/accel"]["members"] == ["board-0", "board-1"]
    assert commits[-1]["blocks"]["encoder/gyro"]["members"] == ["board-0", "board-1"]
