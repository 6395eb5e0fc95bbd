from pathlib import Path

import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.load import list_federations, load_federation

BROKEN = [
    (
        ["modalities.accel.hop=200"],
        "modalities.accel.hop: found 200 samples, expected at most the window (128 samples)",
    ),
    (["training.lrr=1"], "training.lrr: unknown key (did you mean 'lr'?)"),
    (["traning.lr=1"], "traning: unknown key (did you mean 'training'?)"),
    (["modalities.accel.rate=50"], "modalities.accel.rate: unknown key (did you mean 'rate_hz'?)"),
    (["training.epochs='3'"], "training.epochs: found '3', expected a whole number"),
    (["training.epochs=0"], "training.epochs: found 0 with steps 0, expected one of both above 0"),
    (["training.lr=nan"], "training.lr: found nan, expected a finite number"),
    (
        ["training.lr_schedule=cosine", "training.lr_rounds=0"],
        "training.lr_rounds: found 0, expected the number of rounds of the cosine",
    ),
    (["training.lr_min=9.0"], "training.lr_min: found 9.0, expected at most lr"),
    (["training=3"], "training: found 3, expected a table"),
    (["tasks.har.modalities=['accel']"], "modalities.gyro: no task uses it"),
    (["tasks.har.modalities=['acel', 'accel', 'gyro']"], "nobody declared modality 'acel' (did you mean 'accel'?)"),
    (["tasks.har.modalities=['gyro', 'accel', 'gyro']"], "tasks.har.modalities: a modality stands there twice"),
    (["tasks.har.classes=['PEN']"], "tasks.har.classes: found 1, expected at least 2 for classification"),
    (["tasks.har.classes=['PEN', 'PEN']"], "tasks.har.classes: a class stands there twice"),
    (["tasks.har.unit=m"], "tasks.har.unit: only a regression has it"),
    (
        ["tasks.har.type=regression"],
        "tasks.har.classes: found 7, expected none for a regression; tasks.har.unit: is missing",
    ),
    (["tasks.har.type=regresion"], "tasks.har.type: found 'regresion' (did you mean 'regression'?)"),
    (["blocks={}"], 'blocks."encoder/accel": is missing'),
    (["blocks.encoder/acel.type=mlp"], "blocks.\"encoder/acel\": nobody declared modality 'acel'"),
    (["blocks.head/hra.type=mlp"], "blocks.\"head/hra\": nobody declared task 'hra' (did you mean 'head/har'?)"),
    (['blocks."fusion/har.ecg".visibility=shared'], "task 'har' does not use modality 'ecg'"),
    (["blocks.body/har.type=mlp"], "blocks.\"body/har\": 'body/har' is not a block"),
    (["blocks.encoder/accel.type=mpl"], "blocks.\"encoder/accel\".type: found 'mpl' (did you mean 'mlp'?), expected"),
    (
        ["blocks.encoder/accel={type='conv2d'}"],
        "blocks.\"encoder/accel\".type: found 'conv2d' for samples that are single numbers, expected a shape",
    ),
    (["blocks.encoder/accel.type="], 'blocks."encoder/accel".type: is missing'),
    (["blocks.encoder/accel.hiden=3"], "blocks.\"encoder/accel\".hiden: unknown key (did you mean 'hidden'?)"),
    (["blocks.encoder/accel.kernel=4"], 'blocks."encoder/accel".kernel: found 4, expected an odd number'),
    (["blocks.encoder/accel.channels=[3, '4']"], "blocks.\"encoder/accel\".channels[1]: found '4'"),
    (
        ["blocks.encoder/accel.channels=[8192, 8192]", "blocks.encoder/accel.kernel=63"],
        "values, expected at most 67108864",
    ),
    (["modalities.accel.window=4", "modalities.accel.hop=2"], "found a window of 4 samples, expected 8 or more"),
    (["blocks.encoder/accel.visibility=dual"], 'blocks."encoder/accel".visibility: found dual, expected shared'),
    (['blocks."fusion/har.accel".type=concat'], 'blocks."fusion/har.accel": type and options of a part'),
    (["visibility=private-haed"], "visibility: found 'private-haed' (did you mean 'private-head'?)"),
    (["name=A B"], "name: found 'A B', expected 1 to 63 of a-z, 0-9, '.' and '-'"),
    (["modalities.ec_g.hop=3"], "modalities.ec_g: found 'ec_g', expected 1 to 31 of a-z, 0-9 and '-'"),
    (["modalities.accel.channels=[]"], "modalities.accel.channels: found [], expected at least 1 item"),
    (["modalities.accel.rate_hz=0"], "modalities.accel.rate_hz: found 0, expected greater than 0"),
    (["schedule.at=25:00"], "schedule.at: found '25:00', expected a time as HH:MM"),
    (["schedule.at=03:00", "schedule.every_s=60"], "schedule.at: found together with every_s"),
    (["schedule.hours=7-7"], "schedule.hours: found '7-7', expected two different hours"),
    (["codec.up=int8"], "codec.up: found 'int8', expected 'float32' or 'float16'"),
    (["schema=2"], "schema: found 2, expected 1"),
    (["rounds.quorum=0"], "rounds.quorum: found 0, expected greater than or equal to 1"),
]


@pytest.mark.parametrize(("sets", "text"), BROKEN, ids=[" ".join(s) for s, _ in BROKEN])
def test_each_broken_rule_is_said_in_one_line_with_file_and_key(sets: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_federation("har", sets=sets)
    line = caught.value.line()
    assert caught.value.error_id == "federation-invalid"
    assert line.startswith("har.toml: ")
    assert text in line
    assert "\n" not in line
    assert "pydantic" not in line


def test_several_broken_rules_are_all_said() -> None:
    with pytest.raises(ConfigError, match=r"training\.lr: .*; codec\.up: "):
        load_federation("har", sets=["training.lr=-1", "codec.up=zip"])


def test_many_broken_rules_are_counted_after_the_first() -> None:
    sets = [f"training.{key}='x'" for key in ("lr", "momentum", "epochs", "steps", "batch_size", "clip_norm")]
    with pytest.raises(ConfigError, match=r"; and 2 more$"):
        load_federation("har", sets=sets)


def test_a_misspelt_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'har'") as caught:
        load_federation("hra")
    assert caught.value.error_id == "federation-not-found"


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^here/none\.toml: no such file$") as caught:
        load_federation("here/none.toml")
    assert caught.value.error_id == "federation-not-found"


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("schema = = 1\n")
    with pytest.raises(ConfigError, match=r"own\.toml: not TOML: .*line 1"):
        load_federation(str(file))


@pytest.mark.parametrize(
    ("content", "text"), [(b"\xff\xfe", "byte 0 is not UTF-8"), (b"#" * (1 << 21), "2097152 bytes")]
)
def test_a_file_of_the_wrong_bytes_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=text) as caught:
        load_federation(str(file))
    assert caught.value.error_id == "federation-invalid"


def test_a_folder_is_not_a_federation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        load_federation(f"{tmp_path}/")


def test_a_copy_of_a_preset_at_a_path_is_the_same_federation(tmp_path: Path) -> None:
    preset = Path(load_federation.__code__.co_filename).parent / "presets" / "har.toml"
    file = tmp_path / "own.toml"
    file.write_bytes(preset.read_bytes())
    assert load_federation(str(file)) == load_federation("har")


def test_a_set_takes_toml_values_bare_words_and_quoted_parts() -> None:
    federation = load_federation(
        "har",
        sets=["training.epochs=7", "visibility=full", "title = Two words", 'blocks."fusion/har.accel".quorum = 2'],
    )
    assert federation.training.epochs == 7
    assert federation.visibility == "full"
    assert federation.title == "Two words"
    assert federation.blocks["fusion/har.accel"].quorum == 2


@pytest.mark.parametrize("text", ["training", "=3", 'training."lr=3', "training..lr=3", "name.lr=3"])
def test_a_set_that_is_no_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_federation("har", sets=[text])


def test_every_preset_is_valid_and_has_a_title() -> None:
    presets = dict(list_federations())
    assert set(presets) >= {"har", "two-tasks", "audio-image"}
    assert all(presets.values())
    for name in presets:
        assert load_federation(name).name == name
