"""Whose a tree is, and when: what a driver still does with it afterwards, and with words that are nobody's.

A target works on copies of the state structures, which are given back with the completion; then the copies and the
blocks turn into ones that tell when they are touched.
"""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

from chimney.ndis.buffers import NetBufferList, net_buffer_list
from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import (
    MiniportOffloadBlockList,
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    PathDelegated,
    TcpCached,
    TcpConst,
    TcpDelegated,
    copy_of,
    walk,
)
from chimney.verifier.books import (
    COMPLETIONS,
    OPERATION_COMPLETIONS,
    OPERATIONS,
    POISON,
    REQUESTS,
    ObjectBook,
    Operation,
)
from chimney.verifier.check import Checks, enter, leave, segment_out
from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_PARTS = ("const", "cached", "delegated")
_DECOYS = 256
_OURS = ("chimney.verifier", "dataclasses", "copy", "copyreg", "reprlib")


_report: dict[int, tuple[weakref.ref[TreeLifetimeChecks], str, str]] = {}
"""By the id of a structure that has been given back: whom to tell, the completion, and whose it was. Entries go with
the structure, and keep nobody alive.
"""


def _tripping(base: type) -> type:
    """A class like ``base``, whose instances tell when they are touched."""

    def touched(self: Any, name: str) -> None:
        entry = _report.get(id(self))
        if entry is not None and not name.startswith("__") and _from_outside():
            checks, function, culprit = entry
            listening = checks()
            if listening is not None:
                listening.touched(f"{base.__name__}.{name}", function, culprit)

    def read(self: Any, name: str) -> Any:
        touched(self, name)
        return object.__getattribute__(self, name)

    def write(self: Any, name: str, value: Any) -> None:
        touched(self, name)
        object.__setattr__(self, name, value)

    def forget(self: Any) -> None:
        _report.pop(id(self), None)

    return type(
        f"Completed{base.__name__}",
        (base,),
        {"__slots__": (), "__getattribute__": read, "__setattr__": write, "__del__": forget},
    )


@cache
def _members(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _from_outside() -> bool:
    # Frames: this one, `touched`, `read` or `write`, and then who does it.
    caller = sys._getframe(3).f_globals.get("__name__", "")
    return not caller.startswith(_OURS)


_TRIPPING = {
    base: _tripping(base)
    for base in (
        MiniportOffloadBlockList,
        NeighborConst,
        NeighborCached,
        NeighborDelegated,
        PathConst,
        PathCached,
        PathDelegated,
        TcpConst,
        TcpCached,
        TcpDelegated,
    )
}


class TreeLifetimeChecks(Checks):
    """A tree is the target's from the call to the completion; a null chain means that there is no send data."""

    RULES = ("bl.lifetime", "bl.nbl-chain.null")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._lent: dict[int, _Lent] = {}
        self._decoys: OrderedDict[int, NetBufferList] = OrderedDict()

    @enter(*OPERATIONS, stage=Stage.HANDLER)
    def arrived(self, crossing: Crossing) -> None:
        root = crossing.root
        if not crossing.boundary.bottom or not isinstance(root, MiniportOffloadBlockList):
            return
        lent = self._lent[id(root)] = _Lent(root)
        for block in walk(root):
            for part in _PARTS:
                theirs = getattr(block, part)
                if theirs is not None:
                    mine = copy_of(theirs)
                    setattr(block, part, mine)
                    lent.structures.append((theirs, mine))
            delegated = block.delegated
            unchained = crossing.kind is Kind.INITIATE and block.net_buffer_list_chain is None
            if unchained and isinstance(delegated, TcpDelegated):
                lent.decoys.append((delegated, delegated.send_data_head, delegated.send_data_tail))
                decoy = net_buffer_list(b"\xa5")
                decoy.status = POISON
                delegated.send_data_head = delegated.send_data_tail = decoy
                self._decoys[id(decoy)] = decoy

    @leave(*OPERATIONS, stage=Stage.HANDLER)
    def refused(self, crossing: Crossing) -> None:
        if crossing.raised is not None:
            self._lent.pop(id(crossing.root), None)

    @enter(*OPERATION_COMPLETIONS)
    def completing(self, crossing: Crossing) -> None:
        lent = self._lent.get(id(crossing.root))
        if lent is None or not crossing.boundary.bottom:
            return
        for delegated, head, tail in lent.decoys:
            decoy = delegated.send_data_head
            self.check(
                "bl.nbl-chain.null",
                decoy is not None and _untouched(decoy),
                "a list has been changed that only the send data pointers beside a null chain lead to",
                crossing,
            )
            delegated.send_data_head, delegated.send_data_tail = head, tail
        for theirs, mine in lent.structures:
            kind: Any = type(theirs)
            for name in _members(kind):
                setattr(theirs, name, getattr(mine, name))
        operation = crossing.notes
        if crossing.kind is Kind.INITIATE_COMPLETE and isinstance(operation, Operation):
            for block, item in zip(operation.before, operation.objects, strict=True):
                if item is not None and item.stream is not None:
                    item.stream.facts["block_lifetime: no chain"] = not block.chain
        while len(self._decoys) > _DECOYS:
            self._decoys.popitem(last=False)

    @leave(*OPERATION_COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        """From here on the tree is nobody's."""
        lent = self._lent.pop(id(crossing.root), None)
        if lent is None or crossing.raised is not None:
            return
        self.exercise("bl.lifetime")
        entry = weakref.ref(self), crossing.function, crossing.boundary.miniport.name
        for item in [*walk(lent.root), *(mine for _, mine in lent.structures)]:
            kind = _TRIPPING.get(type(item))
            if kind is not None:
                item.__class__ = kind
                _report[id(item)] = entry

    def touched(self, what: str, function: str, culprit: str) -> None:
        """A driver has used something that it has given back."""
        running = self.verifier.running
        where = running[-1] if running else None
        self.check("bl.lifetime", False, f"{what} is used after {function}", where, culprit=culprit)

    @enter(Kind.SEND_COMPLETE)
    def sends_completed(self, crossing: Crossing) -> None:
        if self._decoys and crossing.boundary.bottom:
            for view in crossing.nbls:
                if self._decoys.get(id(view.nbl)) is view.nbl:
                    self.check(
                        "bl.nbl-chain.null",
                        False,
                        "a list is completed that only the send data pointers beside a null chain led to",
                        crossing,
                    )

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if packet.payload_length and stream.facts.get("block_lifetime: no chain"):
            end = stream.send.position(packet.seq) + packet.payload_length
            self.check(
                "bl.nbl-chain.null",
                end <= stream.send.posted,
                lambda: f"{end} bytes are sent of a connection without a chain, {stream.send.posted} have been posted",
                packet,
            )


class _Lent:
    """A tree while it is with the target: the host's state structures and the target's copies of them, and where
    decoys lie, with what was there.
    """

    def __init__(self, root: MiniportOffloadBlockList) -> None:
        self.root = root
        self.structures: list[tuple[Any, Any]] = []
        self.decoys: list[tuple[TcpDelegated, NetBufferList | None, NetBufferList | None]] = []


def _untouched(decoy: NetBufferList) -> bool:
    whole = decoy.next is None and decoy.first_net_buffer.data_length == 1 and decoy.context is None
    return whole and decoy.status == POISON and decoy.miniport_reserved is None and decoy.scratch is None


class Forgotten:
    """What a scratch word holds once its owner has passed the structure on: to look at it is to rely on it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            object.__getattribute__(self, "_tell")()
        return object.__getattribute__(self, name)

    def _touched(self, *arguments: Any) -> Any:
        object.__getattribute__(self, "_tell")()
        raise TypeError("this scratch word is another owner's")

    __call__ = __getitem__ = __iter__ = __len__ = __bool__ = __int__ = __index__ = _touched

    def __eq__(self, other: object) -> bool:
        object.__getattribute__(self, "_tell")()
        return self is other

    __hash__ = None  # type: ignore[assignment]


class ScratchChecks(Checks):
    """Nobody finds in a scratch word what it held before the structure changed hands."""

    RULES = ("bl.scratch",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._forgotten = Forgotten(self._used)

    def _used(self) -> None:
        running = self.verifier.running
        where = running[-1] if running else None
        edge = "a driver"
        if where is not None:
            down = where.kind.down == (where.stage is Stage.HANDLER)
            edge = where.boundary.miniport.name if down else where.boundary.protocol.name
        self.check(
            "bl.scratch", False, "it relies on Scratch of a structure that has changed hands", where, culprit=edge
        )

    @enter(*REQUESTS, *COMPLETIONS, Kind.RECEIVE_INDICATE, Kind.RECEIVE_RETURN)
    def lists(self, crossing: Crossing) -> None:
        for view in crossing.nbls:
            view.nbl.scratch = self._forgotten
        self.exercise("bl.scratch")

    @enter(*OPERATIONS, *OPERATION_COMPLETIONS)
    @enter(*OPERATIONS, *OPERATION_COMPLETIONS, stage=Stage.HANDLER)
    def trees(self, crossing: Crossing) -> None:
        for view in crossing.blocks:
            view.block.scratch = self._forgotten
            for sent in view.chain:
                sent.nbl.scratch = self._forgotten
        self.exercise("bl.scratch")
