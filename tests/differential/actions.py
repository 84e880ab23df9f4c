"""What happens to a connection: the setup, the peer's segments, the application's calls; and strategies for them.

Places in the sequence spaces are told by landmarks, which both sides have in common when a step begins:
  peer's numbers: "start" of the stream, "next" that is expected, "edge" of the window, "top" of what was ever sent
  our numbers: "una" the first not acknowledged, "max" the end of what was sent, "first" of the stream
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.differential.peer import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG

NO_TIME = None


@dataclass(frozen=True)
class Setup:
    """The connection at the start. Sizes in bytes; `clock` is our timestamp clock, `peer_clock` the peer's.

    minshall: whether the engine has the kernel's variant of Nagle's algorithm.
    """

    iss: int = 1000
    irs: int = 5000
    mss: int = 1000
    snd_wscale: int = 0
    rcv_wscale: int = 0
    snd_wnd: int = 20_000
    rcv_wnd: int = 20_000
    receive_buffer: int = 1 << 20
    sack: bool = True
    timestamps: bool = True
    nagle: bool = False
    clock: int = 1000
    peer_clock: int = 70_000
    ecn: bool = False
    minshall: bool = True
    knows_clock: bool = True
    reads_at_once: bool = True

    @property
    def window(self):
        """The peer's window as a segment can tell it."""
        return self.snd_wnd >> self.snd_wscale << self.snd_wscale


@dataclass(frozen=True)
class Segment:
    """A segment of the peer's. seq and ack: (landmark, distance). sack: blocks of pairs of our places.

    ts: TSval as distance from the latest one the peer has sent, None for no option. echo: TSecr as distance from our
    clock. options: bytes put in front of the others. offset: of the data, in words, if that is malformed. data: if it
    is not the stream's.
    """

    seq: tuple[str, int] = ("next", 0)
    length: int = 0
    flags: int = ACK
    ack: tuple[str, int] = ("max", 0)
    window: int = 20_000
    ts: int | None = 1
    echo: int = 0
    sack: tuple[tuple[tuple[str, int], tuple[str, int]], ...] = ()
    options: bytes = b""
    offset: int | None = None
    urgent: int = 0
    data: bytes = b""
    ecn: int = 0


@dataclass(frozen=True)
class Read:
    """The application reads up to `count` bytes."""

    count: int = 1 << 20


@dataclass(frozen=True)
class Write:
    """The application writes `count` bytes."""

    count: int = 100


@dataclass(frozen=True)
class Shutdown:
    """The application closes its direction."""


@dataclass(frozen=True)
class Abort:
    """The application aborts; nothing can follow."""


@dataclass(frozen=True)
class Script:
    """A setup and the steps."""

    setup: Setup = field(default_factory=Setup)
    steps: tuple = ()


_ISNS = st.sampled_from([1000, 0, 0xFFFFFFFF, 2**32 - 700, 2**31 - 700, 2**32 - 5000])
_SIZES = st.sampled_from([0, 1, 2, 100, 500, 999, 1000])
_SMALL = st.integers(-3, 3)
_WINDOWS = st.sampled_from([0, 1, 500, 999, 1000, 1001, 3000, 20_000, 65_535])
_DISTANCES = st.one_of(_SMALL, st.sampled_from([100, 500, 1000, 1500, 2000, 3000, -100, -500, -1000, -3000]))
# Not quite half of the space, where there is no order.
_FAR = st.sampled_from([2**31 - 100_000, -(2**31) + 100_000, 2**30, -(2**30), 60_000, -60_000])

setups = st.builds(
    Setup,
    iss=_ISNS,
    irs=_ISNS,
    mss=st.sampled_from([536, 1000, 1460]),
    snd_wscale=st.sampled_from([0, 0, 2, 7]),
    rcv_wscale=st.sampled_from([0, 0, 2, 7]),
    snd_wnd=st.sampled_from([20_000, 20_000, 65_535, 3000, 1000, 0]),
    rcv_wnd=st.sampled_from([20_000, 8000, 40_000]),
    sack=st.booleans(),
    timestamps=st.booleans(),
    nagle=st.booleans(),
    clock=st.sampled_from([1000, 2**32 - 4, 2**31 - 4]),
    knows_clock=st.booleans(),
    peer_clock=st.sampled_from([70_000, 2**32 - 10, 2**31 - 10, 5]),
)

_peer_places = st.tuples(
    st.sampled_from(["next", "next", "next", "edge", "start", "top"]), st.one_of(_DISTANCES, _DISTANCES, _FAR)
)
_our_places = st.tuples(st.sampled_from(["max", "una"]), st.one_of(_SMALL, _DISTANCES, _FAR))
_fresh_acks = st.sampled_from([("max", 0), ("una", 0), ("una", 100), ("una", 1000), ("max", -100)])
_blocks = st.tuples(_our_places, _our_places)
_true_blocks = st.tuples(
    st.tuples(st.just("una"), st.sampled_from([0, 1, 100, 500, 1000])),
    st.tuples(st.sampled_from(["una", "max"]), st.sampled_from([0, 200, 1000, 2000])),
)
_flags = st.sampled_from([ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN])
_odd_flags = st.sampled_from(
    [
        RST,
        RST | ACK,
        SYN,
        SYN | ACK,
        0,
        FIN,
        PSH,
        FIN | SYN,
        FIN | RST | ACK,
        ACK | ECE,
        ACK | CWR,
        ACK | URG,
        0x3F,
        0xFF,
    ]
)
_options = st.one_of(
    st.just(b""),
    st.sampled_from(
        [
            b"\x01\x01\x01\x01",
            b"\x00\x00\x00\x00",
            b"\x02\x04\x05\xb4",
            b"\x03\x03\x07\x01",
            b"\xfd\x04\x00\x00",
            b"\x08\x00\x01\x01",
            b"\x08\x01\x01\x01",
            b"\x05\x02\x01\x01",
            b"\x05\x09" + b"\0" * 10,
            b"\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x01\x01",
            b"\x01\x08\xff\x01",
            b"\x08\x09\x00\x00\x00\x01\x00\x00\x00\x01\x01\x01",
        ]
    ),
    st.binary(max_size=8).map(lambda data: data + bytes(-len(data) % 4)),
)

usual_segments = st.builds(
    Segment,
    seq=st.tuples(st.just("next"), st.sampled_from([0, 0, 0, 0, 500, 1000, 2000, -500, -1000])),
    length=_SIZES,
    flags=_flags,
    ack=_fresh_acks,
    window=_WINDOWS,
    ts=st.sampled_from([0, 1, 1, 2]),
    sack=st.one_of(st.just(()), st.lists(_true_blocks, max_size=2).map(tuple)),
)
odd_segments = st.builds(
    Segment,
    seq=_peer_places,
    length=_SIZES,
    flags=st.one_of(_flags, _odd_flags),
    ack=st.one_of(_fresh_acks, _our_places),
    window=_WINDOWS,
    ts=st.sampled_from([1, 0, -50, -500, 1000, 2**30, -(2**30), None]),
    echo=st.sampled_from([0, -1, 1, -100, 2**31]),
    sack=st.one_of(st.just(()), st.lists(_blocks, max_size=4).map(tuple)),
    options=_options,
    offset=st.sampled_from([None, None, None, None, 4, 0, 15]),
    urgent=st.sampled_from([0, 0, 1, 65_535]),
)
segments = st.one_of(usual_segments, usual_segments, usual_segments, odd_segments)
writes = st.builds(Write, count=st.sampled_from([1, 100, 500, 1000, 2500]))
calls = st.one_of(writes, writes, writes, st.just(Shutdown()))
steps = st.one_of(segments, segments, segments, calls)

_bulk = st.builds(
    Segment, seq=st.just(("next", 0)), length=st.sampled_from([1000, 1000, 1000, 1001]), flags=st.just(ACK)
)
_around_the_edge = st.builds(
    Segment,
    seq=st.tuples(st.sampled_from(["next", "next", "edge"]), st.sampled_from([0, 0, 1000, 1, -1, -1000, -500])),
    length=st.sampled_from([1000, 1000, 1, 0]),
    flags=st.sampled_from([ACK, ACK, ACK | PSH, ACK | FIN]),
)
_reads = st.builds(Read, count=st.sampled_from([1, 500, 1000, 2000, 5000, 1 << 20]))
window_games = st.builds(
    Script,
    setup=st.builds(
        Setup,
        iss=_ISNS,
        irs=_ISNS,
        rcv_wscale=st.sampled_from([0, 2, 7]),
        rcv_wnd=st.sampled_from([3000, 6000]),
        receive_buffer=st.sampled_from([4000, 8000, 16_000]),
        sack=st.booleans(),
        timestamps=st.booleans(),
        reads_at_once=st.just(False),
    ),
    steps=st.lists(st.one_of(_bulk, _bulk, _bulk, _bulk, _around_the_edge, _reads), min_size=10, max_size=40).map(
        tuple
    ),
)
_marked = st.builds(
    Segment,
    seq=st.tuples(st.just("next"), st.sampled_from([0, 0, 0, 0, 1000, -1000])),
    length=st.sampled_from([0, 1000, 1000]),
    flags=st.sampled_from([ACK, ACK, ACK | ECE, ACK | CWR]),
    ack=st.sampled_from([("max", 0), ("max", 0), ("una", 0), ("una", 1000)]),
    ecn=st.sampled_from([0, 2, 2, 2, 3]),
)
congestion_marks = st.builds(
    Script,
    setup=st.builds(Setup, irs=_ISNS, ecn=st.just(True), timestamps=st.booleans()),
    steps=st.lists(st.one_of(_marked, _marked, writes), min_size=4, max_size=25).map(tuple),
)
scripts = st.builds(Script, setup=setups, steps=st.lists(steps, min_size=4, max_size=25).map(tuple))
