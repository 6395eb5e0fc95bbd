"""Opens a bundle as a model that runs, for `blossom-edge infer --bundle`. Needs neither gateway nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blossom_edge.core.errors import ConfigError

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.head import HeadValues
    from blossom_edge.inference.runtime import RuntimeOptions
    from firmware_profiles.schema import Profile


class BundleModel(NamedTuple):
    """A bundle, ready to run: `ModelInUse(found.model, found.heads, found.versions)` is what a `Predictor` takes.

    heads: an own head is there because the device uses it, so it goes before the blocks' output. tasks: those that it
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


def open_bundle_model(path: Path, options: RuntimeOptions | None = None) -> BundleModel:
    """Read a bundle, check it, and make a session of each block.

    Raises:
        ConfigError: `nothing-found`, `bundle-invalid`; `federation-mismatch`: its profile does not give the windows
            that its federation wants; `package-missing`, `runtime-too-old`: onnxruntime.
        RemoteError: `skeleton-invalid`: onnxruntime itself refuses a graph.
    """
    from blossom_edge.client.fit import check_fit
    from blossom_edge.inference.bundle import read_bundle
    from blossom_edge.inference.chain import OnnxModel
    from blossom_edge.inference.runtime import RuntimeOptions
    from firmware_profiles.schema import Profile

    bundle = read_bundle(path)
    profile = Profile.model_validate(dict(bundle.profile))
    check_fit(profile, bundle.federation)
    model = OnnxModel.build(
        bundle.federation, bundle.blocks, bundle.skeleton, options=options if options is not None else RuntimeOptions()
    )
    tasks = tuple(sorted({*model.tasks, *bundle.heads} & set(bundle.tasks)))
    if not tasks:
        found = ", ".join(map(str, sorted(bundle.blocks)))
        raise ConfigError(
            "bundle-invalid",
            f"{path}: serves no task: found {found}; expected an own head, or a fusion and a head",
            hint="export it again without --shared-only, from a device that has its private blocks",
        )
    versions = {str(block): version for block, version in bundle.versions.items()}
    versions |= {f"head/{task}": bundle.head_number for task in bundle.heads}
    return BundleModel(
        federation=bundle.federation,
        profile=profile,
        modalities=bundle.modalities,
        tasks=tasks,
        model=model,
        heads=bundle.heads,
        versions=versions,
    )
