"""The filter of a packet or raw socket: a classic BPF program that lets the wanted TCP flows through, and nothing else.

Sources: Linux, Documentation/networking/filter.rst; McCanne and Jacobson, The BSD Packet Filter (1993).

The program is a tree of binary searches, one word of the packet after the other: local address, remote address, ports.
What many flows share is tested once. Conditional jumps reach 255 instructions forward and no further; so the program is
written from its end: whatever a jump leads to is already there, its distance known, and a stepping stone (an
unconditional jump, which reaches anywhere) is put between where that is too far.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from chimney.link.base import Flow
from chimney.link.flows import EXTENSIONS

MAX_INSTRUCTIONS = 4096
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_WORD_X, _LOAD_HALF_X = 0x40, 0x48  # at X + k
_LOAD_X_HEADER_LENGTH = 0xB1  # X = 4 * (the low half of the byte at k)
_JUMP = 0x05
_IF_EQUAL, _IF_NOT_LESS, _IF_ANY_BIT = 0x15, 0x35, 0x45
_RETURN = 0x06

_ACCEPT = 0x40000  # bytes to keep: more than any frame has
_REJECT = 0
_REACH = 255
_LINEAR = 3  # as many comparisons in a row cost no more than a search

_PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE: what the kernel knows about the packet, at a negative offset
_PACKET_OTHERHOST = 3

_Load = tuple[int, int]
_Instructions = list[tuple[int, int, int, int]]

# Where the words of a flow are: (load instruction, offset). X is the length of the IPv4 header.
_IPV4: tuple[_Load, ...] = ((_LOAD_WORD, 30), (_LOAD_WORD, 26), (_LOAD_WORD_X, 14))
_IPV6: tuple[_Load, ...] = tuple((_LOAD_WORD, k) for k in (38, 42, 46, 50, 22, 26, 30, 34, 54))
_IPV4_PORT: tuple[_Load, ...] = ((_LOAD_HALF_X, 16),)
_IPV6_PORT: tuple[_Load, ...] = ((_LOAD_HALF, 56),)
# The same at a raw socket: IPv4 packets begin with the IP header, IPv6 packets behind all of it. The IPv6 header is
# at SKF_NET_OFF then.
_NETWORK = 0xFFF00000
_RAW_IPV4: tuple[_Load, ...] = ((_LOAD_WORD, 16), (_LOAD_WORD, 12), (_LOAD_WORD_X, 0))
_RAW_IPV6: tuple[_Load, ...] = (
    *((_LOAD_WORD, _NETWORK + k) for k in (24, 28, 32, 36, 8, 12, 16, 20)),
    (_LOAD_WORD, 0),
)
_RAW_IPV4_PORT: tuple[_Load, ...] = ((_LOAD_HALF_X, 2),)
_RAW_IPV6_PORT: tuple[_Load, ...] = ((_LOAD_HALF, 2),)



class Precision(IntEnum):
    """What a filter tells apart."""

    ANY_TCP = 0
    LOCAL_PORTS = 1
    FLOWS = 2


class Program(NamedTuple):
    instructions: _Instructions
    """(code, jump if true, jump if false, operand)"""
    precision: Precision

    def pack(self) -> bytes:
        """As an array of struct sock_filter."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self.instructions)


def attach(sock: socket.socket, program: Program) -> None:
    """Make it the socket's filter, in place of the one before, at one instant. Raises OSError."""
    instructions = ctypes.create_string_buffer(program.pack())
    filter_program = struct.pack("HP", len(program.instructions), ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)


def attach_as_fits(sock: socket.socket, make: Callable[[Precision], Program]) -> Precision:
    """Attach the most precise program that the kernel takes: it bounds the memory of a socket's filter
    (net.core.optmem_max). ``make(at_most)`` compiles one. Returns its precision. Raises OSError.
    """
    at_most = Precision.FLOWS
    while True:
        program = make(at_most)
        try:
            attach(sock, program)
            return program.precision
        except OSError as error:
            if error.errno != errno.ENOMEM or program.precision == Precision.ANY_TCP:
                raise
        at_most = Precision(program.precision - 1)


def accept_all() -> Program:
    return Program([(_RETURN, 0, 0, _ACCEPT)], Precision.ANY_TCP)


def reject_all() -> Program:
    return Program([(_RETURN, 0, 0, _REJECT)], Precision.FLOWS)


def compile_filter(
    flows: Iterable[Flow], at_most: Precision = Precision.FLOWS, limit: int = MAX_INSTRUCTIONS
) -> Program:
    """A program for received frames of these flows, as precise as `limit` instructions allow, and as `at_most`.

    Between the addresses of a flow, what may be part of it is accepted as well (`flows.part_of`); with very many flows,
    between any addresses. Never accepted: other protocols, frames for another station.
    """
    return _most_precise(flows, at_most, limit, _write)


def compile_raw_filter(
    flows: Iterable[Flow], at_most: Precision = Precision.FLOWS, limit: int = MAX_INSTRUCTIONS
) -> Program:
    """The same for a raw socket of protocol TCP, which gets whole packets only; flows of one address family."""
    return _most_precise(flows, at_most, limit, _write_raw)


def _most_precise(
    flows: Iterable[Flow],
    at_most: Precision,
    limit: int,
    write: Callable[[Sequence[Flow], Precision, bool], _Instructions],
) -> Program:
    wanted = sorted(set(flows))
    if not wanted:
        return reject_all()
    for precision, any_part in ((Precision.FLOWS, False), (Precision.FLOWS, True), (Precision.LOCAL_PORTS, True)):
        # A flow takes at least one instruction: don't write what cannot fit.
        if precision <= at_most and (precision < Precision.FLOWS or len(wanted) < limit):
            instructions = write(wanted, precision, any_part)
            if len(instructions) <= limit:
                return Program(instructions, precision)
    return Program(write(wanted, Precision.ANY_TCP, True), Precision.ANY_TCP)


def _write(flows: Sequence[Flow], precision: Precision, any_part: bool) -> _Instructions:
    ipv4 = [f for f in flows if len(f.local_address) == 4]
    ipv6 = [f for f in flows if len(f.local_address) == 16]
    writer = _Writer()
    no = writer.verdict(_REJECT)
    if ipv6:
        parts = _write_parts(writer, ipv6, _IPV6, any_part)
        no = writer.verdict(_REJECT)
        for extension in reversed(EXTENSIONS):
            no = writer.test(None, _IF_EQUAL, extension, parts, no)
        label = _write_search(writer, ipv6, precision, _IPV6, _IPV6_PORT)
        label = writer.test((_LOAD_BYTE, 20), _IF_EQUAL, 6, label, no)
        no = writer.test(None, _IF_EQUAL, 0x86DD, label, writer.verdict(_REJECT))
    if ipv4:
        parts = _write_parts(writer, ipv4, _IPV4, any_part)
        label = _write_search(writer, ipv4, precision, _IPV4, _IPV4_PORT)
        label = writer.load((_LOAD_X_HEADER_LENGTH, 14), label)
        label = writer.test((_LOAD_HALF, 20), _IF_ANY_BIT, 0x3FFF, parts, label)
        label = writer.test((_LOAD_BYTE, 23), _IF_EQUAL, 6, label, writer.verdict(_REJECT))
        no = writer.test(None, _IF_EQUAL, 0x0800, label, no)
    label = writer.load((_LOAD_HALF, 12), no)
    writer.test((_LOAD_BYTE, _PACKET_TYPE), _IF_EQUAL, _PACKET_OTHERHOST, writer.verdict(_REJECT), label)
    return writer.instructions()


def _write_raw(flows: Sequence[Flow], precision: Precision, _: bool) -> _Instructions:
    writer = _Writer()
    if len(flows[0].local_address) == 16:
        _write_search(writer, flows, precision, _RAW_IPV6, _RAW_IPV6_PORT)
    else:
        label = _write_search(writer, flows, precision, _RAW_IPV4, _RAW_IPV4_PORT)
        writer.load((_LOAD_X_HEADER_LENGTH, 0), label)
    return writer.instructions()


def _write_parts(writer: "_Writer", flows: Sequence[Flow], words: tuple[_Load, ...], any_part: bool) -> int:
    """Accepts what comes from the remote to the local address of a flow, or anything; ``words`` are those of a flow."""
    if any_part:
        return writer.verdict(_ACCEPT)
    return _write_level(writer, words[:-1], 0, sorted({_address_words(flow) for flow in flows}))


def _address_words(flow: Flow) -> tuple[int, ...]:
    addresses = flow.local_address + flow.remote_address
    return struct.unpack(f"!{len(addresses) // 4}I", addresses)


def _write_search(
    writer: "_Writer",
    flows: Sequence[Flow],
    precision: Precision,
    words: tuple[_Load, ...],
    port: tuple[_Load, ...],
) -> int:
    if precision == Precision.ANY_TCP:
        return writer.verdict(_ACCEPT)
    if precision == Precision.LOCAL_PORTS:
        return _write_level(writer, port, 0, sorted({(f.local_port,) for f in flows}))
    keys = [(*_address_words(flow), flow.remote_port << 16 | flow.local_port) for flow in flows]
    return _write_level(writer, words, 0, sorted(keys))


def _write_level(writer: "_Writer", words: tuple[_Load, ...], depth: int, keys: list[tuple[int, ...]]) -> int:
    """Tells `keys`, which agree in all words before `depth`, apart by the rest; the label of where that begins."""
    if depth == len(words):
        return writer.verdict(_ACCEPT)
    groups: dict[int, list[tuple[int, ...]]] = {}
    for key in keys:
        groups.setdefault(key[depth], []).append(key)

    def search(values: list[int]) -> int:
        if len(values) > _LINEAR:
            middle = len(values) // 2
            high = search(values[middle:])
            return writer.test(None, _IF_NOT_LESS, values[middle], high, search(values[:middle]))
        label = writer.verdict(_REJECT)
        for value in reversed(values):
            found = _write_level(writer, words, depth + 1, groups[value])
            label = writer.test(None, _IF_EQUAL, value, found, label)
        return label

    return writer.load(words[depth], search(list(groups)))


class _Writer:
    """Writes a program from its end. A label is the number of instructions from a place to the end."""

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._verdicts: dict[int, int] = {}

    def instructions(self) -> _Instructions:
        return self._reversed[::-1]

    def verdict(self, keep: int) -> int:
        """Ends the program: the packet is kept up to so many bytes. One that is in reach is used again."""
        label = self._verdicts.get(keep, 0)
        if not label or len(self._reversed) - label >= _REACH - 1:
            label = self._verdicts[keep] = self._put(_RETURN, 0, 0, keep)
        return label

    def load(self, what: _Load, then: int) -> int:
        """Loads a register and goes on at `then`."""
        if then != len(self._reversed):
            self._put(_JUMP, 0, 0, len(self._reversed) - then)
        return self._put(what[0], 0, 0, what[1])

    def test(self, what: _Load | None, condition: int, operand: int, yes: int, no: int) -> int:
        """Loads a word, unless it has been, and branches."""
        # The stepping stone for `no` moves `yes` one away.
        if len(self._reversed) - yes >= _REACH:
            yes = self._put(_JUMP, 0, 0, len(self._reversed) - yes)
        if len(self._reversed) - no > _REACH:
            no = self._put(_JUMP, 0, 0, len(self._reversed) - no)
        here = len(self._reversed)
        label = self._put(condition, here - yes, here - no, operand)
        return label if what is None else self.load(what, label)

    def _put(self, code: int, yes: int, no: int, operand: int) -> int:
        self._reversed.append((code, yes, no, operand))
        return len(self._reversed)
