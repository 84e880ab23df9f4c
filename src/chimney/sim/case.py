"""A case: everything that decides a run. The same case on the same commit gives the same run, to the byte.

Cases are drawn from seeds (`chimney.sim.draw`), shrunk, kept in files that people read, and replayed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from chimney.ndis.status import UploadReason

Side = Literal["a", "b"]
"""Side "a" always has a chimney; "b" is its peer, which has one if `Case.b` says so."""

SIDES: tuple[Side, Side] = ("a", "b")
OTHER: dict[Side, Side] = {"a": "b", "b": "a"}

LONGEST = 1 << 18
"""The longest piece of a stream that is sent or read at once, in bytes."""

# What a file may say; what the program makes itself is not looked at.
_Amount = Annotated[int, msgspec.Meta(ge=0)]
_Number = Annotated[int, msgspec.Meta(ge=1)]
_Piece = Annotated[int, msgspec.Meta(ge=1, le=LONGEST)]
_Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]


class Network(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the network misbehaves; both ways alike. See `chimney.link.memory.MemoryNetwork`; what it does not have:

    burst  probability that a wire segment begins a burst of losses, ``burst_length`` of them on average.
    """

    delay_us: _Amount = 200
    jitter_us: _Amount = 0
    loss: _Probability = 0.0
    burst: _Probability = 0.0
    burst_length: _Number = 4
    reorder: _Probability = 0.0
    reorder_us: _Number = 1000
    duplicate: _Probability = 0.0
    corrupt: _Probability = 0.0
    bandwidth: _Amount = 0
    queue_bytes: _Amount = 0
    gro: bool = False


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One intermediate driver: a plain pass-through if everything is 0; see `chimney.intermediate.Faults`.

    ``out_of_memory`` and ``refuse`` are ordinals (the first is 1), the others probabilities.
    """

    seed: int = 0
    delay: _Probability = 0.0
    longest: _Number = 3
    merge: _Probability = 0.0
    split: _Probability = 0.0
    out_of_memory: tuple[_Number, ...] = ()
    refuse: tuple[_Number, ...] = ()
    upload: _Probability = 0.0


class Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One of the two machines.

    chimney         whether its connection can be offloaded; otherwise it is the model of a kernel alone.
    layers          the intermediate drivers, the top one first.
    latency_us      up to so long its process takes to wake up; by chance.
    gap_us          up to so long each step of a hand-over in the kernel takes, in which segments arrive; by chance.
    receive_buffer  of its socket, in bytes; so is ``send_buffer``.
    receive_window  of the target (`chimney.stack.StackConfig`), and ``send_flight``, in bytes.
    young           its kernel does not delay the first acknowledgements, as Linux after a handshake.
    """

    chimney: bool = False
    layers: tuple[Layer, ...] = ()
    latency_us: _Amount = 0
    gap_us: _Amount = 0
    receive_buffer: _Number = 65536
    send_buffer: _Number = 65536
    receive_window: _Number = 65536
    send_flight: _Number = 65536
    nodelay: bool = True
    young: bool = True


class _Step(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="do",
    tag=str.lower,
):
    """Something that is done at a moment: ``at`` so many microseconds from the start, or right before event number
    ``event`` (the first is 1), whichever is given. Steps of one moment are done in the order in which they are written.
    """

    at: int = -1
    event: int = 0

    def __post_init__(self) -> None:
        if (self.at >= 0) == (self.event > 0):
            raise ValueError(f"{type(self).__name__.lower()}: give either at (>= 0) or event (>= 1)")


# What an application does


class Send(_Step, frozen=True):
    """Post a send of the next ``size`` bytes of this side's stream, at most `LONGEST`."""

    side: Side
    size: _Piece


class Read(_Step, frozen=True):
    """From now on, always have ``depth`` receives of ``size`` bytes posted; depth 0: stop reading."""

    side: Side
    size: _Piece = 4096
    depth: _Amount = 1
    push: bool = True


class Shutdown(_Step, frozen=True):
    """Close the sending half."""

    side: Side


class Abort(_Step, frozen=True):
    """Reset the connection."""

    side: Side


class Detach(_Step, frozen=True):
    """Give the socket back to the application, which closes it."""

    side: Side


class Nodelay(_Step, frozen=True):
    """The application sets the socket option TCP_NODELAY (the kernel's; it counts from the next offload on)."""

    side: Side
    on: bool = True


class Window(_Step, frozen=True):
    """The receive buffer of a machine that is its kernel alone has another size from now on, until everybody behaves. A
    window that was offered beyond it is taken back, which a receiver should not do, and a sender must bear (RFC 9293,
    3.8.6).
    """

    side: Side
    size: _Piece


# Hand-over


class Offload(_Step, frozen=True):
    """Take the connection out of the kernel, down to the target; nothing if it is there."""

    side: Side = "a"


class Upload(_Step, frozen=True):
    """Put it back into the kernel; nothing if it is there."""

    side: Side = "a"


class Withdraw(_Step, frozen=True):
    """The host takes the connection up for a reason of its own: it is to go down again by itself."""

    side: Side = "a"


# The network


class Change(_Step, frozen=True):
    """The network is another one from now on."""

    network: Network


class Partition(_Step, frozen=True):
    """For ``lasts_us``, nothing that ``of`` sends gets through ("both": nothing at all)."""

    of: Literal["a", "b", "both"] = "both"
    lasts_us: _Number = 10_000


class Mtu(_Step, frozen=True):
    """The path's MTU changes: larger packets are lost from now on. The end ``of`` it knows at once, and its link takes
    no larger ones; the other finds out as it can, or is told by a later step.
    """

    mtu: Annotated[int, msgspec.Meta(ge=576, le=1500)] = 1500
    of: Literal["a", "b", "both"] = "both"


class PathMtu(_Step, frozen=True):
    """The path takes packets of ``mtu`` bytes at most from now on (1500: any), larger ones are lost; the links take
    them. A kernel hears of that ``told_us`` after it has lost one (never if negative), and forgets it after
    ``forgets_us`` (0: never).
    """

    mtu: Annotated[int, msgspec.Meta(ge=576, le=1500)] = 1500
    told_us: int = 200
    forgets_us: _Amount = 0


class Neighbor(_Step, frozen=True):
    """The next hop of the machine ``of`` gets another hardware address in ``moves_us``. The machine's kernel is told in
    ``told_us``, which may be earlier or later, or not at all if that is negative: then it finds out when it asks.
    """

    of: Side = "a"
    moves_us: _Amount = 0
    told_us: int = 0


class Route(_Step, frozen=True):
    """The route of the machine ``of`` goes by next hop number ``gateway`` from now on (0 is the peer itself).
    ``known``: its kernel knows that one's hardware address; ``old_works``: the one before can still be used.
    """

    of: Side = "a"
    gateway: Annotated[int, msgspec.Meta(ge=0, le=3)] = 1
    known: bool = True
    old_works: bool = True


class Unplug(_Step, frozen=True):
    """The machine ``of`` is without a link, or without the address of its connection, for ``lasts_us``."""

    of: Side = "a"
    what: Literal["link", "address"] = "link"
    lasts_us: _Number = 10_000


class Garbage(_Step, frozen=True):
    """A segment that belongs to nobody's stream is injected towards ``to``, as if the peer had sent it.

    ``offset`` moves its sequence number, ``amount`` is a size in bytes; both as the kind wants them. With a negative
    offset, rst-blind and syn have just the sequence number that is waited for, and may end the connection.
    """

    to: Side
    kind: Literal[
        "rst-blind",  # an RST inside the window, not at its left edge (RFC 5961 3)
        "rst-outside",  # an RST outside of the window
        "syn",  # a SYN on the connection (RFC 5961 4)
        "old",  # data that was received long ago
        "beyond",  # data beyond the window
        "ack-future",  # an acknowledgement of what was never sent
        "ack-old",  # an old acknowledgement
        "paws",  # a segment with an old timestamp
        "options",  # options that make no sense
        "window",  # an acknowledgement whose window (as it stands in the header) is amount
        "urgent",  # an acknowledgement with URG, for which a target wants its connection uploaded
        "truncated",  # a TCP header that ends too early
        "checksum",  # a wrong checksum
        "random",  # bytes behind the IP header
    ]
    offset: int = 0
    amount: _Amount = 100


# Drivers and the target

ALLOCATIONS = ("neighbor", "path", "connection", "transmit buffer", "receive buffer", "buffered data", "segment")
"""What a target allocates: the names that `chimney.target.SoftTarget.allocate` is called with."""


def _check_reason(reason: str) -> None:
    if reason not in UploadReason.__members__:
        raise ValueError(f"{reason}: the reasons are {', '.join(UploadReason.__members__)}")


class Driver(_Step, frozen=True):
    """A driver of ``side`` (layer 0 is the top one) keeps everything back that comes up ("hold"), passes no initiate
    down ("slow"), lets go of both ("release"), or asks for the upload of the connection for ``reason`` (a name of
    `chimney.ndis.status.UploadReason`).
    """

    side: Side = "a"
    layer: _Amount = 0
    what: Literal["hold", "slow", "release", "upload", "pause", "resume", "upload-all"] = "hold"
    reason: str = "UPLOAD_REQUESTED"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_reason(self.reason)


class Target(_Step, frozen=True):
    """The target of ``side``: see `chimney.target.SoftTarget`.

    "short": allocations of ``of`` (one of `ALLOCATIONS`) fail from the ``nth`` on, until "enough".
    "hardware-failure": the state of its connection is lost, and it finds out when the host wants it; "reset": it knows
    at once; "dies": from now on it hears and says nothing, either. "upload" does nothing for a reason that needs a
    cause (urgent data, a timeout, an invalid state).
    """

    side: Side = "a"
    what: Literal[
        "pause",
        "resume",
        "upload-all",
        "upload",
        "hardware-failure",
        "update-failure",
        "reset",
        "dies",
        "short",
        "enough",
    ] = "pause"
    reason: str = "UPLOAD_REQUESTED"
    of: str = ""
    nth: _Number = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_reason(self.reason)
        if self.of and self.of not in ALLOCATIONS:
            raise ValueError(f"target: of is one of {', '.join(ALLOCATIONS)}")


class Die(_Step, frozen=True):
    """The process of ``side`` dies: whatever it had is gone, and its kernel answers for it from then on."""

    side: Side = "a"


Step = (
    Send
    | Read
    | Shutdown
    | Abort
    | Detach
    | Nodelay
    | Window
    | Offload
    | Upload
    | Withdraw
    | Change
    | Partition
    | Mtu
    | PathMtu
    | Neighbor
    | Route
    | Unplug
    | Garbage
    | Driver
    | Target
    | Die
)


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that decides a run; ``seed`` decides what is left to chance (losses, delays, orders, gaps).

    iss        initial sequence numbers of a and b: put them before 2**31 or 2**32 to see them wrap.
    grace_us   how long after the last timed step everybody begins to behave, so that all can come to its end.
    quiet_us   how long after that everything must have drained.
    follows    the hosts hear of the network what their kernels do, and follow it; so they do if it changes.
    why        for a case that is kept: what it is about, in a sentence.
    """

    seed: int = 0
    why: str = ""
    a: Host = Host(chimney=True)
    b: Host = Host()
    network: Network = Network()
    ipv6: bool = False
    timestamps: bool = True
    sack: bool = True
    scale: Annotated[int, msgspec.Meta(ge=-1, le=14)] = 7
    mss: Annotated[int, msgspec.Meta(ge=88, le=1460)] = 1460
    iss: tuple[_Sequence, _Sequence] = (0xFFFFF000, 0x7FFFF000)
    steps: tuple[Step, ...] = ()
    grace_us: _Amount = 20_000
    quiet_us: _Number = 120_000_000
    follows: bool = False

    def host(self, side: Side) -> Host:
        """The machine of a side."""
        return self.a if side == "a" else self.b


CHANGES = (PathMtu, Neighbor, Route, Unplug)
"""The steps by which the network around a machine becomes another one, to the knowledge of its kernel or not."""


def follows(case: Case) -> bool:
    """Whether the hosts of a case follow the network: where nothing is to be followed, they need not."""
    return case.follows or any(isinstance(step, (*CHANGES, Withdraw)) for step in case.steps)


def load(path: Path) -> list[Case]:
    """The cases in a YAML file: one, or a list of them. Raises msgspec.ValidationError, which says what is wrong where,
    and OSError.
    """
    content = msgspec.yaml.decode(path.read_bytes())
    cases = msgspec.convert(content, list[Case]) if isinstance(content, list) else [msgspec.convert(content, Case)]
    for case in cases:
        _check(case)
    return cases


def _check(case: Case) -> None:
    """What no field can say alone. Raises msgspec.ValidationError."""
    if not case.a.chimney:
        raise msgspec.ValidationError("a: it always has a chimney: true")
    if min(case.a.receive_buffer, case.b.receive_buffer) >> max(case.scale, 0) == 0:
        raise msgspec.ValidationError(f"scale: {case.scale} is too much for the window of so small a receive_buffer")
    for number, step in enumerate(case.steps):
        if isinstance(step, Window) and case.host(step.side).chimney:
            raise msgspec.ValidationError(f"{step.side} has a chimney: its window stays - at `$.steps[{number}]`")
        if not isinstance(step, Offload | Upload | Withdraw | Driver | Target):
            continue
        host = case.host(step.side)
        if not host.chimney:
            raise msgspec.ValidationError(f"{step.side} has no chimney - at `$.steps[{number}]`")
        if isinstance(step, Driver) and step.layer >= len(host.layers):
            raise msgspec.ValidationError(f"{step.side} has no layer {step.layer} - at `$.steps[{number}]`")


def dump(case: Case) -> str:
    """A case as YAML that `load` reads; what has its default value is left out."""
    return yaml.safe_dump(_brief(case), sort_keys=False, default_flow_style=None, width=120)


def _brief(value: Any) -> Any:
    """What is not as it is by default, for YAML. (msgspec leaves out defaults that are the very same object, and no
    others.) A step begins with its moment, and says what it does.
    """
    if isinstance(value, tuple):
        return [_brief(part) for part in value]
    if not isinstance(value, msgspec.Struct):
        return value
    changed = {
        field.name: _brief(getattr(value, field.name))
        for field in msgspec.structs.fields(value)
        if getattr(value, field.name) != field.default
    }
    if isinstance(value, _Step):
        moment = {name: changed.pop(name) for name in ("at", "event") if name in changed}
        return moment | {"do": value.__struct_config__.tag} | changed
    return changed
