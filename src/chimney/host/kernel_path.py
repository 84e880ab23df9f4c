"""The ordinary path: one connection's requests while the kernel owns it."""

from __future__ import annotations

from typing import Any

from chimney.host.kernel import KernelSide
from chimney.host.requests import ReceiveRequest

# One connection must not keep the others waiting: after so many operations the next turn is theirs.
_TURN = 16


class KernelPath:
    """Does the posted requests on the kernel's socket, as far as it is ready, whenever `run` is called."""

    def __init__(self, connection: Any, kernel: KernelSide) -> None:
        self.connection = connection
        self.kernel = kernel
        self.active = True

    def run(self) -> bool:
        """Do what can be done now; True if there is more to do at once. Otherwise a wake-up has been asked for."""
        if not self.active:
            return False
        if self.connection.error is not None:
            # What was posted since ends as what was there has.
            self.end(self.connection.error)
            self.kernel.wait_for(readable=False, writable=False)
            return False
        writable = self._send()
        readable = self.connection.error is None and self._receive()
        if not self.active:
            # A callback ended this path: handed the connection down, or gave it back to the application.
            return False
        if self.connection.error is not None:
            # The socket tells its error once; what callbacks have posted since has asked for a turn of its own.
            self.kernel.wait_for(readable=False, writable=False)
            return False
        self._shutdown()
        self.kernel.wait_for(
            readable=bool(self.connection.receives) and not readable,
            writable=bool(self.connection.sends) and not writable,
        )
        return (writable and bool(self.connection.sends)) or (readable and bool(self.connection.receives))

    def _send(self) -> bool:
        sends = self.connection.sends
        for _ in range(_TURN):
            if not sends or not self.active:
                return True
            request = sends[0]
            if request.bytes_transferred == request.length:
                self.finish_sends()
                continue
            try:
                taken = self.kernel.send(request.remaining())
            except OSError as error:
                self.end(error)
                return True
            if not taken:
                return False
            request.bytes_transferred += taken
        return True

    def finish_sends(self) -> None:
        """End the sends whose last bytes the kernel got as part of an upload."""
        sends = self.connection.sends
        while sends and sends[0].bytes_transferred == sends[0].length:
            self.connection.send_done(sends[0])

    def _receive(self) -> bool:
        receives = self.connection.receives
        for _ in range(_TURN):
            if not receives or not self.active:
                return True
            request = receives[0]
            try:
                count = self.kernel.receive_into(request.remaining())
            except OSError as error:
                self.connection.fail(error)
                return True
            if count < 0:
                return False
            if not count:
                self.connection.stream_ended = True
            request.bytes_transferred += count
            self.connection.receive_done(request)
        return True

    def end(self, error: OSError) -> None:
        """The connection has ended by ``error``: receives get what is unread, and the end of a stream that has come to
        its end; everything else ends with the error.
        """
        connection = self.connection
        if connection.error is None:
            connection.error = error
        for _ in range(len(connection.receives)):
            request = connection.receives[0]
            if request.net_buffer_list is not None or not self._read(request):
                break
            connection.receive_done(request)
        connection.fail(connection.error)

    def _read(self, request: ReceiveRequest) -> bool:
        """Whether a receive of a connection that has failed ends without an error, all the same."""
        try:
            count = self.kernel.receive_into(request.remaining())
        except OSError:
            count = 0
        request.bytes_transferred += max(0, count)
        return count > 0 or bool(self.connection.stream_ended)

    def _shutdown(self) -> None:
        request = self.connection.shutdown_request
        if request is None or request.done or self.connection.sends:
            return
        try:
            if not self.connection.fin_queued:
                self.kernel.shutdown()
                self.connection.fin_queued = True
        except OSError as error:
            self.connection.shutdown_done(request, error)
        else:
            self.connection.shutdown_done(request)

    def stop(self) -> None:
        """No more operations on the socket, and no wake-ups."""
        self.active = False
        self.kernel.wait_for(readable=False, writable=False)
