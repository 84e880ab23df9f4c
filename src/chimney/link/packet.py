"""A link to a network interface of Linux: a packet socket with a receive ring.

Sources: packet(7); Linux, Documentation/networking/packet_mmap.rst; VIRTIO 1.2, section 5.1.6 (the header in front of
each frame, by which the kernel is told to cut and to complete checksums, and tells what has been merged and verified).

Frames are received without a system call: the kernel writes them into a ring of slots that is mapped here. The ring and
not the socket buffer, since the ring may be large without privilege.
"""

import array
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
from collections.abc import Iterable
from functools import partial

from chimney.link import bpf
from chimney.link.base import ETHERNET_HEADER, NO_VLAN, Flow, Frame, Link, LinkError, Statistics

LARGEST_FRAME = 65535 + 40 + ETHERNET_HEADER
"""An IPv6 packet with the greatest length, and its Ethernet header; bytes."""

# linux/if_packet.h
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_TPACKET_V2 = 1
_STATUS_KERNEL = 0
_STATUS_USER = 0x01
_STATUS_CSUM_NOT_READY = 0x08
_STATUS_VLAN_VALID = 0x10
_STATUS_CSUM_VALID = 0x80
# struct tpacket2_hdr, in words and half-words
_WORD_LENGTH = 1
_WORD_KEPT = 2
_HALF_MAC = 6
_HALF_VLAN = 12
_SLOT_OVERHEAD = 128  # bytes in a slot that are not the frame: tpacket2_hdr, sockaddr_ll, virtio header, alignment
_BLOCK = 1 << 21  # bytes: the kernel wants to allocate the ring in pieces

# linux/virtio_net.h
_VNET = struct.Struct("=BBHHHH")
_VNET_HEADER = 10
_NEEDS_CSUM = 0x01
_DATA_VALID = 0x02
_GSO_NONE = 0
_GSO_TCPV4 = 1
_GSO_TCPV6 = 4
_GSO_ECN = 0x80  # CWR stands on the first segment alone (RFC 3168, 6.1.2)
_FLAGS_AT = 13
_CWR = 0x80

# asm-generic/socket.h, linux/sockios.h, linux/if_arp.h
_SO_SNDBUFFORCE = 32
_SIOCGIFFLAGS = 0x8913
_SIOCGIFMTU = 0x8921
_SIOCGIFHWADDR = 0x8927
_ETH_P_ALL = 0x0003
_ETHERNET_LIKE = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK

_MAX_PIECES = 1000  # sendmsg takes 1024 (IOV_MAX)
_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_GONE = (errno.ENODEV, errno.ENXIO)


class PacketLink(Link):
    """The network interface `name` of the calling thread's network namespace.

    slots          of the receive ring, each for one frame: about 66 KB times this are allocated.
    largest_frame  what a slot must hold, in bytes. What does not fit is dropped, and counted.
    send_buffer    bytes under way to the device before send() finds no room; less where the system's limit is lower.

    Both directions need CAP_NET_RAW over the network namespace. Nothing is received before set_filter.
    Raises LinkError: no permission, no such interface, not Ethernet (or loopback), no memory for the ring.
    """

    def __init__(
        self, name: str, *, slots: int = 1024, largest_frame: int = LARGEST_FRAME, send_buffer: int = 8 << 20
    ) -> None:
        super().__init__(name, b"", 0)
        try:
            # Protocol 0: nothing is received until the socket is bound, and then the filter is in place.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise LinkError(
                error.errno, f"{name}: a packet socket needs CAP_NET_RAW (be root, here or in a user namespace)"
            ) from error
        self._socket = sock
        self._map: mmap.mmap | None = None
        self._frames: list[Frame] = []
        self._sendmsg = sock.sendmsg
        try:
            self._attach(bpf.reject_all())
            sock.setblocking(False)
            sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            _set_send_buffer(sock, send_buffer)
            self._map_ring(slots, largest_frame)
            self._bind()
        except LinkError:
            self._give_up()
            raise
        except OSError as error:
            failure = self._failure(error)
            self._give_up()
            raise failure from error
        self._poll = select.poll()
        self._poll.register(sock, select.POLLOUT)
        self._vnet = bytearray(_VNET_HEADER)
        self._head = 0
        self._tail = 0
        self._lent = 0
        self._closed = False
        self.precision = bpf.Precision.FLOWS
        """What the filter tells apart: with very many flows it is less."""
        self._kernel_drops = 0
        self._too_large = 0
        self._received_frames = 0
        self._received_bytes = 0
        self._sent_frames = 0
        self._sent_bytes = 0
        self._refused = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def current_mtu(self) -> int:
        try:
            (self.mtu,) = struct.unpack("16xi12x", self._ioctl(_SIOCGIFMTU))
        except OSError:
            # There is no such interface now.
            pass
        return self.mtu

    def is_gone(self) -> bool:
        # The kernel has unbound the socket.
        return self._closed or not self._socket.getsockname()[0]

    def pending(self) -> int:
        """How many frames wait to be received now."""
        words, offsets = self._words, self._offsets
        slots = len(offsets)
        count = 0
        # Received but unreleased slots still look ready: they are not waiting any more.
        while count < slots - self._lent and words[offsets[(self._head + count) % slots] >> 2] & _STATUS_USER:
            count += 1
        return count

    def receive(self, limit: int) -> list[Frame]:
        self.release()
        frames: list[Frame] = []
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        memory, octets, words, halves, offsets = self._ring, self._octets, self._words, self._halves, self._offsets
        head = self._head
        slots = len(offsets)
        taken = 0
        limit = min(limit, slots)
        while taken < limit:
            slot = offsets[head]
            word = slot >> 2
            # The kernel writes the status last; all else is read after it.
            status = words[word]
            if not status & _STATUS_USER:
                break
            taken += 1
            head += 1
            if head == slots:
                head = 0
            length = words[word + _WORD_KEPT]
            if length < words[word + _WORD_LENGTH]:
                self._too_large += 1
                continue
            half = slot >> 1
            start = slot + halves[half + _HALF_MAC]
            vnet = start - _VNET_HEADER
            if len(frames) == len(self._frames):
                self._frames.append(Frame(memory[:0]))
            frame = self._frames[len(frames)]
            frame.place(memory, octets, start, length)
            frame.vlan = halves[half + _HALF_VLAN] if status & _STATUS_VLAN_VALID else NO_VLAN
            verified = status & (_STATUS_CSUM_VALID | _STATUS_CSUM_NOT_READY)
            frame.checksum_ok = (verified | octets[vnet] & (_NEEDS_CSUM | _DATA_VALID)) != 0
            frame.gso_size = halves[(vnet + 4) >> 1] if octets[vnet + 1] != _GSO_NONE else 0
            frames.append(frame)
            self._received_bytes += length
        self._head = head
        self._lent = taken
        if taken:
            self._received_frames += len(frames)
        else:
            self._check_device()
        return frames

    def release(self) -> None:
        words, offsets = self._words, self._offsets
        tail = self._tail
        while self._lent:
            self._lent -= 1
            words[offsets[tail] >> 2] = _STATUS_KERNEL
            tail += 1
            if tail == len(offsets):
                tail = 0
        self._tail = tail

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
        if vlan >= 0:
            header = b"".join((header[:12], b"\x81\x00", vlan.to_bytes(2, "big"), header[12:]))
            if csum_start:
                csum_start += 4
        gso_type = _GSO_NONE
        if gso_size:
            gso_type = _GSO_TCPV6 if gso_ipv6 else _GSO_TCPV4
            if header[csum_start + _FLAGS_AT] & _CWR:
                gso_type |= _GSO_ECN
        if len(payload) > _MAX_PIECES:
            payload = [memoryview(b"".join(payload))]
        vnet = self._vnet
        _VNET.pack_into(
            vnet, 0, _NEEDS_CSUM if csum_start else 0, gso_type, len(header), gso_size, csum_start, csum_offset
        )
        try:
            sent = self._sendmsg([vnet, header, *payload])
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._refused += 1
                return False
            raise self._failure(error) from error
        self._sent_frames += 1
        self._sent_bytes += sent - _VNET_HEADER
        return True

    def writable(self) -> bool:
        """As Link.writable. After a refusal by the device's queue (ENOBUFS) this is True at once."""
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        return bool(self._poll.poll(0))

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        """As Link.set_filter. The filters change places at one instant; frames already in the ring stay there."""
        wanted = [] if flows is None else list(flows)
        try:
            if flows is None:
                self._attach(bpf.accept_all())
            else:
                self.precision = bpf.attach_as_fits(self._socket, partial(bpf.compile_filter, wanted))
        except OSError as error:
            raise self._failure(error) from error

    @property
    def statistics(self) -> Statistics:
        if not self._closed:
            self._count_drops()
        return Statistics(
            self._received_frames,
            self._received_bytes,
            self._kernel_drops + self._too_large,
            self._sent_frames,
            self._sent_bytes,
            self._refused,
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._count_drops()
        # The mapping holds a descriptor of its own: while someone keeps a frame the socket lives on, but hears nothing.
        self._attach(bpf.reject_all())
        self._lent = 0
        self._give_up()

    def _give_up(self) -> None:
        """Give the socket and the ring back."""
        self._socket.close()
        nothing = memoryview(bytearray(4))
        self._ring = self._octets = nothing
        self._words, self._halves = nothing.cast("I"), nothing.cast("H")
        self._frames.clear()
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                # Someone keeps a frame. Its memory goes with the last of them.
                pass

    def _map_ring(self, slots: int, largest_frame: int) -> None:
        slot_size = -(-(largest_frame + _SLOT_OVERHEAD) // 256) * 256
        per_block = min(slots, max(1, _BLOCK // slot_size))
        block_size = -(-per_block * slot_size // mmap.PAGESIZE) * mmap.PAGESIZE
        blocks = -(-slots // per_block)
        request = struct.pack("4I", block_size, blocks, slot_size, blocks * per_block)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._map = mmap.mmap(self._socket.fileno(), blocks * block_size, flags=flags)
        self._ring = memoryview(self._map)
        self._octets = self._ring
        self._words = self._ring.cast("I")
        self._halves = self._ring.cast("H")
        offsets = (b * block_size + s * slot_size for b in range(blocks) for s in range(per_block))
        self._offsets = memoryview(array.array("q", offsets))

    def _bind(self) -> None:
        kind, self.mac = struct.unpack("16xH6s8x", self._ioctl(_SIOCGIFHWADDR))
        if kind not in _ETHERNET_LIKE:
            raise LinkError(errno.EAFNOSUPPORT, f"{self.name} is no Ethernet interface (ARPHRD type {kind})")
        (self.mtu,) = struct.unpack("16xi12x", self._ioctl(_SIOCGIFMTU))
        self._socket.bind((self.name, _ETH_P_ALL))

    def _ioctl(self, request: int) -> bytes:
        return fcntl.ioctl(self._socket, request, struct.pack("16s16x", self.name.encode()))

    def _attach(self, program: bpf.Program) -> None:
        bpf.attach(self._socket, program)
        self.precision = program.precision

    def _count_drops(self) -> None:
        # Reading sets the kernel's counters to 0.
        _, drops = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._kernel_drops += drops

    def _check_device(self) -> None:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise self._failure(OSError(error, ""))

    def _failure(self, error: OSError) -> LinkError:
        """What went wrong, in words."""
        number = error.errno or 0
        if number == errno.EBADF:
            return LinkError(number, f"{self.name}: the link is closed")
        if number == errno.EMSGSIZE:
            return LinkError(number, f"{self.name}: a wire segment exceeds the MTU (once {self.mtu} bytes)")
        if number == errno.EINVAL:
            return LinkError(number, f"{self.name}: the frame is refused: headers, csum_start and gso_size disagree")
        if number == errno.ENETDOWN or number in _GONE:
            try:
                self._ioctl(_SIOCGIFFLAGS)
            except OSError:
                return LinkError(number, f"{self.name}: there is no such network interface here (any more)")
            return LinkError(number, f"{self.name}: the network interface is down (ip link set {self.name} up)")
        return LinkError(number, f"{self.name}: {os.strerror(number)}")


def _set_send_buffer(sock: socket.socket, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
