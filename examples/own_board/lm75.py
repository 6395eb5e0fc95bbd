"""An LM75 thermometer, as the Linux kernel shows it: a driver of one's own."""

from pathlib import Path

from blossom_edge.core.errors import HardwareError
from blossom_edge.sensors.driver import Found, Host, PolledDriver


def thermometers(host: Host) -> list[Path]:
    names = sorted(host.path("/sys/class/hwmon").glob("hwmon*/name"))
    return [name.with_name("temp1_input") for name in names if name.read_text().strip() == "lm75"]


class Lm75(PolledDriver):
    def open(self) -> None:
        super().open()
        if not thermometers(self.request.host):
            raise HardwareError("sensor-missing", "no LM75 in /sys/class/hwmon", hint="load the module lm75")
        self._file = thermometers(self.request.host)[0]

    def sample(self) -> list[float]:
        return [int(self._file.read_text()) / 1000]  # the kernel gives thousandths of a degree

    @classmethod
    def find(cls, host: Host) -> list[Found]:
        channels = (("t", "Cel", -55.0, 125.0),)
        return [Found("lm75:Lm75", str(f), "air", rate_hz=10, channels=channels) for f in thermometers(host)]
