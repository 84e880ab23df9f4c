"""An application of the stack's for tests: its turns, and bytes both ways, with posts outstanding when a hand-over
comes.
"""

import time


def run_until(stack, condition, what, seconds=10.0):
    """Poll the stack until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        stack.poll(0.05)


def run_for(stack, seconds):
    """Give the kernel's timers, or whatever must not happen, the time to happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stack.poll(0.02)


class Traffic:
    """Sends `outgoing` and collects what comes, in step, with posts outstanding: as much as it is asked to, and a few
    blocks more.
    """

    def __init__(self, connection, outgoing, block=50_000):
        self.connection = connection
        self.outgoing = memoryview(outgoing)
        self.block = block
        self.incoming = bytearray()
        self.ended = False
        self.errors = []
        self.at = 0
        self.limit = 0
        self.send_limit = 0
        self.idle = [bytearray(block) for _ in range(3)]
        self._send(3 * block)
        self._post()

    def _send(self, more=0):
        self.send_limit += more
        while self.at < min(self.send_limit, len(self.outgoing)) and len(self.connection.sends) < 3:
            part = self.outgoing[self.at : self.at + self.block]
            self.at += len(part)
            self.connection.post_send(part, self._sent)

    def _sent(self, request):
        if request.error is None:
            self._send()
        else:
            self.errors.append(request.error)

    def _post(self):
        # A hand-over shall find receives pending, and the stream not at its end yet.
        while self.idle and len(self.incoming) + (2 - len(self.idle)) * self.block < self.limit:
            self.connection.post_receive(self.idle.pop(), self._received)

    def _received(self, request):
        if request.error is not None:
            self.errors.append(request.error)
        elif request.bytes_transferred:
            self.incoming += request.view[: request.bytes_transferred]
            self.idle.append(request.view)
            self._post()
        else:
            self.ended = True

    def more(self, stack, count):
        """Until `count` more bytes have come. As many are sent, but for three blocks: these are posted, and found
        pending by a hand-over.
        """
        self.limit = len(self.incoming) + count
        self._send(max(count - 3 * self.block, 0))
        self._post()
        self.until(stack, lambda: len(self.incoming) >= self.limit)
        self._send(3 * self.block)

    def rest(self, stack, size, limit=20.0):
        """Until everything has come and gone."""
        self.limit = float("inf")
        self._send(len(self.outgoing))
        self._post()
        self.until(stack, lambda: len(self.incoming) == size and not self.connection.sends, limit)

    def until(self, stack, condition, limit=20.0):
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, (
                f"no end after {limit} s: {len(self.incoming)} bytes in, {len(self.connection.sends)} sends pending, "
                f"{self.connection.info()}, {self.errors}"
            )
            stack.poll(0.05)


def cycle(stack, connection, traffic, times, step):
    """Down and up `times` times, after about `step` received bytes each."""
    for _ in range(times):
        for move in (connection.offload, connection.upload):
            traffic.more(stack, step)
            move()
            assert connection.hand_over_error is None
