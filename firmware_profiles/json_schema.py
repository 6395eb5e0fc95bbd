"""The JSON Schema of a profile's file, for editors. What only the resolved profile can show is left to `validate`."""

from __future__ import annotations

from typing import Any

from firmware_profiles.schema import Profile

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_IN_PARTS = ("Profile", "ProfileSensor", "ProfileModality")
"""Tables that a child may give in part: what it leaves out comes from its parent."""

_DESCRIPTIONS: dict[str, dict[str, str]] = {
    "Profile": {
        "schema": "The version of the format: 1.",
        "id": "May be left out: it is the file's name.",
        "title": "One line for people.",
        "extends": "Name or path of one parent. Tables merge; arrays and single values replace those of the parent.",
        "abstract": "true: only a parent, cannot be joined with.",
        "tier": "How far a shipped profile is tested; leave it out of your own.",
        "hardware": "The board.",
        "compute": "What the board does with the model.",
        "limits": "What the work may take from the board; left out: no limit of ours.",
        "transport": "How the board keeps its link.",
        "sensors": "Pieces of hardware by name, and how each is read.",
        "modalities": "Kinds of signal that a model learns from, by the name that the federation gives them.",
    },
    "Hardware": {
        "board": "Which board this is, for people.",
        "match": "Values of /proc/device-tree/compatible, any of which names this board.",
        "arch": "What `uname -m` says.",
        "ram_mb": "Memory of the board in MB.",
    },
    "Compute": {
        "role": "train: takes part in rounds. personalize: learns its own head only. infer: applies the model.",
        "device": "Where training computes.",
        "threads": "Threads for training. Left out: as many as there are cores, less one.",
    },
    "Limits": {
        "memory_mb": "Memory in MB that the work may take.",
        "max_temp_c": "Temperature in degrees Celsius above which the board rests.",
        "train_nice": "Niceness of training, 0 to 19.",
        "upload_kbps": "kbit/s that the work may send.",
        "min_battery_percent": "Below it, and without mains, nothing is trained.",
    },
    "Transport": {"keepalive_s": "Seconds between signs of life on the link."},
    "ProfileSensor": {
        "channels": "Columns, each with a name, a SenML unit and the range it can measure in that unit.",
        "sources": "Ways to read the sensor, tried in this order.",
        "shape": "Of one sample of one channel: left out for a number, [96, 96] for an image, [40] for a spectrum.",
    },
    "Source": {
        "driver": "Name of a driver, or module:Class of your own.",
        "rate_hz": "Samples a second.",
        "gain": "Values are divided by it, for example by that of an amplifier before the converter.",
    },
    "ProfileModality": {
        "sensor": "Which sensor.",
        "channels": "Which of its channels, in the order of the federation.",
        "rate_hz": "Samples a second.",
        "window": "Samples in a window.",
        "hop": "Samples from one window to the next, at most the window.",
        "preprocess": "resample: bring the signal to the federation's rate.",
    },
}


def profile_json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. A file with `extends` or `abstract` may leave out what others give."""
    schema = Profile.model_json_schema(by_alias=True)
    tables = {"Profile": schema, **schema["$defs"]}
    properties: dict[str, Any] = schema["properties"]
    properties["abstract"] = {"type": "boolean", "default": False}
    properties["id"] |= {"default": "the file's name"}
    tables["Source"]["properties"]["gain"] = {"type": "number", "not": {"const": 0}, "default": 1}
    needed = {name: tables[name].pop("required") for name in _IN_PARTS}
    for table, texts in _DESCRIPTIONS.items():
        for key, text in texts.items():
            tables[table]["properties"][key]["description"] = text
    for key in ("sensors", "modalities"):
        properties[key] |= {"additionalProperties": False}
    return {
        "$schema": DIALECT,
        **schema,
        "title": "Profile of blossom-edge",
        "description": "What a type of board is: its sensors, modalities, compute and limits.",
        "if": {"anyOf": [{"required": ["extends"]}, {"required": ["abstract"]}]},
        "else": {
            "required": [key for key in needed["Profile"] if key != "id"],
            "properties": {
                "sensors": {"additionalProperties": {"required": needed["ProfileSensor"]}},
                "modalities": {"additionalProperties": {"required": needed["ProfileModality"]}},
            },
        },
    }
