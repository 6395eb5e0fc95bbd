"""Samples that another program publishes to an MQTT broker, mostly on this machine. Publishes nothing.

    [[sensors.ecg.sources]]
    driver = "mqtt-topic"
    rate_hz = 250
    topic = "ecg/raw"               # `+` and `#` are wildcards
    payload = "json"                # or "csv"
    time = "s"                      # "ms"; "none": each sample is taken to be of the moment it arrives
    columns = ["ecg"]               # the values in their order; when missing, the channels the federation asks for
    units = "mV"                    # for all, or a list; when missing, those of the profile
    label = "har"                   # the class of this task comes with each sample
    host = "127.0.0.1"
    port = 1883
    username = "me"
    password_env = "ECG_PASSWORD"   # the environment variable with the password; it never stands in a profile

JSON is `{"t": 1700000000.25, "values": [0.8], "label": "rest"}`, or with the columns by name
(`{"t": 1700000000.25, "ecg": 0.8}`), or an array of such objects. `t` may be missing; it counts seconds from whenever
the publisher likes, because only its differences are used: a publisher whose clock is wrong does no harm, and one on
this machine loses nothing by it. CSV is `t,0.8,rest`, one sample a line, without `t` when time is "none".

What is retained at the broker is passed over: nobody knows when it was taken.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blossom_edge.core.errors import ConfigError, HardwareError
from blossom_edge.sensors.driver import Driver, Options, Request, Samples, failed
from blossom_edge.sensors.drivers.columns import choose_columns
from blossom_edge.sensors.drivers.device_time import COUNTED_DRIFT, CRYSTAL_DRIFT, DeviceTime
from blossom_edge.sensors.drivers.mqtt_payload import Item, PayloadFormat, WrongPayload

GONE_S = 5.0
"""A broker that cannot be reached again for so long has failed."""
SILENT_S, SILENT_PERIODS = 5.0, 20
"""So has a topic on which nothing good comes for so long, and so many periods."""
CONNECT_S = 5.0
MAX_LAG_S = 60.0
"""A publisher that lost its way to the broker may bring its samples as much later."""
MAX_WAITING = 1000
"""Messages that wait to be read; when there are more the oldest are dropped."""


class MqttTopicOptions(Options):
    """See the module. start_s: how long `open` waits for the first good message; 0: it does not wait."""

    topic: Annotated[str, Field(min_length=1, max_length=1000)]
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(gt=0, le=65535)] = 1883
    username: str = ""
    password_env: str = ""
    payload: Literal["json", "csv"] = "json"
    time: Literal["s", "ms", "none"] = "s"
    columns: tuple[str, ...] = ()
    units: str | tuple[str, ...] = ()
    label: str = ""
    qos: Literal[0, 1] = 0
    start_s: Annotated[float, Field(ge=0, le=60)] = 3.0


class MqttTopicDriver(Driver):
    """See the module. Since `open`: `num_wrong` payloads not of the format, `num_dropped` messages read too late."""

    Options = MqttTopicOptions

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.options: MqttTopicOptions
        self.num_wrong = self.num_dropped = 0
        self._columns = choose_columns(request, self.options.columns, self.options.units, driver="mqtt-topic")
        self.units = self._columns.units or self.units
        self._format = PayloadFormat(
            self._columns.names, self.options.payload, self.options.time, label=bool(self.options.label)
        )
        self._client: Any = None
        self._changed = threading.Condition()
        self._first: Samples | None = None
        self._start_anew()

    def open(self) -> None:
        """Connect, subscribe, and wait for the first good message.

        Raises:
            HardwareError: `sensor-missing`: no broker, refused by it, nothing good on the topic.
            ConfigError: `profile-invalid`: the variable with the password is not set.
        """
        self.close()
        self._start_anew()
        clock = self.request.host.clock
        self._client = self._connect()
        with self._changed:
            answered = self._changed.wait_for(lambda: self._subscribed or self._refused, CONNECT_S)
            refused = self._refused or ("" if answered else f"it does not answer within {CONNECT_S:g} s")
        if refused:
            self.close()
            raise self._missing(f"broker {self._where}: {refused}", "see host, port, username and password_env")
        self._heard = started = clock()
        while self._first is None and (left := started + self.options.start_s - clock()) > 0:
            samples = self.read(min(left, 0.2))
            self._first = samples if len(samples) else None
        if self._first is None and self.options.start_s:
            self.close()
            raise self._missing(
                f"{self.options.topic} at {self._where}: {self._silence(self.options.start_s)}",
                f"mosquitto_sub -h {self.options.host} -p {self.options.port} -t '{self.options.topic}' shows it",
            )

    def read(self, timeout_s: float) -> Samples:
        """The samples that have come.

        Raises:
            HardwareError: `sensor-failed`: the broker is gone for `GONE_S`, or nothing good came for `SILENT_S` and
                `SILENT_PERIODS`.
        """
        if self._first is not None:
            samples, self._first = self._first, None
            return samples
        clock = self.request.host.clock
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting), timeout_s)
            messages = list(self._waiting)
            self._waiting.clear()
            gone_since = self._gone_since
        samples = self._samples(messages)
        now = clock()
        if len(samples):
            self._heard = now
        elif gone_since is not None and now - gone_since > GONE_S:
            raise failed(self.request.sensor, f"the broker {self._where} is gone for {GONE_S:g} s")
        elif gone_since is None and now - self._heard > (limit := self._patience_s()):
            raise failed(self.request.sensor, f"{self.options.topic}: {self._silence(limit)}")
        return samples

    def close(self) -> None:
        """Leave the broker."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _start_anew(self) -> None:
        self.num_wrong = self.num_dropped = 0
        self._wrong, self._refused, self._first = "", "", None
        self._subscribed = False
        self._gone_since: float | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._heard = self.request.host.clock()
        lag_s = max(0.1, 3 / self.rate_hz)
        self._counted = DeviceTime(1 / self.rate_hz, wrap=None, drift=COUNTED_DRIFT, max_lag_s=lag_s)
        self._told = DeviceTime(1.0, wrap=None, drift=CRYSTAL_DRIFT, max_lag_s=MAX_LAG_S)
        self._count = 0

    def _connect(self) -> Any:
        import paho.mqtt.client as paho  # here: a machine without such a sensor pays nothing for it
        from paho.mqtt.enums import CallbackAPIVersion

        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="", protocol=paho.MQTTv311)
        if self.options.username:
            client.username_pw_set(self.options.username, self._password() or None)
        client.reconnect_delay_set(1, 1)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        try:
            client.connect(self.options.host, self.options.port, keepalive=10)
        except OSError as error:
            raise self._missing(
                f"no broker at {self._where}: {error}", "is it running? `systemctl status mosquitto`"
            ) from error
        except ValueError as error:
            raise ConfigError("profile-invalid", f"sensor {self.request.sensor}: {error}") from error
        client.loop_start()
        return client

    def _password(self) -> str:
        name = self.options.password_env
        if name and name not in os.environ:
            raise ConfigError(
                "profile-invalid",
                f"sensor {self.request.sensor}: password_env: there is no environment variable {name}",
                hint=f"export {name}=...",
            )
        return os.environ.get(name, "")

    def _on_connect(self, client: Any, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._changed:
            if reason.is_failure:
                self._refused = str(reason)
            else:
                self._gone_since = None
            self._changed.notify_all()
        if not reason.is_failure:
            client.subscribe(self.options.topic, self.options.qos)

    def _on_subscribe(self, _client: Any, _user: Any, _mid: Any, reasons: Sequence[Any], _properties: Any) -> None:
        with self._changed:
            if any(reason.is_failure for reason in reasons):
                self._refused = f"it does not let us read {self.options.topic}"
            self._subscribed = True
            self._changed.notify_all()

    def _on_disconnect(self, _client: Any, _user: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        with self._changed:
            if self._gone_since is None:
                self._gone_since = self.request.host.clock()

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        if message.retain:
            return
        with self._changed:
            if len(self._waiting) == MAX_WAITING:
                self._waiting.popleft()
                self.num_dropped += 1
            self._waiting.append((self.request.host.clock(), message.payload))
            self._changed.notify_all()

    def _samples(self, messages: Sequence[tuple[float, bytes]]) -> Samples:
        times: list[NDArray[np.float64]] = []
        items: list[Item] = []
        for arrival, payload in messages:
            try:
                found = self._format.read(payload)
            except WrongPayload as error:
                self.num_wrong += 1
                self._wrong = f"{payload[:60]!r}: {error}"
                continue
            if found:
                moments, rises = self._times(found, arrival)
                times.append(moments[rises])
                items += [item for item, good in zip(found, rises, strict=True) if good]
        if not items:
            return Samples.nothing(self.request.width)
        values = np.array([item.values for item in items], dtype=np.float64)[:, self._columns.places]
        labels = {}
        if self.options.label:  # "nan" is no label in every kind of task
            labels[self.options.label] = np.array([item.label or "nan" for item in items])
        return Samples(np.concatenate(times), values, labels)

    def _times(self, items: Sequence[Item], arrival: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        told = [item.time for item in items if item.time is not None]
        if len(told) == len(items):
            return self._told.times(told, arrival)
        ticks = range(self._count, self._count + len(items))
        self._count += len(items)
        return self._counted.times(ticks, arrival)

    @property
    def _where(self) -> str:
        return f"{self.options.host}:{self.options.port}"

    def _patience_s(self) -> float:
        return max(SILENT_S, SILENT_PERIODS / self.rate_hz, self.options.start_s)

    def _silence(self, seconds: float) -> str:
        if self.num_wrong:
            return f"{self.num_wrong} messages and none as declared, for {seconds:g} s; the last: {self._wrong}"
        return f"nothing came for {seconds:g} s"

    def _missing(self, why: str, hint: str) -> HardwareError:
        return HardwareError("sensor-missing", f"{self.request.sensor}: {why}", hint=hint)
