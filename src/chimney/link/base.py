"""What a link is: the interface between an engine that makes packets and whatever carries them.

A link speaks Ethernet. What crosses it may be a super-segment: one TCP packet of up to 64 KB that stands for several
wire segments of `gso_size` payload bytes each, cut by the link on its way out (GSO, TSO) or put together on its way in
(GRO, LRO).
"""

from collections.abc import Iterable
from typing import NamedTuple

ETHERNET_HEADER = 14
"""Bytes of an Ethernet header without VLAN tag: two addresses and the EtherType."""

NEVER = 1 << 62
"""A time, in microseconds, that does not come."""

NO_VLAN = -1


class LinkError(OSError):
    """The link can't do its work: the interface is down or gone, or the kernel refuses what it is given (see
    `errno`)."""


class Flow(NamedTuple):
    """One TCP connection, seen from this side. Addresses are in network form: 4 bytes (IPv4) or 16 (IPv6)."""

    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int


class Statistics(NamedTuple):
    """What a link has done since it was opened. A super-segment counts as one frame."""

    received_frames: int
    received_bytes: int
    received_drops: int
    """Frames that were meant for this link and lost, since nobody read them in time or they did not fit."""
    sent_frames: int
    sent_bytes: int
    refused: int
    """Calls of send() that found no room."""


class Frame:
    """A received Ethernet frame.

    Its bytes are valid until the link's next receive() or release(): the memory is used again, and the object may be.
    """

    __slots__ = ("octets", "size", "vlan", "checksum_ok", "gso_size", "payload", "end", "_memory", "_start")

    def __init__(self, data: memoryview, vlan: int = NO_VLAN, checksum_ok: bool = False, gso_size: int = 0) -> None:
        self._memory = data
        self._start = 0
        self.octets = data
        """The frame from its destination address on, without its (outer) VLAN tag; for the eyes of compiled code."""
        self.size = len(data)
        """Bytes of the frame."""
        self.vlan = vlan
        """The VLAN tag's control information (priority, DEI and identifier, 16 bits), -1 without a tag."""
        self.checksum_ok = checksum_ok
        """Someone has verified the TCP checksum, or it never left this machine. False: verify it.

        When True, the checksum field itself may hold anything.
        """
        self.gso_size = gso_size
        """Payload bytes in each wire segment but the last, of which this frame is made; 0: it is one segment."""
        self.payload = 0
        """Where in the frame its TCP payload begins; its reader's to say, as `end`."""
        self.end = 0
        """Where that ends."""

    def place(self, memory: memoryview, octets: memoryview, start: int, size: int) -> None:
        """The frame is that part of `memory`, and of `octets`, which is the same memory."""
        self._memory = memory
        self._start = start
        self.octets = octets[start : start + size]
        self.size = size

    def part(self, start: int, end: int) -> memoryview:
        """Bytes `start` to `end` of the frame."""
        return self._memory[self._start + start : self._start + end]

    @property
    def data(self) -> memoryview:
        """The frame from its destination address on, without its (outer) VLAN tag."""
        return self.part(0, self.size)


class Link:
    """A way to send and receive Ethernet frames. The base of the links; it carries nothing itself."""

    def __init__(self, name: str, mac: bytes, mtu: int) -> None:
        self.name = name
        self.mac = mac
        """Our Ethernet address, 6 bytes."""
        self.mtu = mtu
        """The largest IP packet in one wire segment, in bytes."""

    def fileno(self) -> int:
        """A descriptor that is readable while received frames wait or have not been released, -1 if there is none."""
        return -1

    def pending(self) -> int:
        """How many frames wait to be received now; a link that cannot tell says 0."""
        return 0

    def current_mtu(self) -> int:
        """`mtu` as it is now: an administrator may have changed it."""
        return self.mtu

    def is_gone(self) -> bool:
        """Whether the interface is no more, for good: another one of that name is another link's."""
        return False

    def receive(self, limit: int) -> list[Frame]:
        """What has arrived, at most `limit` frames, oldest first. The frames of the call before are released.

        Raises LinkError when the link has failed and nothing is left to read.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Gives the memory of all received frames back. Call it before waiting on fileno()."""
        raise NotImplementedError

    def send(
        self,
        header: bytes | bytearray | memoryview,
        payload: list[memoryview],
        csum_start: int,
        csum_offset: int,
        gso_size: int,
        gso_ipv6: bool,
        vlan: int = NO_VLAN,
    ) -> bool:
        """Sends one frame, or one super-segment if `gso_size` is not 0. False: no room now, and nothing was sent.

        header      the Ethernet header (untagged) and all headers after it. The IP header is complete and tells the
                    whole length.
        payload     what follows, in pieces; the link is done with it on return.
        csum_start  where in the frame the TCP header begins; the checksum field, `csum_offset` further on, holds the
                    folded sum (not its complement) of the pseudo-header, over the whole length. The link completes it.
                    0: leave all as it is.
        gso_size    payload bytes per wire segment.
        gso_ipv6    with a `gso_size`: whether this is IPv6.
        vlan        control information of an 802.1Q tag to insert, -1 for none.

        Raises LinkError when the interface is down or gone, or a frame without `gso_size` exceeds the MTU. Whether the
        segments of a super-segment do is not checked by every link: devices may let them through, or lose them.
        """
        raise NotImplementedError

    def writable(self) -> bool:
        """Whether it is worth calling send() again after it returned False."""
        raise NotImplementedError

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        """From now on only packets *from the remote to the local side* of these TCP flows are received; None: all are.

        A link begins with an empty filter. Between the two addresses of a flow, what does not tell its ports is
        received as well (`flows.part_of`). Links may let more through than asked for when there are very many flows.
        """
        raise NotImplementedError

    @property
    def statistics(self) -> Statistics:
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of everything. Received frames become invalid. Closing twice does no harm."""
        raise NotImplementedError
