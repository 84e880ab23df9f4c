"""F-RTO (RFC 5682): whether a time-out was spurious, told by what the next acknowledgements are for.

After the first retransmission new data is sent rather than old. If then something is acknowledged that was sent only
once and before the time-out, nothing had been lost.
"""

_OFF = 0
_REPEATED = 1
_PREFERS_NEW = 2
_WAITS = 3


class Frto:
    """Where the algorithm is: off, the head was sent again, new data may go, new data has gone."""

    def __init__(self) -> None:
        self.step = _OFF

    def begin(self) -> None:
        """Step 1: the timer has expired."""
        self.step = _REPEATED

    def stop(self) -> None:
        """The time-out was for a loss, or the question is settled."""
        self.step = _OFF

    def is_on(self) -> bool:
        """Whether the question is open."""
        return self.step != _OFF

    def advance(self) -> None:
        """Step 2.b: the first acknowledgement covers something, but not all."""
        self.step = _PREFERS_NEW

    def prefers_new(self) -> bool:
        """Whether new data goes before what is lost."""
        return self.step == _PREFERS_NEW

    def sent_new(self) -> None:
        """New data has gone; what is lost waits for its acknowledgement."""
        if self.step == _PREFERS_NEW:
            self.step = _WAITS

    def waits(self) -> bool:
        """Whether new data has gone, and its acknowledgement is what counts."""
        return self.step == _WAITS
