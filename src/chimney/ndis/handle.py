"""NDIS_OFFLOAD_HANDLE: one state object, as the two drivers at one boundary know it."""

from __future__ import annotations

IDLE = 0
INITIATING = 1
OFFLOADED = 2
TERMINATING = 3
PHASES = ("not offloaded", "being offloaded", "offloaded", "being uploaded")


class OffloadHandle:
    """The upper driver makes it, and keeps its own record of the object in ``protocol_context``.

    The lower driver's context value stands in ``miniport_offload_context`` from a successful initiate to the end of the
    terminate, and is None otherwise. Neither driver reads the other's value (documents: *NDIS_OFFLOAD_HANDLE*).
    ``phase`` belongs to NDIS: IDLE, INITIATING, OFFLOADED or TERMINATING.
    """

    def __init__(self, protocol_context: object) -> None:
        self.protocol_context = protocol_context
        self.miniport_offload_context: object = None
        self.phase = IDLE
