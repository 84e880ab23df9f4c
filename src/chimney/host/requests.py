"""Requests of the application: what it posted on a connection, whichever path carries it.

A request is posted once, completed once, and in between may travel through the kernel, the chimney, and the kernel
again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chimney.ndis.buffers import NetBufferList

Callback = Callable[[Any], object]


class Request:
    """What send, receive and shutdown requests have in common.

    ``done`` turns true exactly once; then ``error`` is None or the OSError that ended the request, and
    ``bytes_transferred`` counts its valid bytes. ``callback(request)`` runs right after; what it raises comes out of
    the poll (or hand-over) under way when that has done its work.
    """

    def __init__(self, connection: Any, view: memoryview, callback: Callback | None) -> None:
        self.connection = connection
        self.view = view
        self.length = view.nbytes
        self.callback = callback
        self.bytes_transferred = 0
        self.error: OSError | None = None
        self.done = False
        self.net_buffer_list: NetBufferList | None = None

    def complete(self, error: OSError | None = None) -> None:
        """End the request, and tell the application."""
        assert not self.done, "a request completes exactly once (general.complete-exactly-once)"
        self.done = True
        self.error = error
        self.net_buffer_list = None
        callback = self.callback
        if callback is None:
            return
        self.callback = None
        services = self.connection.services
        services.callbacks += 1
        try:
            callback(self)
        except BaseException as failure:
            # Other requests are being completed around us: none of them may be lost for it.
            services.callback_failed(failure)
        finally:
            services.callbacks -= 1

    def remaining(self) -> memoryview:
        """The bytes not yet transferred."""
        return self.view[self.bytes_transferred :]


class SendRequest(Request):
    """Bytes to send. On the kernel path it is done when the kernel has taken them, in the chimney when the peer has."""


class TakenSend(SendRequest):
    """Bytes that the kernel had taken before the hand-over: for the application they are sent, and nobody waits."""


class ReceiveRequest(Request):
    """Memory to fill; done with at least one byte, or with none at the end of the stream."""

    def __init__(self, connection: Any, view: memoryview, callback: Callback | None, push: bool) -> None:
        super().__init__(connection, view, callback)
        self.push = push


class ShutdownRequest(Request):
    """End of the sending half, behind all sends. Done when the FIN is queued in the kernel, or acknowledged by the
    peer.
    """
