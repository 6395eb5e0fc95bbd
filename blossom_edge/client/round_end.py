"""What a trained round leaves behind: the updates that leave, and the checkpoint that is written before. Pure."""

from __future__ import annotations

from blossom_edge.client.actions import Checkpoint
from blossom_edge.client.blocks import DeviceBlocks
from blossom_edge.client.speech import Voice, key_of
from blossom_edge.client.updates import make_updates
from blossom_edge.codec import messages
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.training import Blocks, TrainResult


def checkpoint_of(
    plan: messages.Plan,
    result: TrainResult,
    base: Blocks,
    *,
    blocks: DeviceBlocks,
    before: Checkpoint,
    voice: Voice,
    num_seen: int,
) -> Checkpoint:
    """The checkpoint after a round: private blocks and optimiser as trained, the shared blocks' updates in the outbox.

    before: the last checkpoint; its private blocks stay where this round trained none.

    Raises:
        BlossomError: `local-value`: an update that cannot be sent.
    """
    updates = make_updates(
        blocks.federation.spec,
        result,
        base,
        round_number=plan.round,
        base_versions={key_of(b): b.version for b in plan.blocks},
        key_by_block=blocks.keys,
        codec=make_codec(plan.codec),
    )
    private = {block: values for block, values in result.blocks.items() if block in blocks.private}
    return Checkpoint(
        round=plan.round,
        epoch=voice.epoch,
        sequence=voice.sequence + len(updates) + 1,
        ledger_seq=voice.ledger_seq,
        num_seen=num_seen,
        private={**before.private, **private},
        optimizer=result.optimizer,
        outbox=updates,
    )
