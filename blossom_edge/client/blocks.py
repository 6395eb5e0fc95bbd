"""The blocks that one device has in one federation: their keys, their first values, the model they make. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blossom_edge.client.actions import Held
from blossom_edge.codec.tensors import make_codec
from blossom_edge.core.blocks import BlockId, BlockKey, BlockKind, Tensors
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.schema import Federation


class DeviceBlocks:
    """What a device with these modalities and tasks (empty: all it can serve) holds."""

    def __init__(self, federation: Federation, modalities: tuple[str, ...], tasks: tuple[str, ...]) -> None:
        self.federation = federation
        serves = tasks or federation.tasks_for(modalities)
        owned = federation.spec.owned(modalities, serves)
        self.keys: dict[BlockId, BlockKey] = {spec.id: spec.key(modalities) for spec in owned}
        self.shared = tuple(sorted(self.keys[spec.id] for spec in owned if spec.leaves_device))
        """Keys of the blocks that are averaged with others."""
        self.private = tuple(sorted(spec.id for spec in owned if not spec.leaves_device))
        """Blocks that stay here."""
        self._down = make_codec(federation.codec.down)

    def needed(self, planned: Iterable[BlockKey]) -> set[BlockKey]:
        """The keys without which a round cannot begin: those planned, and the scales, planned only at first."""
        return {*planned, *(key for key in self.shared if key.block.kind is BlockKind.SCALE)}

    def cast_size(self, key: BlockKey) -> int:
        """Bytes of a block as it is cast."""
        return self._down.encoded_size(self.federation.spec[key.block])

    def first(self, key: BlockKey) -> bytes:
        """Version 0 of a shared block, as it would be cast."""
        return self._down.encode(self._initial(key.block), self.federation.spec[key.block])

    def model(self, held: Mapping[BlockKey, Held], private: Mapping[BlockId, Tensors]) -> dict[BlockId, Tensors]:
        """All blocks as they are now: the shared ones as held, the private ones as given; else their first values."""
        blocks: dict[BlockId, Tensors] = {}
        for block, key in sorted(self.keys.items()):
            spec = self.federation.spec[block]
            if spec.leaves_device and key in held:
                blocks[block] = self._down.decode(held[key].data, spec)
            elif not spec.leaves_device and block in private:
                blocks[block] = private[block]
            else:
                blocks[block] = self._initial(block)
        return blocks

    def _initial(self, block: BlockId) -> Tensors:
        return initial_block(self.federation.spec[block], self.federation.digest, self.federation.seed)
