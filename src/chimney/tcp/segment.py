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
_TIMESTAMP_LAYOUT = 0x0101080A
_MINIMUM = 20
_FIN = 1
_NOTHING = memoryview(b"")


class Segment:
    """One TCP segment, or a train of them that the link cuts (or has merged) at `mss` bytes of payload.

    seq, ack: 32 bits. flags: FIN .. CWR. window: the 16-bit field as it is on the wire.
    payload: of a received segment. payload_parts: of one to be sent, the link gathers the parts; or of a received train
    that lies in several places, and then `payload` is empty. payload_length: of either. For a plain train that is in
    the window (`Connection.is_plain`) the parts may be anything, which the engine returns in `received`.
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

    def length(self) -> int:
        """SEG.LEN (RFC 9293, 3.4): payload, SYN and FIN."""
        return self.payload_length + (self.flags & _FIN) + (self.flags >> 1 & 1)

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
    segment = read_header(view, 0, size, segments)
    if segment is not None and segment.payload_length > 0:
        segment.payload = view[size - segment.payload_length :]
    return segment


def read_header(octets: memoryview, start: int, end: int, segments: int) -> Segment | None:
    """As `parse_segment`, for the TCP segment from `start` to `end` of what has been received; the payload is not there
    yet, but its length.
    """
    if end - start < _MINIMUM:
        return None
    length = octets[start + 12] >> 4 << 2
    if length < _MINIMUM or start + length > end:
        return None
    segment = Segment()
    segment.seq = _word(octets, start + 4)
    segment.ack = _word(octets, start + 8)
    segment.flags = octets[start + 13]
    segment.window = octets[start + 14] << 8 | octets[start + 15]
    segment.segments = segments
    if length > _MINIMUM:
        _read_options(segment, octets, start + _MINIMUM, length - _MINIMUM)
    segment.payload_length = end - start - length
    return segment


def _word(octets: memoryview, at: int) -> int:
    """The 32 bits there, in network order."""
    high = octets[at] << 8 | octets[at + 1]
    return high << 16 | octets[at + 2] << 8 | octets[at + 3]


def _read_options(segment: Segment, octets: memoryview, at: int, length: int) -> None:
    """Fills in the options; the usual layout, the timestamp alone, is recognised by its first four bytes."""
    if length == TIMESTAMP_SPACE and _word(octets, at) == _TIMESTAMP_LAYOUT:
        segment.has_timestamp = True
        segment.ts_val = _word(octets, at + 4)
        segment.ts_ecr = _word(octets, at + 8)
        return
    options: Options = parse_options(bytes(octets[at : at + length]))
    segment.has_timestamp = options.has_timestamp
    segment.ts_val = options.ts_val
    segment.ts_ecr = options.ts_ecr
    segment.sack_blocks = options.sack_blocks
