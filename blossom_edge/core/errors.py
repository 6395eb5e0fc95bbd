"""The errors of both packages.

* BlossomError
  x ConfigError      a file, flag or setting is wrong: the person who wrote it can mend it   (exit 2)
  x LinkError        the other side of the network is not there or refuses us               (exit 3)
  x HardwareError    a sensor or a board does not do what the profile says                   (exit 4)
  x StorageError     a disk, a lock or a damaged file                                         (exit 1)
  x RemoteError      the peer sent something wrong: drop it, count it, go on                  (exit 1)
    - FrameError         bytes that are no frame of ours
    - SpecMismatch       well-formed, but not the tensors of this federation
    - PolicyViolation    something the peer may not do

Every error has a stable id, listed in `ERROR_IDS` and explained in docs/troubleshooting.md:

    try:
        profile = load_profile("jetson-imo")
    except BlossomError as error:
        print(error.error_id, error, error.hint)
"""

from __future__ import annotations

from typing import ClassVar

ERROR_IDS: dict[str, str] = {
    # configuration
    "bad-name": "an id or name has characters that cannot stand in a topic",
    "bad-block": "a block is not written as kind/name",
    "profile-not-found": "no profile has this name",
    "profile-invalid": "a profile breaks a rule of its format",
    "federation-not-found": "no federation has this name",
    "federation-invalid": "a federation file breaks a rule of its format",
    "federation-mismatch": "the profile and the federation do not fit",
    "federation-changed": "a data folder belongs to another federation",
    "settings-invalid": "a gateway setting or a flag is wrong",
    "replay-invalid": "a recording cannot be read",
    "data-not-found": "a data set is not where it was looked for",
    "data-invalid": "a data set is damaged or in another layout",
    "bundle-invalid": "a bundle is damaged or not what it says",
    "export-failed": "a block cannot be made into ONNX, or computes something else there",
    "package-missing": "an optional package is not installed",
    "runtime-too-old": "onnxruntime is older than what skeletons need",
    "head-invalid": "a personal head is damaged, or does not fit the features or labels",
    "machine-unsupported": "this kind of machine cannot be a device",
    "role-unfit": "a role that can do nothing in this federation",
    "nothing-found": "what was asked for does not exist",
    "demo-failed": "a process of the demo ended before its time",
    "experiment-invalid": "the file of an experiment breaks a rule, or asks for what its data cannot give",
    "experiment-changed": "a folder has results of other settings or data",
    "experiment-failed": "runs of an experiment ended without a result",
    "usage": "the command was called with wrong arguments",
    "unexpected": "a fault in this program",
    # link
    "gateway-unreachable": "nothing answers at the gateway's address",
    "gateway-unknown": "no gateway address is known",
    "login-refused": "the broker refused user name or password",
    "port-taken": "another program listens on this port",
    "broker-failed": "the broker did not start or died",
    "too-large": "a message is larger than the link takes",
    "gateway-key": "the gateway shows another key than the one trusted before",
    "gateway-silent": "the broker answers, the aggregator does not",
    "rejected": "the gateway refused this device",
    "download-failed": "a data set could not be fetched",
    # hardware
    "sensor-missing": "no source of a sensor answered",
    "sensor-failed": "a sensor was there and delivers no more",
    "not-at-rest": "a sensor was moved while it was calibrated",
    "device-unavailable": "the compute device asked for is not there",
    # storage
    "folder-in-use": "another process uses this data folder",
    "ledger-damaged": "the ledger is damaged before valid records",
    "file-damaged": "a file does not have the content it should have",
    "disk-failed": "the disk refused a write",
    "local-value": "a value of ours cannot be sent as it is",
    # remote
    "frame": "bytes that are no valid frame",
    "spec": "tensors that are not those of the block",
    "skeleton-invalid": "a skeleton is damaged, or not that of the block",
    "skeleton-missing": "the graph that a block runs on is not on this machine",
    "block-invalid": "values of a block that cannot be run",
    "policy": "something this peer may not do",
    "signature": "a signature that does not match",
}
"""Stable error ids and what each means in a few words."""


class BlossomError(Exception):
    """An expected failure, said in one line: what, found, expected, next step."""

    exit_status: ClassVar[int] = 1

    def __init__(self, error_id: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.error_id = error_id
        self.hint = hint

    def line(self) -> str:
        """The error as one line for a person: message, next step, id."""
        text = " ".join(str(self).split())
        if self.hint:
            text += f"; {self.hint}"
        return f"{text} [{self.error_id}]"


class ConfigError(BlossomError):
    """A file, flag or setting is wrong."""

    exit_status = 2


class LinkError(BlossomError):
    """The network, the broker or the other side is not there."""

    exit_status = 3


class HardwareError(BlossomError):
    """A sensor or board does not deliver."""

    exit_status = 4


class StorageError(BlossomError):
    """A disk, a lock or a file is not as it must be."""


class RemoteError(BlossomError):
    """The peer's fault: drop the message, count the sender, go on."""

    def __init__(self, message: str, *, error_id: str = "frame", hint: str = "") -> None:
        super().__init__(error_id, message, hint=hint)


class FrameError(RemoteError):
    """Bytes that are no frame of this protocol."""


class SpecMismatch(RemoteError):
    """A frame whose content is not what the federation's specification says."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_id="spec")


class PolicyViolation(RemoteError):
    """Something the peer is not allowed to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_id="policy")
