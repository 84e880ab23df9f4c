"""Which flow a frame belongs to."""

from chimney.link.base import ETHERNET_HEADER, Flow

_TCP = 6
_IPV6_HEADER = 40
_FRAGMENT = 0x3FFF  # "more fragments" and the offset


def flow_of(frame: bytes | bytearray | memoryview) -> Flow | None:
    """The TCP flow of a *received* Ethernet frame (tag removed): its destination is our side.

    None for what is no TCP, a fragment, cut off before the ports, or behind IPv6 extension headers: what
    Link.set_filter ignores.
    """
    view = memoryview(frame)
    ethertype = bytes(view[12:14])
    if ethertype == b"\x08\x00" and len(view) >= ETHERNET_HEADER + 20:
        if view[23] != _TCP or int.from_bytes(view[20:22], "big") & _FRAGMENT:
            return None
        ports = ETHERNET_HEADER + (view[14] & 0x0F) * 4
        source, destination = bytes(view[26:30]), bytes(view[30:34])
    elif ethertype == b"\x86\xdd" and len(view) >= ETHERNET_HEADER + _IPV6_HEADER:
        if view[20] != _TCP:
            return None
        ports = ETHERNET_HEADER + _IPV6_HEADER
        source, destination = bytes(view[22:38]), bytes(view[38:54])
    else:
        return None
    if len(view) < ports + 4:
        return None
    remote_port = int.from_bytes(view[ports : ports + 2], "big")
    local_port = int.from_bytes(view[ports + 2 : ports + 4], "big")
    return Flow(destination, local_port, source, remote_port)
