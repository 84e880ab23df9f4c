"""Registration: which entry points a driver tells NDIS, and which it fetches (6.6, 8.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.capabilities import TcpConnectionOffload
from chimney.ndis.crossing import Boundary, Crossing, Kind, Stage
from chimney.ndis.registration import (
    ChimneyOffloadType,
    ClientGenericCharacteristics,
    ClientTcpCharacteristics,
    ProviderGenericCharacteristics,
    ProviderTcpCharacteristics,
    complete,
)
from chimney.ndis.status import Status
from chimney.verifier.books import COMPLETIONS
from chimney.verifier.check import Checks, enter, leave

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_PROVIDER = (ProviderGenericCharacteristics, ProviderTcpCharacteristics)
_CLIENT = (ClientGenericCharacteristics, ClientTcpCharacteristics)
_UPWARD = (*COMPLETIONS, Kind.RECEIVE_INDICATE, Kind.EVENT)


class RegistrationChecks(Checks):
    """Tables of entry points, before anything is offloaded."""

    RULES = (
        "reg.target.two-registrations",
        "reg.client.two-registrations",
        "reg.im.both-edges",
        "reg.ndis.block-unregistered",
        "reg.offload-type.tcp-only",
        "reg.handlers.get-once",
        "reg.handlers.unsupported",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._fetched: dict[tuple[int, int], int] = {}
        self._judged: set[tuple[str, int]] = set()
        # How many tables there were when they were found to be whole: what was registered does not change.
        self._whole_with: dict[tuple[int, tuple[type, ...]], int] = {}

    def _tables(self, boundary: Boundary, kinds: tuple[type, ...]) -> list[object]:
        return [table for table in self.books.of(boundary).tables if isinstance(table, kinds)]

    def _whole(self, boundary: Boundary, kinds: tuple[type, ...]) -> bool:
        """Whether exactly one complete table of each of these kinds is there."""
        known = (boundary.number, kinds)
        count = len(self.books.of(boundary).tables)
        if self._whole_with.get(known) == count:
            return True
        tables = self._tables(boundary, kinds)
        whole = len(tables) == len(kinds) and all(
            any(type(table) is kind and complete(table) for table in tables)  # type: ignore[arg-type]
            for kind in kinds
        )
        if whole:
            self._whole_with[known] = count
        return whole

    def _first(self, what: str, boundary: Boundary) -> bool:
        key = (what, boundary.number)
        if key in self._judged:
            return False
        self._judged.add(key)
        return True

    @enter(Kind.SET_OPTIONAL_HANDLERS)
    def registered(self, crossing: Crossing) -> None:
        table = crossing.information
        if isinstance(table, ProviderTcpCharacteristics):
            self.check(
                "reg.offload-type.tcp-only",
                table.offload_type == ChimneyOffloadType.TCP,
                f"the table is for chimney type {table.offload_type}",
                crossing,
            )

    @enter(Kind.SET_ATTRIBUTES)
    def attributes(self, crossing: Crossing) -> None:
        """A miniport that reports a chimney has registered before: set-options comes before initialise."""
        boundary = crossing.boundary
        information = crossing.information
        if isinstance(information, tuple) and isinstance(information[0], TcpConnectionOffload):
            if boundary.bottom:
                self._provider(crossing)
            else:
                self._both_edges(crossing, False)

    @enter(Kind.INITIATE)
    def offloading(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if boundary.bottom:
            self._provider(crossing)
        if self._first("client", boundary):
            count = len(self._tables(boundary, _CLIENT))
            self.check(
                "reg.client.two-registrations",
                self._whole(boundary, _CLIENT),
                f"{count} client tables have been registered by {boundary.protocol.name}: two complete ones are due",
                crossing,
                culprit=boundary.protocol.name,
            )

    def _provider(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if self._first("provider", boundary):
            count = len(self._tables(boundary, _PROVIDER))
            self.check(
                "reg.target.two-registrations",
                self._whole(boundary, _PROVIDER),
                f"{count} provider tables have been registered: two complete ones are due",
                crossing,
            )

    def _both_edges(self, crossing: Crossing, offloading: bool) -> None:
        """An intermediate driver that has registered something has registered everything, on all edges."""
        boundary = crossing.boundary
        lowers = [book.boundary for book in self.books.below(boundary)]
        some = self._tables(boundary, _PROVIDER) or any(self._tables(lower, _CLIENT) for lower in lowers)
        if (some or offloading) and self._first("edges", boundary):
            self.check(
                "reg.im.both-edges",
                self._whole(boundary, _PROVIDER) and all(self._whole(lower, _CLIENT) for lower in lowers),
                "entry points are missing at its upper or one of its lower edges",
                crossing,
                culprit=boundary.miniport.name,
            )

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def crossed(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if not boundary.bottom:
            self._both_edges(crossing, True)
        self.check(
            "reg.ndis.block-unregistered",
            self._whole(boundary, _PROVIDER) and self._whole(boundary, _CLIENT),
            "an initiate has crossed a boundary where a driver has not registered its entry points",
            crossing,
        )

    @leave(Kind.INITIATE)
    def refused(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if crossing.raised is not None and not (self._whole(boundary, _PROVIDER) and self._whole(boundary, _CLIENT)):
            self.exercise("reg.ndis.block-unregistered")

    @enter(Kind.GET_OFFLOAD_HANDLERS)
    def fetching(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        key = (boundary.number, crossing.value)
        self._fetched[key] = self._fetched.get(key, 0) + 1
        if boundary.bottom:
            self.check(
                "reg.handlers.get-once",
                self._fetched[key] == 1,
                f"the entry points for chimney type {crossing.value} are fetched once more",
                crossing,
            )

    @leave(Kind.GET_OFFLOAD_HANDLERS)
    def answered(self, crossing: Crossing) -> None:
        if crossing.raised is not None:
            return
        status, table = crossing.result
        if crossing.value == ChimneyOffloadType.TCP:
            right = status == Status.SUCCESS and table is not None
        else:
            right = status == Status.NOT_SUPPORTED and table is None
        self.check(
            "reg.handlers.unsupported",
            right,
            lambda: f"chimney type {crossing.value} is answered with {status:#x} and {table!r}",
            crossing,
        )

    @enter(*_UPWARD)
    def upward(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        if boundary.bottom and self._first("upward", boundary):
            self.check(
                "reg.handlers.get-once",
                bool(self._fetched.get((boundary.number, ChimneyOffloadType.TCP))),
                "NDIS's entry points are used, and have not been fetched",
                crossing,
            )


class PoolChecks(Checks):
    """Where the lists of indications come from."""

    RULES = ("reg.pools.two", "reg.pools.one-nb")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        # By boundary: pools of chimney indications, and of the ordinary path (two or so of each).
        self._pools: dict[tuple[int, Kind], dict[int, object]] = {}

    @enter(Kind.RECEIVE_INDICATE, Kind.ORDINARY_RECEIVE)
    def indicated(self, crossing: Crossing) -> None:
        boundary = crossing.boundary
        nbl = crossing.nbl
        if not boundary.bottom or nbl is None:
            return
        chimney = crossing.kind is Kind.RECEIVE_INDICATE
        pool = nbl.pool
        mine = self._pools.setdefault((boundary.number, crossing.kind), {})
        other = Kind.ORDINARY_RECEIVE if chimney else Kind.RECEIVE_INDICATE
        theirs = self._pools.get((boundary.number, other), {})
        self.check(
            "reg.pools.two",
            pool is not None and id(pool) not in theirs,
            "the list is of no pool" if pool is None else "chimney and ordinary indications share a pool",
            crossing,
        )
        if pool is not None:
            mine[id(pool)] = pool
        if chimney:
            self.check(
                "reg.pools.one-nb",
                all(len(view.buffers) == 1 for view in crossing.nbls),
                lambda: f"an indication has {[len(view.buffers) for view in crossing.nbls]} NET_BUFFERs",
                crossing,
            )
