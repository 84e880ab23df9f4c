"""Send completions: what comes back, in which order, with which figures (10.1)."""

from __future__ import annotations

from chimney.ndis.crossing import Crossing, Kind
from chimney.ndis.status import Status
from chimney.verifier.books import POISON, Completed
from chimney.verifier.check import Checks, enter
from chimney.verifier.violation import name


class SendCompletion(Checks):
    """Every list that a target gives to NdisTcpOffloadSendComplete."""

    RULES = (
        "send.complete.origin",
        "send.complete.handle",
        "send.complete.status-first",
        "send.complete.success",
        "send.complete.bytes",
        "send.complete.keep-mdls",
    )

    @enter(Kind.SEND_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            self._origin(crossing, entry)

    def _origin(self, crossing: Crossing, entry: Completed) -> None:
        request, elsewhere = entry.request, entry.elsewhere
        if elsewhere is not None and not elsewhere.boundary.bottom:
            elsewhere = None
        self.check(
            "send.complete.handle",
            elsewhere is None,
            lambda: f"a send that was posted to {elsewhere and elsewhere.boundary.miniport.name} is completed here",
            crossing,
        )
        mine = request is not None and request.kind is Kind.SEND
        self.check(
            "send.complete.origin",
            mine or elsewhere is not None,
            "the list is no send that is pending here: never posted, or completed before",
            crossing,
        )
        if mine:
            self._figures(crossing, entry)

    def _figures(self, crossing: Crossing, entry: Completed) -> None:
        request, view = entry.request, entry.view
        assert request is not None
        stream = request.stream
        count = view.bytes_transferred
        self.check("send.complete.status-first", view.status != POISON, "no status was written", crossing)
        if view.status == Status.SUCCESS:
            self.check(
                "send.complete.success",
                stream.send.acked >= request.end,
                lambda: f"the peer has acknowledged {stream.send.acked} bytes, the send ends at {request.end}",
                crossing,
            )
        acked = min(max(stream.send.acked - request.start, 0), request.length)
        exact = count == request.length if view.status == Status.SUCCESS else count <= acked
        self.check(
            "send.complete.bytes",
            exact,
            lambda: f"{count} of {request.length} bytes reported with {name(view.status)}, {acked} acknowledged",
            crossing,
        )
        before = [mdls for _, _, mdls in request.view.buffers]
        self.check(
            "send.complete.keep-mdls",
            [mdls for _, _, mdls in view.buffers] == before,
            "the MDL chain is not the one that was posted",
            crossing,
        )
