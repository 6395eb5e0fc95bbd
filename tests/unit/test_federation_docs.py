"""The page about the federation file names every key and says its true default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from blossom_edge.federation import block_types, schema

PAGE = (Path(__file__).parents[2] / "docs" / "federation-file.md").read_text()
SECTIONS = [
    ("Top level", schema.Federation, {"modalities", "tasks", "blocks", "training", "rounds", "schedule", "codec"}),
    ("`[modalities.NAME]`", schema.FederationModality, set()),
    ("`[tasks.NAME]`", schema.Task, set()),
    ('`[blocks."KIND/NAME"]`', schema.BlockSettings, set()),
    ("`[training]`", schema.TrainingSettings, set()),
    ("`[rounds]`", schema.RoundSettings, set()),
    ("`[schedule]`", schema.ScheduleSettings, set()),
    ("`[codec]`", schema.CodecSettings, set()),
]
IN_WORDS: dict[Any, str] = {"": "empty", (): "empty"}


def rows(section: str) -> dict[str, str]:
    """Key -> default, from the tables of one section."""
    text = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert text is not None, section
    cells = [line.strip("|").split("|") for line in text[1].splitlines() if line.startswith("| `")]
    found: dict[str, str] = {}
    for row in cells:
        if len(row) < 4:  # a table of something else
            continue
        keys = re.findall(r"`([a-z0-9_.]+)`", row[0])
        defaults = [d.strip().strip("`") for d in row[2].split(",")]
        found |= dict(zip(keys, defaults if len(defaults) == len(keys) else defaults[:1] * len(keys), strict=True))
    return found


@pytest.mark.parametrize(("section", "model", "elsewhere"), SECTIONS, ids=[s[0] for s in SECTIONS])
def test_every_key_stands_in_its_table_with_its_default(
    section: str, model: type[BaseModel], elsewhere: set[str]
) -> None:
    table = rows(section)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in elsewhere:
            continue
        assert key in table, f"{section}: {key} is not described"
        if field.is_required():
            assert table[key] == "must be there", key
        elif model is not schema.BlockSettings and (section, key) != ("`[tasks.NAME]`", "modalities"):
            assert table[key] == IN_WORDS.get(field.default, str(field.default)), key


@pytest.mark.parametrize(
    "options",
    [
        block_types.Conv1dGruOptions,
        block_types.MlpEncoderOptions,
        block_types.Conv2dOptions,
        block_types.FusionOptions,
        block_types.MlpHeadOptions,
    ],
)
def test_every_option_of_a_block_type_stands_there_with_its_default(options: type[BaseModel]) -> None:
    for name, field in options.model_fields.items():
        default = f"`{list(field.default)}`" if isinstance(field.default, tuple) else str(field.default)
        assert re.search(rf"`{name}` \({re.escape(default)}[,)]", PAGE), f"{name} ({default})"


def test_every_block_type_stands_there() -> None:
    for table, kind in (
        (block_types.ENCODERS, "encoder"),
        (block_types.FUSIONS, "fusion"),
        (block_types.HEADS, "head"),
    ):
        for name in table:
            assert f"| `{name}` | {kind} |" in PAGE
