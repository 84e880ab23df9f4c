"""A TCP segment (RFC 9293, 3.1), received or to be sent, and its header."""

import struct

from chimney.tcp.options import TIMESTAMP_SPACE, Options, build_options, parse_options

FIN = 1
SYN = 2
RST = 4
PSH = 8
ACK = 16
URG = 32
ECE = 64
CWR = 128

NOT_ECT = 0
ECT_1 = 1
ECT_0 = 2
CE = 3

# Source port, destination port, sequence, acknowledgement, offset, flags, window, checksum, urgent pointer.
_HEADER = struct.Struct("!HHIIBBHHH")
_RECEIVED = struct.Struct("!4xIIBBH")
_TIMESTAMP_LAYOUT = 0x0101080A
_TIMESTAMP = struct.Struct("!III")
_MINIMUM = 20
_NOTHING = memoryview(b"")


class Segment:
    """One TCP segment, or a train of them that the link cuts (or has merged) at `mss` bytes of payload.

    seq, ack: 32 bits. flags: FIN .. CWR. window: the 16-bit field as it is on the wire.
    payload: of a received segment. payload_parts, payload_length: of one to be sent; the link gathers the parts.
    segments: the wire segments it stands for. mss: payload bytes of each of them but the last.
    ecn: the codepoint of its IP header (RFC 3168, 5), received or to be set: NOT_ECT, ECT_1, ECT_0 or CE.
    is_retransmission: whether it carries anything that was sent before (of a segment to be sent).
    """

    def __init__(self) -> None:
        self.seq = 0
        self.ack = 0
        self.flags = 0
        self.window = 0
        self.has_timestamp = False
        self.ts_val = 0
        self.ts_ecr = 0
        self.sack_blocks: list[tuple[int, int]] = []
        self.payload = _NOTHING
        self.payload_parts: list[memoryview] = []
        self.payload_length = 0
        self.segments = 1
        self.mss = 0
        self.ecn = NOT_ECT
        self.is_retransmission = False

    def header_bytes(self, source_port: int = 0, destination_port: int = 0) -> bytes:
        """The TCP header with its options; checksum and urgent pointer are zero."""
        options = b""
        if self.has_timestamp or self.sack_blocks:
            options = build_options(self.has_timestamp, self.ts_val, self.ts_ecr, self.sack_blocks)
        offset = (_MINIMUM + len(options)) << 2
        return (
            _HEADER.pack(source_port, destination_port, self.seq, self.ack, offset, self.flags, self.window, 0, 0)
            + options
        )

    def header_length(self) -> int:
        """Bytes of the TCP header with its options."""
        length = _MINIMUM + (TIMESTAMP_SPACE if self.has_timestamp else 0)
        return length + (4 + 8 * len(self.sack_blocks) if self.sack_blocks else 0)

    def __repr__(self) -> str:
        names = "".join(
            n for bit, n in ((FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P"), (ACK, "."), (URG, "U")) if self.flags & bit
        )
        sack = f" sack={self.sack_blocks}" if self.sack_blocks else ""
        stamp = f" ts={self.ts_val}/{self.ts_ecr}" if self.has_timestamp else ""
        return f"<{names} {self.seq}+{self.payload_length} ack={self.ack} win={self.window}{sack}{stamp}>"


def parse_segment(view: memoryview, segments: int = 1) -> Segment | None:
    """Reads a TCP segment; `view` begins with the TCP header and ends with the last byte of payload.

    segments: how many wire segments the link has merged into it. None if the header is malformed.
    """
    size = len(view)
    if size < _MINIMUM:
        return None
    seq, ack, offset, flags, window = _RECEIVED.unpack_from(view)
    length = (offset >> 4) << 2
    if length < _MINIMUM or length > size:
        return None
    segment = Segment()
    segment.seq = seq
    segment.ack = ack
    segment.flags = flags
    segment.window = window
    segment.segments = segments
    if length > _MINIMUM:
        _read_options(segment, view, length)
    if length < size:
        segment.payload = view[length:]
        segment.payload_length = size - length
    return segment


def _read_options(segment: Segment, view: memoryview, length: int) -> None:
    """Fills in the options; the usual layout, the timestamp alone, is recognised by its first four bytes."""
    if length == _MINIMUM + TIMESTAMP_SPACE:
        layout, ts_val, ts_ecr = _TIMESTAMP.unpack_from(view, _MINIMUM)
        if layout == _TIMESTAMP_LAYOUT:
            segment.has_timestamp = True
            segment.ts_val = ts_val
            segment.ts_ecr = ts_ecr
            return
    options: Options = parse_options(bytes(view[_MINIMUM:length]))
    segment.has_timestamp = options.has_timestamp
    segment.ts_val = options.ts_val
    segment.ts_ecr = options.ts_ecr
    segment.sack_blocks = options.sack_blocks
