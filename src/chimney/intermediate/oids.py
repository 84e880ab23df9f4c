"""OID requests through an intermediate driver: to one lower binding as they are, to several as copies whose answers
are put together (im.cap.query).
"""

from __future__ import annotations

from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from chimney.intermediate.edges import UpperEdge
from chimney.ndis.capabilities import IpOffloadStats, OidRequest, TcpOffloadStats
from chimney.ndis.status import Status

if TYPE_CHECKING:
    from chimney.intermediate.base import IntermediateDriver

Statistics = TypeVar("Statistics", TcpOffloadStats, IpOffloadStats)


class OidCall:
    """One OID request under way: whom it came from, and the answers to its copies that are there."""

    def __init__(self, upper: UpperEdge, request: OidRequest, count: int) -> None:
        self.upper = upper
        self.request = request
        self.waiting = count
        self.status = int(Status.SUCCESS)
        self.answers: list[object] = []

    def answered(self, request: OidRequest, status: int) -> None:
        """A binding below has answered; the first status that is not success stands for all."""
        self.waiting -= 1
        if status != Status.SUCCESS:
            if self.status == Status.SUCCESS:
                self.status = status
        else:
            self.answers.append(request.information)

    def finish(self) -> int:
        """All have answered: the information into the request from above. Returns its status."""
        if not self.request.set and self.answers:
            total = self.answers[0]
            for other in self.answers[1:]:
                if isinstance(total, TcpOffloadStats) and isinstance(other, TcpOffloadStats):
                    total = _sum(total, other)
                elif isinstance(total, IpOffloadStats) and isinstance(other, IpOffloadStats):
                    total = _sum(total, other)
            self.request.information = total
        return self.status


def pass_oid_down(driver: IntermediateDriver, upper: UpperEdge, request: OidRequest) -> int:
    """Ask every binding that `IntermediateDriver.oid_lowers` names; PENDING while one of them has not answered."""
    if not driver.allows_offload:
        return Status.NOT_SUPPORTED
    lowers = driver.oid_lowers(upper, request)
    call = OidCall(upper, request, len(lowers))
    for lower in lowers:
        asked = request if len(lowers) == 1 else OidRequest(request.oid, copy(request.information), set=request.set)
        driver.oids[asked] = call
        status = lower.binding.oid_request(asked)
        if status != Status.PENDING:
            del driver.oids[asked]
            call.answered(asked, status)
    # A completion that comes from now on finds its call, and completes upward.
    return Status.PENDING if call.waiting else call.finish()


def complete_oid(driver: IntermediateDriver, request: OidRequest, status: int) -> None:
    """A request that was PENDING below has ended; with the last one the one from above ends."""
    call = driver.oids.pop(request)
    call.answered(request, status)
    if not call.waiting:
        call.upper.handle.oid_request_complete(call.request, call.finish())


def _sum(one: Statistics, other: Statistics) -> Statistics:
    return type(one)(*(getattr(one, f.name) + getattr(other, f.name) for f in fields(one)))
