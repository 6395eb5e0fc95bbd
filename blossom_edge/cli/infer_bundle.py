"""Opens a bundle as a model that runs, for `blossom-edge infer --bundle`. Needs neither gateway nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blossom_edge.core.errors import BlossomError, ConfigError

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.head import HeadValues
    from blossom_edge.inference.runtime import RuntimeOptions
    from firmware_profiles.schema import Profile


class BundleModel(NamedTuple):
    """A bundle, ready to run; a `ModelInUse` for a `Predictor` is made of it.

    heads: an own head is there because the device uses it, so it goes before the blocks' output, or is mixed with it by
    its gate. own_versions: of the heads. tasks: those that it
    can serve, sorted: by its blocks, or by an own head on its encoders. versions: by block, and of an own head under
    `head/TASK`, as a prediction tells them; private blocks have none.
    """

    federation: Federation
    profile: Profile
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    model: OnnxModel
    heads: Mapping[str, HeadValues]
    versions: Mapping[str, int]
    own_versions: Mapping[str, int]
    gates: Mapping[str, float]


def open_bundle_model(path: Path, options: RuntimeOptions | None = None) -> BundleModel:
    """Read a bundle, check it, and make a session of each block.

    Raises:
        ConfigError: `nothing-found`; `bundle-invalid`, also for a profile that does not give the windows of the
            federation, and for a graph that onnxruntime refuses; `package-missing`, `runtime-too-old`: onnxruntime.
    """
    from blossom_edge.client.fit import check_fit
    from blossom_edge.inference.bundle import read_bundle
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.runtime import RuntimeOptions
    from blossom_edge.inference.sealed_zip import EXPORT_AGAIN, invalid
    from firmware_profiles.schema import Profile

    bundle = read_bundle(path)
    profile = Profile.model_validate(dict(bundle.profile))
    options = options if options is not None else RuntimeOptions()
    try:
        check_fit(profile, bundle.federation)
        model = OnnxModel.build(bundle.federation, bundle.blocks, bundle.skeleton, options=options)
    except BlossomError as error:
        if error.error_id in ("package-missing", "runtime-too-old"):
            raise
        raise invalid(str(path), str(error), hint=EXPORT_AGAIN) from None
    tasks = tuple(sorted({*model.tasks, *bundle.heads} & set(bundle.tasks)))
    if not tasks:
        found = ", ".join(map(str, sorted(bundle.blocks)))
        raise ConfigError(
            "bundle-invalid",
            f"{path}: serves no task: found {found}; expected an own head, or a fusion and a head",
            hint="export it again without --shared-only, from a device that has its private blocks",
        )
    versions = {str(block): version for block, version in bundle.versions.items()}
    versions |= {f"head/{task}": bundle.head_number for task in bundle.heads if not bundle.gates.get(task)}
    return BundleModel(
        federation=bundle.federation,
        profile=profile,
        modalities=bundle.modalities,
        tasks=tasks,
        model=model,
        heads=bundle.heads,
        versions=versions,
        own_versions=dict.fromkeys(bundle.heads, bundle.head_number),
        gates=bundle.gates,
    )
