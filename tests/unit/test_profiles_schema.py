"""The JSON Schema of profiles: what editors are told, and that every shipped file is right by it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from firmware_profiles.json_schema import DIALECT, profile_json_schema
from firmware_profiles.loading import profile_folders
from firmware_profiles.schema import UNITS, Profile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = sorted(profile_folders()[-1].glob("*.toml"))
SCHEMA = profile_json_schema()
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

WHOLE: dict[str, Any] = {
    "schema": 1,
    "title": "A board",
    "sensors": {
        "imu": {
            "channels": [{"name": "ax", "unit": "m/s2", "range": [-39.2, 39.2]}],
            "sources": [{"driver": "iio", "rate_hz": 50, "device": "mpu6050"}],
        }
    },
    "modalities": {"accel": {"sensor": "imu", "channels": ["ax"], "rate_hz": 50, "window": 128, "hop": 64}},
}


def _tables() -> dict[str, Any]:
    return {"Profile": SCHEMA, **SCHEMA["$defs"]}


def _undescribed(table: dict[str, Any]) -> list[str]:
    named = ("name", "unit", "range")  # of a channel: said once, at `channels`
    return [key for key, value in table["properties"].items() if "description" not in value and key not in named]


def test_it_is_of_the_stated_draft_and_has_every_key_of_the_format() -> None:
    assert SCHEMA["$schema"] == DIALECT
    keys = {field.alias or name for name, field in Profile.model_fields.items()}
    assert set(SCHEMA["properties"]) == keys | {"abstract"}
    assert SCHEMA["additionalProperties"] is False
    assert _tables()["ProfileChannel"]["properties"]["unit"]["enum"] == list(UNITS)


def test_every_key_is_explained() -> None:
    assert {name: missing for name, table in _tables().items() if (missing := _undescribed(table))} == {}


def test_only_a_source_takes_keys_of_its_own() -> None:
    open_tables = [name for name, table in _tables().items() if table["additionalProperties"] is not False]
    assert open_tables == ["Source"]


def test_what_a_parent_may_give_is_needed_only_in_a_file_without_one() -> None:
    assert "required" not in SCHEMA
    assert SCHEMA["else"]["required"] == ["schema", "title", "sensors", "modalities"]
    modality = SCHEMA["else"]["properties"]["modalities"]["additionalProperties"]
    assert modality["required"] == ["sensor", "channels", "rate_hz", "window", "hop"]
    assert _tables()["Source"]["required"] == ["driver", "rate_hz"]


@every_file
def test_every_key_of_a_shipped_file_is_in_the_schema(file: Path) -> None:
    """Without a validator: walks the file and the schema side by side."""

    def walk(value: Any, schema: dict[str, Any], where: str) -> None:
        while "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        if isinstance(value, dict) and "properties" in schema:
            unknown = set(value) - set(schema["properties"])
            assert not unknown or schema["additionalProperties"] is not False, f"{where}: {unknown}"
            for key in set(value) & set(schema["properties"]):
                walk(value[key], schema["properties"][key], f"{where}.{key}")
        elif isinstance(value, dict) and "patternProperties" in schema:
            (item,) = schema["patternProperties"].values()
            for key, part in value.items():
                walk(part, item, f"{where}.{key}")
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            for part in value:
                walk(part, schema["items"], where)
        elif "enum" in schema:
            assert value in schema["enum"], where

    walk(tomllib.loads(file.read_text()), SCHEMA, file.stem)


def _validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="no JSON Schema validator is installed")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


@every_file
def test_a_validator_takes_every_shipped_file(file: Path) -> None:
    assert [error.message for error in _validator().iter_errors(tomllib.loads(file.read_text()))] == []


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"titel": "x"}, False),
        ({"title": None}, False),
        ({"schema": 2}, False),
        ({"limits": {"train_nice": 40}}, False),
        ({"sensors": {"imu": {"sources": WHOLE["sensors"]["imu"]["sources"]}}}, False),
        ({"modalities": {"accel": {"hop": 32}}}, False),
        ({"modalities": {"accel": {"hop": 32}}, "extends": "rpi4-accel"}, True),
        ({"modalities": {"Accel": WHOLE["modalities"]["accel"]}}, False),
    ],
)
def test_a_validator_finds_what_is_wrong(change: dict[str, Any], valid: bool) -> None:
    value = {key: part for key, part in {**WHOLE, **change}.items() if part is not None}
    assert _validator().is_valid(value) is valid
