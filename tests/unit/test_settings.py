"""Gateway settings: defaults that are safe, errors that name file and key, no secret in a file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.settings import GatewaySettings, default_data_dir, load_settings
from blossom_edge.core.errors import ConfigError

ENVIRON = {"HOME": "/home/ada"}


def write(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text)
    return file


def test_defaults_listen_on_this_machine_only() -> None:
    settings = load_settings(None, {}, environ=ENVIRON)
    assert settings.data_dir == Path("/home/ada/.local/state/blossom-edge/gateway")
    assert (settings.listen, settings.port, settings.broker) == ("127.0.0.1", None, "auto")
    assert settings.listens_here_only
    assert settings.runs_broker
    assert not settings.insecure_lan


def test_state_home_of_the_user_is_respected() -> None:
    assert default_data_dir({"XDG_STATE_HOME": "/srv/state"}) == Path("/srv/state/blossom-edge/gateway")


def test_file_sets_and_flags_win_and_unset_flags_do_not(tmp_path: Path) -> None:
    file = write(tmp_path, 'listen = "0.0.0.0"\nport = 1900\nlog_format = "json"\ndata_dir = "state"\n')
    settings = load_settings(file, {"port": 1901, "listen": None}, environ=ENVIRON)
    assert (settings.listen, settings.port, settings.log_format) == ("0.0.0.0", 1901, "json")
    assert not settings.listens_here_only
    assert settings.data_dir == tmp_path / "state"


def test_data_folder_of_a_flag_is_not_relative_to_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, 'data_dir = "a"'), {"data_dir": Path("b")}, environ=ENVIRON)
    assert settings.data_dir == Path("b")


@pytest.mark.parametrize("broker", ["mqtt://broker.lan", "mqtt://broker.lan:1883", "mqtt://user:pw@10.0.0.2:1883/"])
def test_other_broker_is_an_address(broker: str) -> None:
    assert not load_settings(None, {"broker": broker}, environ=ENVIRON).runs_broker


@pytest.mark.parametrize("listen", ["localhost", "127.0.0.9", "::1"])
def test_addresses_of_this_machine_alone_are_known(listen: str) -> None:
    assert load_settings(None, {"listen": listen}, environ=ENVIRON).listens_here_only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1", "gateway.toml: prot: there is no such setting; did you mean port?"),
        ('password = "x"', "gateway.toml: password: there is no such setting; the keys are data_dir,"),
        ("port = 70000", "gateway.toml: port: Input should be less than or equal to 65535 (found 70000)"),
        ('port = "high"', "gateway.toml: port: Input should be a valid integer"),
        ('listen = "gateway.lan"', "gateway.toml: listen: 'gateway.lan' is no IP address: give 127.0.0.1"),
        ('broker = "emqx"', "gateway.toml: broker: 'emqx' is none of auto, mosquitto, amqtt, mqtt://HOST:PORT"),
        ('broker = "mqtt://"', "gateway.toml: broker: 'mqtt://' is none of"),
        ('broker = "mqtt://host:port"', "gateway.toml: broker: 'mqtt://host:port' is none of"),
        ('broker = "mqtt://me:hush@host"', "gateway.toml: broker: a login stands in the file"),
        ("retention_rounds = 0", "gateway.toml: retention_rounds: Input should be greater than or equal to 1"),
        ('log_level = "loud"', "gateway.toml: log_level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("port = ", "gateway.toml: not TOML"),
    ],
)
def test_error_names_file_key_and_what_is_possible(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), {}, environ=ENVIRON)
    assert caught.value.error_id == "settings-invalid"
    assert expected in caught.value.line()
    assert "hush" not in caught.value.line()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"port": -1}, "--port: Input should be greater than or equal to 0 (found -1)"),
        ({"log_level": "loud"}, "--log-level: Input should be"),
        ({"broker": "http://me:hush@host"}, "--broker: 'host' is none of"),
    ],
)
def test_error_of_a_flag_names_the_flag_and_hides_the_login(
    tmp_path: Path, overrides: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, "port = 1"), overrides, environ=ENVIRON)
    assert expected in caught.value.line()
    assert "hush" not in caught.value.line()


def test_missing_file_and_wrong_bytes_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway.toml: cannot be read: No such file"):
        load_settings(tmp_path / "gateway.toml", {}, environ=ENVIRON)
    (tmp_path / "gateway.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings(tmp_path / "gateway.toml", {}, environ=ENVIRON)


def test_settings_cannot_be_changed() -> None:
    settings = GatewaySettings(data_dir=Path("x"))
    with pytest.raises(ValidationError):
        settings.port = 1
