"""What a personal head sees: the embeddings of all modalities side by side, and which of them are real."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from blossom_edge.core.blocks import Array, BlockId
from blossom_edge.federation.schema import Federation
from blossom_edge.federation.spec import encoder_id, scale_id


def can_embed(federation: Federation, blocks: Collection[BlockId], modality: str) -> bool:
    """Whether these blocks embed a modality: its encoder is here, and its scale where the federation agrees on one.

    An encoder that was trained on scaled windows says nothing of others, so it does not run without its scale.
    """
    scale = scale_id(modality)
    return encoder_id(modality) in blocks and (scale in blocks or scale not in federation.spec)


def head_features(
    embeddings: Mapping[str, Array], present: Mapping[str, NDArray[np.bool_]], modalities: Sequence[str]
) -> NDArray[np.float32]:
    """(n, sum of widths + number of modalities) float32: the embeddings in the order of `modalities`, then 0/1 flags.

    embeddings: modality -> (n, width), of `OnnxModel.embed`; present: modality -> (n,) bool, a missing one is absent in
    all windows. Where a modality is absent its embedding is zeros, whatever stands in `embeddings`. The visibility of
    fusion and head does not matter here: a personal head never sees them.

    Raises:
        KeyError: a modality without embeddings.
    """
    pieces: list[NDArray[np.float32]] = []
    flags: list[NDArray[np.float32]] = []
    for modality in modalities:
        embedding = embeddings[modality]
        mask = present.get(modality)
        has = np.zeros((len(embedding), 1), dtype=np.bool_) if mask is None else np.asarray(mask, np.bool_)[:, None]
        pieces.append(np.where(has, embedding, np.float32(0.0)).astype(np.float32, copy=False))
        flags.append(has.astype(np.float32))
    return np.concatenate([*pieces, *flags], axis=1)
