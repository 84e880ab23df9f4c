"""Which flow a frame belongs to."""

from chimney.link.base import ETHERNET_HEADER, Flow

_TCP = 6
_IPV6_HEADER = 40
_FRAGMENT = 0x3FFF  # "more fragments" and the offset
EXTENSIONS = (0, 43, 44, 60)
"""Next headers of IPv6 behind which there may be TCP: hop-by-hop options, routing, fragment, destination options."""


def flow_of(frame: bytes | bytearray | memoryview) -> Flow | None:
    """The TCP flow of a *received* Ethernet frame (tag removed): its destination is our side.

    None for what is no TCP, a fragment, cut off before the ports, or behind IPv6 extension headers.
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


def part_of(frame: bytes | bytearray | memoryview) -> tuple[bytes, bytes] | None:
    """The local and the remote address of a *received* frame that may be part of a TCP flow of which it does not tell
    the ports: a fragment, or what stands behind IPv6 extension headers. None for everything else.
    """
    view = memoryview(frame)
    ethertype = bytes(view[12:14])
    if ethertype == b"\x08\x00" and len(view) >= ETHERNET_HEADER + 20:
        if view[23] == _TCP and int.from_bytes(view[20:22], "big") & _FRAGMENT:
            return bytes(view[30:34]), bytes(view[26:30])
    elif ethertype == b"\x86\xdd" and len(view) >= ETHERNET_HEADER + _IPV6_HEADER and view[20] in EXTENSIONS:
        return bytes(view[38:54]), bytes(view[22:38])
    return None
