"""A software target that uses what the documents permit and `SoftTarget` has no need for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chimney.link.base import NEVER
from chimney.ndis.state import MiniportOffloadBlockList, TcpConst, walk
from chimney.ndis.status import Status
from chimney.target import SoftTarget
from chimney.target.initiate import initiate

if TYPE_CHECKING:
    from chimney.conformance.world import Side


@dataclass(slots=True)
class _Slow:
    """An initiate whose objects are live, and that is completed later."""

    tree: MiniportOffloadBlockList
    connections: list[Any]
    at: int


class OtherTarget(SoftTarget):
    """Completes initiates only after some time (us), in which the connections are live already
    (initiate.rx.early-processing), and declines those connections that it does not like (initiate.status.rejected).
    """

    def __init__(
        self, side: Side, completes_after: int = 0, declines: Callable[[TcpConst], bool] = lambda const: False
    ) -> None:
        super().__init__(f"target {side.number}", side.port, side.clock, side.config)
        self.completes_after = completes_after
        self.declines = declines
        self.slow: list[_Slow] = []

    def _initiate(self, block_list: MiniportOffloadBlockList) -> None:
        declined = []
        for block in walk(block_list):
            if isinstance(block.const, TcpConst) and self.declines(block.const):
                declined.append((block, block.const))
                # Without it, it cannot be offloaded.
                block.const = None
        new = initiate(self, block_list)
        for block, const in declined:
            block.const, block.status = const, Status.OFFLOAD_CONNECTION_REJECTED
        self.update_filter()
        self.slow.append(_Slow(block_list, new, self.clock() + self.completes_after))
        self._carry_on()

    def poll(self, now: int, limit: int = 64) -> int:
        done = super().poll(now, limit)
        return done + self._carry_on()

    def flush(self, now: int) -> int:
        done = super().flush(now)
        return done + self._carry_on()

    def _carry_on(self) -> int:
        """Acknowledge what has come meanwhile, and complete what is due."""
        done = 0
        now = self.clock()
        for waiting in list(self.slow):
            for tcp in waiting.connections:
                while (segment := tcp.engine.dispatch(now)) is not None:
                    self.emit(tcp, segment)
            if now >= waiting.at:
                done += 1
                self.slow.remove(waiting)
                self.handle.initiate_offload_complete(waiting.tree)
                for tcp in waiting.connections:
                    tcp.delivery.quiet = False
                    self.touch(tcp)
        return done

    def poll_at(self) -> int:
        return min([super().poll_at(), *(waiting.at for waiting in self.slow)], default=NEVER)
