"""What is read of a board from fake trees of /sys and /proc, with the kernel's names, units and lies."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.boards import BATTERY, MAINS, RAILS, THROTTLED, ZONE, jetson_rails, make_board

from blossom_edge.board import cgroups, processors
from blossom_edge.board.attributes import integer, number, text
from blossom_edge.board.energy import EnergyMeter
from blossom_edge.board.heat import CAPPED, UNDER_VOLTAGE, gpu_load, hottest, temperatures, throttling
from blossom_edge.board.heat import THROTTLED as SLOWED
from blossom_edge.board.identity import compatible, model
from blossom_edge.board.power import battery, board_watts, on_mains, rails
from blossom_edge.board.state import BoardState, disk_free_mb, memory_available_mb, memory_total_mb, read_state

V2 = "0::/user.slice/join.service"
V1 = "4:memory:/box\n2:cpu,cpuacct:/box\n0::/"


def test_an_empty_tree_says_nothing_and_nothing_is_raised(tmp_path: Path) -> None:
    assert read_state(tmp_path) == BoardState()
    assert (compatible(tmp_path), model(tmp_path), gpu_load(tmp_path)) == ((), None, None)
    assert (throttling(tmp_path), battery(tmp_path), on_mains(tmp_path), rails(tmp_path)) == (None, None, None, ())
    assert (cgroups.cpu_quota(tmp_path), cgroups.memory_limit_mb(tmp_path)) == (None, None)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40))
def test_garbage_in_every_file_is_none_and_never_an_exception(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    root = tmp_path_factory.mktemp("junk")
    names = [
        THROTTLED, f"{ZONE}/type", f"{ZONE}/temp", f"{BATTERY}/type", f"{BATTERY}/capacity",
        f"{MAINS}/type", f"{MAINS}/online",
        *jetson_rails(1, 1), "proc/meminfo", "proc/self/status", "proc/self/cgroup", "proc/device-tree/compatible",
        "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max", "sys/devices/platform/gpu.0/load",
    ]  # fmt: skip
    make_board(root, dict.fromkeys(names, junk))
    state = read_state(root)
    assert state.battery_percent is None or 0 <= state.battery_percent <= 100
    assert state.hottest is None or -60 < state.hottest.celsius < 200
    compatible(root), model(root), gpu_load(root), rails(root), on_mains(root), cgroups.cpu_quota(root)


def test_the_device_tree_names_the_board_in_strings_that_end_with_nul(tmp_path: Path) -> None:
    make_board(
        tmp_path,
        {
            "proc/device-tree/compatible": b"nvidia,p3768-0000+p3767-0003\0nvidia,p3767-0003\0nvidia,tegra234\0",
            "proc/device-tree/model": b"NVIDIA Jetson Orin Nano Developer Kit\0",
        },
    )
    assert compatible(tmp_path) == ("nvidia,p3768-0000+p3767-0003", "nvidia,p3767-0003", "nvidia,tegra234")
    assert model(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"


def test_a_number_is_finite_or_none(tmp_path: Path) -> None:
    make_board(tmp_path, {"a": "42500", "nan": "nan", "word": "hot", "empty": "", "hex": "50005"})
    assert number(tmp_path / "a", 1e-3) == 42.5
    assert [number(tmp_path / name) for name in ("nan", "word", "empty", "none", ".")] == [None] * 5
    assert integer(tmp_path / "hex", 16) == 0x50005
    assert text(tmp_path / "empty") is None


def test_a_temperature_of_nothing_but_its_name_and_one_that_never_moves_are_left_out(tmp_path: Path) -> None:
    make_board(
        tmp_path,
        {
            f"{ZONE}/type": "cpu-thermal",
            f"{ZONE}/temp": "61250",
            "sys/class/thermal/thermal_zone1/type": "PMIC-Die",  # a Xavier says 100.0 for ever
            "sys/class/thermal/thermal_zone1/temp": "100000",
            "sys/class/thermal/thermal_zone2/type": "cv0-thermal",  # is off: reading fails
            "sys/class/thermal/thermal_zone3/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone3/temp": "-256000",
            "sys/class/hwmon/hwmon0/name": "nvme",
            "sys/class/hwmon/hwmon0/temp1_input": "77000",
            "sys/class/hwmon/hwmon0/temp1_label": "Composite",
        },
    )
    found = temperatures(tmp_path)
    assert [(t.name, t.celsius, t.source) for t in found] == [
        ("cpu-thermal", 61.25, "zone"),
        ("Composite", 77.0, "nvme"),
    ]
    chosen = hottest(found)
    assert chosen is not None
    assert chosen.name == "cpu-thermal", "a hot disk does not stop the training"


def test_a_pc_without_zones_is_judged_by_its_processor(tmp_path: Path) -> None:
    make_board(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "coretemp",
            "sys/class/hwmon/hwmon0/temp2_input": "55000",
            "sys/class/hwmon/hwmon0/temp3_input": "58000",
            "sys/class/hwmon/hwmon1/name": "nvme",
            "sys/class/hwmon/hwmon1/temp1_input": "70000",
        },
    )
    chosen = hottest(temperatures(tmp_path))
    assert chosen is not None
    assert (chosen.name, chosen.celsius) == ("temp3", 58.0)


@pytest.mark.parametrize(
    "place", [THROTTLED, "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"]
)
def test_the_throttling_bits_of_a_pi_are_hexadecimal(tmp_path: Path, place: str) -> None:
    make_board(tmp_path, {place: "50005"})
    found = throttling(tmp_path)
    assert found is not None
    assert found.now() == ("under-voltage", "throttled")
    assert found.now(CAPPED, SLOWED) == ("throttled",)
    assert found.before == ("under-voltage", "throttled")


def test_without_that_file_the_voltage_alarm_of_hwmon_is_taken(tmp_path: Path) -> None:
    make_board(tmp_path, {"sys/class/hwmon/hwmon2/name": "rpi_volt", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1"})
    found = throttling(tmp_path)
    assert found is not None
    assert found.bits == UNDER_VOLTAGE


@pytest.mark.parametrize("place", ["platform/gpu.0/load", "gpu.0/load", "platform/bus@0/17000000.gpu/load"])
def test_the_load_of_a_jetsons_gpu_is_in_thousandths_wherever_it_lies(tmp_path: Path, place: str) -> None:
    make_board(tmp_path, {f"sys/devices/{place}": "437"})
    assert gpu_load(tmp_path) == pytest.approx(0.437)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"{MAINS}/type": "Mains", f"{MAINS}/online": "1", f"{BATTERY}/type": "Battery"}, True),
        ({f"{MAINS}/type": "Mains", f"{MAINS}/online": "0", f"{BATTERY}/type": "Battery"}, False),
        ({f"{MAINS}/type": "USB", f"{MAINS}/online": "1"}, True),
        ({f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Discharging"}, False),
        ({f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Full"}, True),
        ({f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Unknown"}, None),
        ({f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Discharging", f"{BATTERY}/scope": "Device"}, None),
    ],
)
def test_what_feeds_the_board(tmp_path: Path, files: dict[str, str], expected: bool | None) -> None:
    assert on_mains(make_board(tmp_path, files)) is expected


def test_a_battery_counts_in_millionths_and_a_mouse_has_none_of_ours(tmp_path: Path) -> None:
    make_board(
        tmp_path,
        {
            f"{BATTERY}/type": "Battery",
            f"{BATTERY}/capacity": "64",
            f"{BATTERY}/status": "Discharging",
            f"{BATTERY}/charge_now": "2500000",  # 2.5 Ah
            f"{BATTERY}/voltage_now": "4000000",  # 4 V
            "sys/class/power_supply/mouse/type": "Battery",
            "sys/class/power_supply/mouse/scope": "Device",
            "sys/class/power_supply/mouse/capacity": "3",
        },
    )
    found = battery(tmp_path)
    assert found is not None
    assert (found.percent, found.status) == (64.0, "Discharging")
    assert found.watt_hours == pytest.approx(10.0)


def test_watts_are_millivolts_times_milliamperes_and_the_whole_is_not_counted_twice(tmp_path: Path) -> None:
    make_board(tmp_path, jetson_rails(5000, 1200))
    found = rails(tmp_path)
    assert [(r.name, pytest.approx(r.watts)) for r in found] == [("VDD_IN", 6.0), ("VDD_CPU_GPU_CV", 0.5)]
    assert board_watts(found) == pytest.approx(6.0)
    make_board(tmp_path, {f"{RAILS}/in1_label": "VDD_GPU_SOC"})
    assert board_watts(rails(tmp_path)) == pytest.approx(6.5)
    make_board(tmp_path, {f"{RAILS}/in2_enable": "0"})
    assert board_watts(rails(tmp_path)) == pytest.approx(6.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_joules_are_the_sampled_power_times_the_time_between(tmp_path: Path) -> None:
    clock = Clock()
    make_board(tmp_path, jetson_rails(5000, 1000))  # 5 W
    meter = EnergyMeter(tmp_path, clock)
    meter.start()
    clock.now = 10.0
    make_board(tmp_path, jetson_rails(5000, 3000))  # 15 W: ten seconds at 10 W in the mean
    meter.sample()
    clock.now = 12.0
    assert meter.stop() == pytest.approx(100.0 + 30.0)
    clock.now = 20.0
    meter.start()
    clock.now = 21.0
    assert meter.stop() == pytest.approx(15.0), "a new span forgets the last one"


def test_a_reading_that_failed_is_not_filled_in(tmp_path: Path) -> None:
    clock = Clock()
    meter = EnergyMeter(make_board(tmp_path, jetson_rails(5000, 1000)), clock)
    meter.start()
    clock.now = 1.0
    (tmp_path / RAILS / "in1_input").write_text("garbage")
    (tmp_path / RAILS / "in2_input").write_text("garbage")
    meter.sample()
    make_board(tmp_path, jetson_rails(5000, 1000))
    clock.now = 2.0
    assert meter.stop() is None


@pytest.mark.parametrize(
    ("status", "after_uwh", "expected"),
    [("Discharging", "49990000", 36.0), ("Discharging", "50000000", None), ("Charging", "49990000", None)],
)
def test_without_rails_the_loss_of_the_battery_counts_if_nothing_else_feeds_the_board(
    tmp_path: Path, status: str, after_uwh: str, expected: float | None
) -> None:
    files = {f"{BATTERY}/type": "Battery", f"{BATTERY}/status": status, f"{BATTERY}/energy_now": "50000000"}
    meter = EnergyMeter(make_board(tmp_path, files), Clock())
    meter.start()
    make_board(tmp_path, {f"{BATTERY}/energy_now": after_uwh})  # 0.01 Wh less are 36 J
    assert meter.stop() == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user.slice/join.service/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user.slice/join.service/cpu.max": "max 100000"}, None),
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/user.slice/join.service/cpu.max": "300000 100000",
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "0::/gone/../in-a-container", "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_the_processor_quota_of_either_version_is_read_at_every_level(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    assert cgroups.cpu_quota(make_board(tmp_path, files)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("350000 100000", 3), ("20000 100000", 1)])
def test_the_quota_limits_the_processors_of_the_affinity_and_one_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    make_board(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})
    assert processors.allowed_cpus(tmp_path) == expected


def test_hyper_threads_of_one_core_are_one_core(tmp_path: Path) -> None:
    for cpu, core in enumerate((0, 0, 1, 1)):
        folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
        make_board(tmp_path, {f"{folder}/physical_package_id": "0", f"{folder}/core_id": str(core)})
    assert processors.physical_cores(tmp_path) == 2


def test_memory_is_that_of_the_board_or_of_its_control_group_whichever_is_less(tmp_path: Path) -> None:
    make_board(tmp_path, {"proc/meminfo": "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB", "proc/self/cgroup": V2})
    assert (memory_total_mb(tmp_path), memory_available_mb(tmp_path)) == (8192.0, 4096.0)
    group = "sys/fs/cgroup/user.slice/join.service"
    make_board(
        tmp_path,
        {
            f"{group}/memory.max": str(1024 << 20),
            f"{group}/memory.current": str(900 << 20),
            f"{group}/memory.stat": f"anon 5\ninactive_file {100 << 20}\nactive_file 7",
        },
    )
    assert (memory_total_mb(tmp_path), memory_available_mb(tmp_path)) == (1024.0, 224.0)
    make_board(tmp_path, {f"{group}/memory.max": "max"})
    assert memory_total_mb(tmp_path) == 8192.0


def test_version_1_writes_a_huge_number_for_no_limit(tmp_path: Path) -> None:
    make_board(
        tmp_path, {"proc/self/cgroup": V1, "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "9223372036854771712"}
    )
    assert cgroups.memory_limit_mb(tmp_path) is None


def test_the_memory_of_this_process_is_its_resident_part(tmp_path: Path) -> None:
    make_board(tmp_path, {"proc/self/status": "Name:\tpython\nVmPeak:\t  999999 kB\nVmRSS:\t  344064 kB"})
    assert read_state(tmp_path).used_mb == 336.0
    used = read_state(Path("/")).used_mb
    assert used is not None
    assert 10 < used < 10_000


def test_free_disk_is_told_also_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    free = disk_free_mb(tmp_path / "not" / "yet")
    assert free is not None
    assert free > 0


def test_a_lower_priority_holds_for_the_calling_thread_alone() -> None:
    seen: dict[str, int] = {}

    def work() -> None:
        seen["lowered"] = processors.lower_priority(7)
        seen["again"] = processors.lower_priority(3)  # is not raised again

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == {"lowered": max(7, before), "again": max(7, before)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
