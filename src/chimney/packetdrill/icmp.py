"""ICMP messages about a segment, and routes that change: what the host tells the engine of the path."""

from chimney.packetdrill.endpoint import Endpoint, Phase
from chimney.packetdrill.engine_config import path_mtu, route_mtu
from chimney.packetdrill.errors import Unsupported
from chimney.packetdrill.host import Host
from chimney.packetdrill.nodes import IcmpPacket

_FRAGMENTATION_NEEDED = ("frag_needed", "packet_too_big")
_LEAST_MTU = {False: 552, True: 1280}


def receive(host: Host, message: IcmpPacket, seq: int | None) -> None:
    """An ICMP message arrives. seq: of the segment that it quotes, as on the wire.

    One that needs fragmentation is about the path, if the segment quoted is under way (RFC 5927, 4). All others are
    soft errors to an established connection (RFC 1122, 4.2.3.9), and no reason to end it (RFC 5927, 5.2).
    """
    endpoint = host.under_test
    if not isinstance(endpoint, Endpoint) or endpoint.connection is None or endpoint.phase is not Phase.OPEN:
        raise Unsupported("ICMP for a connection that is not established")
    too_big = message.kind in _FRAGMENTATION_NEEDED or message.code in _FRAGMENTATION_NEEDED
    connection = endpoint.connection
    if not too_big or message.mtu is None:
        return
    under_way = connection.snd_max - connection.snd_una & 0xFFFFFFFF
    if seq is not None and seq - connection.snd_una & 0xFFFFFFFF >= under_way:
        return
    mtu = max(message.mtu, _LEAST_MTU[endpoint.ipv6])
    if mtu < path_mtu(host.settings):
        host.settings.learned_mtu = (route_mtu(host.settings), mtu)
        apply_path_mtu(host)


def apply_path_mtu(host: Host) -> None:
    """A route may have changed, or more be known of the path."""
    mtu = path_mtu(host.settings)
    for endpoint in host.endpoints:
        connection = endpoint.connection
        if connection is not None and endpoint.phase is Phase.OPEN and endpoint.path_mtu != mtu:
            endpoint.path_mtu = mtu
            connection.update_path_mtu(mtu)
            endpoint.flush(host.now)
    host.collect()
