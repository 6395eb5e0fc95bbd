"""The will of a device: what its broker says for it when a connection breaks."""

from __future__ import annotations

from blossom_edge.client.actions import DeviceFacts
from blossom_edge.codec.envelope import encode
from blossom_edge.codec.keys import SigningKey
from blossom_edge.codec.messages import Bye
from blossom_edge.transport import topics
from blossom_edge.transport.link import WillMaker


def make_will(federation_name: str, facts: DeviceFacts, key: SigningKey) -> WillMaker:
    """A signed bye per connection; boot and connection let the gateway ignore one that comes too late."""

    def will(connection: int) -> tuple[str, bytes]:
        bye = Bye(boot=facts.boot, connection=connection, reason="the connection broke")
        payload = encode(bye, scope=f"{federation_name}/{facts.device}", sign=key)
        return topics.up(federation_name, facts.device, bye.NAME), payload

    return will
