"""`manifest.json` of a bundle: what the file says of itself, as a pydantic model. Holds no tensors, reads no files.

`labels` and `preprocessing` repeat what the federation says, for people and other programs; a reader holds them against
it, so that nobody is told one thing and served another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from blossom_edge.codec.strict_json import parse_object
from blossom_edge.core.blocks import BlockId
from blossom_edge.core.errors import BlossomError
from blossom_edge.core.names import NAME_PATTERN, PLAIN_NAME_PATTERN
from blossom_edge.federation.problems import explain
from blossom_edge.federation.schema import Federation
from blossom_edge.inference.sealed_zip import MAX_FILE_BYTES, MAX_MEMBERS, invalid

SCHEMA: Final = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 8 << 20

Sha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
PlainName = Annotated[str, StringConstraints(pattern=PLAIN_NAME_PATTERN)]
Names = Annotated[tuple[PlainName, ...], Field(strict=False, max_length=64)]
Text = Annotated[str, StringConstraints(max_length=200)]
Version = Annotated[int, Field(ge=0, le=2**53)]
_KINDS = "encoder|fusion|head|own-fusion|own-head|gate|scale"
Block = Annotated[str, StringConstraints(pattern=rf"^({_KINDS})/[a-z0-9][a-z0-9.-]{{0,62}}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class BlockEntry(_Part):
    """One block: digest of its specification, its skeleton (None: a gate or a scale), its version (None: private)."""

    digest: Sha
    skeleton: Sha | None
    version: Version | None
    private: bool


class MemberEntry(_Part):
    """What another member of the file must be."""

    sha256: Sha
    size: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)]


class Manifest(_Part):
    """The manifest, checked in itself; `federation` and `profile` are checked by their own models."""

    schema_: Literal[1] = Field(alias="schema")
    made_by: Text
    device: Name
    federation: dict[str, Any]
    federation_digest: Sha
    modalities: Annotated[Names, Field(min_length=1)]
    tasks: Names
    labels: dict[PlainName, Annotated[tuple[str, ...], Field(strict=False)]]
    preprocessing: dict[PlainName, dict[str, Any]]
    profile: dict[str, Any]
    blocks: Annotated[dict[Block, BlockEntry], Field(min_length=1, max_length=MAX_MEMBERS)]
    heads: Names
    head_number: Version
    gates: dict[PlainName, Share] = Field(default_factory=dict)
    members: Annotated[dict[str, MemberEntry], Field(max_length=MAX_MEMBERS)]

    def to_bytes(self) -> bytes:
        """The member's bytes: JSON, sorted, indented for people; equal content gives equal bytes."""
        values = self.model_dump(mode="json", by_alias=True, exclude=set() if self.gates else {"gates"})
        return json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False).encode()

    def expected_members(self) -> frozenset[str]:
        """The members that belong to what the manifest names, itself left out."""
        blocks = {block_file(block) for block in self.blocks}
        skeletons = {skeleton_file(entry.skeleton) for entry in self.blocks.values() if entry.skeleton}
        return frozenset(blocks | skeletons | {head_file(task) for task in self.heads})


def block_file(block: BlockId | str) -> str:
    """The member with a block's tensors."""
    return f"blocks/{str(block).replace('/', '.', 1)}.safetensors"


def head_file(task: str) -> str:
    """The member with the device's own head of a task."""
    return f"heads/{task}.safetensors"


def skeleton_file(digest: str) -> str:
    """The member with a skeleton."""
    return f"skeletons/{digest}.onnx"


def labels_of(federation: Federation) -> dict[str, list[str]]:
    """Per task the classes in the order of the outputs; none for a regression."""
    return {name: list(task.classes) for name, task in sorted(federation.tasks.items())}


def preprocessing_of(federation: Federation) -> dict[str, dict[str, Any]]:
    """Per modality rate in Hz, window and hop in samples, channels with unit, mean and spread."""
    table: dict[str, dict[str, Any]] = federation.to_dict()["modalities"]
    return table


def parse_manifest(data: bytes, source: str) -> Manifest:
    """Read the manifest.

    Raises:
        ConfigError: `bundle-invalid`: no JSON, of a newer program, or a key that is missing, unknown or wrong.
    """
    try:
        values = parse_object(data, MANIFEST)
    except BlossomError as error:
        raise invalid(source, str(error)) from None
    schema = values.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise invalid(
            source,
            f"{MANIFEST}: found schema {schema}, expected {SCHEMA}: a newer program wrote it",
            hint="update with `pip install -U blossom-edge`",
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise invalid(source, f"{MANIFEST}: {explain(error, Manifest, values)}") from None


def check_repeated(manifest: Manifest, federation: Federation, source: str) -> None:
    """Hold what the manifest repeats against the federation itself.

    Raises:
        ConfigError: `bundle-invalid`: a modality or task it does not have, other labels, other preprocessing.
    """
    for what, found, known in (
        ("modalities", manifest.modalities, federation.modalities),
        ("tasks", manifest.tasks, federation.tasks),
        ("heads", manifest.heads, manifest.tasks),
        ("gates", tuple(manifest.gates), manifest.heads),
    ):
        if strange := sorted(set(found) - set(known)):
            expected = ", ".join(sorted(known)) or "nothing"
            raise invalid(source, f"{MANIFEST}: {what}: found {', '.join(strange)}, expected some of {expected}")
    labels = {task: list(classes) for task, classes in manifest.labels.items()}
    for key, given, wanted in (
        ("labels", labels, labels_of(federation)),
        ("preprocessing", manifest.preprocessing, preprocessing_of(federation)),
    ):
        if other := _first_difference(given, wanted):
            raise invalid(source, f"{MANIFEST}: {key}.{other}: not what the bundle's own federation says")


def _first_difference(found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    return next((key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)), "")
