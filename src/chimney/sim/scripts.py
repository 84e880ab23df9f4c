"""What applications do in a drawn case: short scripts of sends, reads and endings, put together from small scenes.

A script has an opening (who sends what), perhaps a pause in reading, an ending, and what comes after that. The scenes
are chosen so that a connection stays for some time in each state that RFC 9293 knows, with data, acknowledgements,
windows and ends of streams arriving in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from chimney.sim.case import OTHER, SIDES, Abort, Detach, Nodelay, Read, Send, Shutdown, Side, Step

_Choice = TypeVar("_Choice")

SMALL_BUFFER = 2500
"""A receive buffer (bytes) that a script can fill."""

# All that is sent in a run, in full segments, and in bytes.
_MOST_SEGMENTS = 24
_MOST_BYTES = 16_000

# Probabilities
_STALL = 0.3  # that somebody stops reading for a while
_READS_LATE = 0.15  # that an application begins to read after it has got something
_WAITS_FOR_ALL = 0.2  # that an application's receives are without push
_NODELAY_CHANGES = 0.05
_READS_ON = 0.25  # that somebody reads more, or less, after the ending has begun
_ABORT_AFTERWARDS, _CLOSE_AFTERWARDS = 0.12, 0.08  # that somebody ends it by force after that
_ONE_SEGMENT = 0.5  # that a send fits into one segment

_READ_SIZES = (100, 1000, 4096)
_DEPTHS = (1, 1, 2, 4)
# In microseconds: the delayed acknowledgement (40 ms), the retransmission (200 ms) and what follows them.
_LONG_PAUSES = (5_000, 50_000, 50_000, 300_000, 300_000, 1_000_000)


def pick(chance: Random, table: Sequence[tuple[int, _Choice]]) -> _Choice:
    """One of a table of weights and choices."""
    return chance.choices([choice for _, choice in table], [weight for weight, _ in table])[0]


class Script:
    """A script in the making, whose time goes on as steps are added. Nothing is done by who has ended already.

    steps    so far, in the order of time.
    moments  when something begins during which a hand-over is of interest, in microseconds.
    stalled  the side that stops reading in the course of it, if any; it wants a buffer that can be filled.
    """

    def __init__(self, chance: Random, mss: int, delay_us: int) -> None:
        self.chance = chance
        self.mss = mss
        self.delay_us = delay_us
        self.now = 0
        self.steps: list[Step] = []
        self.moments: list[int] = []
        self.stalled: Side | None = self.anyone() if chance.random() < _STALL else None
        self._left = min(_MOST_SEGMENTS * mss, _MOST_BYTES)
        self._shut: list[Side] = []
        self._gone: list[Side] = []

    def anyone(self) -> Side:
        """One of the two."""
        return self.chance.choice(SIDES)

    # Time

    def at_once(self) -> None:
        """Less than the time from one machine to the other passes: what follows crosses what is under way."""
        self.now += self.chance.randint(0, self.delay_us)

    def round_trips(self) -> None:
        """Some round trips pass: what has been sent arrives, and is answered."""
        self.now += self.chance.randint(1, 8) * self.delay_us

    def pause(self) -> None:
        """Any of the above, or rarely much longer."""
        pick(self.chance, ((5, self.at_once), (5, self.round_trips), (1, self.rest)))()

    def rest(self) -> None:
        """Timers expire."""
        self.now += self.chance.choice(_LONG_PAUSES)

    # Steps

    def mark(self) -> None:
        """This is a moment of interest."""
        self.moments.append(self.now)

    def size(self) -> int:
        """How much is sent at once: around one segment, or several, or next to nothing."""
        chance, mss = self.chance, self.mss
        if chance.random() < _ONE_SEGMENT:
            return chance.choice((1, 10, 100, mss // 2, mss - 1, mss))
        return chance.choice((mss + 1, 2 * mss, 3 * mss, 1000, 4000))

    def send(self, side: Side, size: int) -> None:
        """A send, as long as the script is not too long."""
        size = min(size, self._left)
        if size > 0 and side not in self._shut:
            self._left -= size
            self.steps.append(Send(at=self.now, side=side, size=size))

    def read(self, side: Side, depth: int) -> None:
        """Begin or stop to read."""
        if side not in self._gone:
            push = self.chance.random() >= _WAITS_FOR_ALL
            size = self.chance.choice(_READ_SIZES)
            self.steps.append(Read(at=self.now, side=side, size=size, depth=depth, push=push))

    def nodelay(self, side: Side) -> None:
        """Nagle's algorithm is switched off or on."""
        if side not in self._gone:
            self.steps.append(Nodelay(at=self.now, side=side, on=self.chance.random() < 0.5))

    def shutdown(self, side: Side) -> None:
        """The end of a stream."""
        if side not in self._shut:
            self.mark()
            self._shut.append(side)
            self.steps.append(Shutdown(at=self.now, side=side))

    def abort(self, side: Side) -> None:
        """An end by force."""
        if side not in self._gone:
            self.mark()
            self._gone.append(side)
            self._shut.append(side)
            self.steps.append(Abort(at=self.now, side=side))

    def detach(self, side: Side) -> None:
        """An end by closing the socket, read out or not."""
        if side not in self._gone:
            self.mark()
            self._gone.append(side)
            self._shut.append(side)
            self.steps.append(Detach(at=self.now, side=side))


# Openings


def _silence(script: Script) -> None:
    """Nobody has said anything."""
    script.mark()


def _one_sends(script: Script) -> None:
    """One sends, now and then."""
    side = script.anyone()
    script.mark()
    for _ in range(script.chance.randint(1, 5)):
        script.send(side, script.size())
        script.pause()


def _both_send(script: Script) -> None:
    """Data crosses."""
    script.mark()
    for _ in range(script.chance.randint(2, 7)):
        script.send(script.anyone(), script.size())
        script.at_once()


def _bulk(script: Script) -> None:
    """One sends much at once."""
    script.mark()
    script.send(script.anyone(), 8 * script.mss)
    script.pause()


def _conversation(script: Script) -> None:
    """Short questions and answers."""
    asks = script.anyone()
    script.mark()
    for _ in range(script.chance.randint(1, 4)):
        script.send(asks, script.chance.randint(1, 200))
        script.round_trips()
        script.send(OTHER[asks], script.chance.randint(1, 200))
        script.pause()


def _lone_segment(script: Script) -> None:
    """A segment whose acknowledgement is delayed."""
    script.send(script.anyone(), script.chance.randint(1, script.mss))
    script.mark()
    script.pause()


# Endings


def _stays_open(script: Script) -> None:
    """No ending: both end their streams when the run ends."""


def _one_after_the_other(script: Script) -> None:
    """FIN_WAIT_1, FIN_WAIT_2 and TIME_WAIT here, CLOSE_WAIT and LAST_ACK there."""
    first = script.anyone()
    script.shutdown(first)
    script.pause()
    script.shutdown(OTHER[first])
    script.round_trips()


def _half_closed(script: Script) -> None:
    """One ends its stream, the other sends on for long: data in FIN_WAIT_2, acknowledgements in CLOSE_WAIT."""
    first = script.anyone()
    script.shutdown(first)
    for _ in range(script.chance.randint(2, 5)):
        script.pause()
        script.mark()
        script.send(OTHER[first], script.size())
    if script.chance.random() < 0.7:
        script.pause()
        script.shutdown(OTHER[first])
        script.round_trips()


def _crossed(script: Script) -> None:
    """Both end at once: CLOSING. With data before the one FIN, it stays."""
    first = script.anyone()
    script.send(first, script.size())
    script.shutdown(first)
    script.at_once()
    script.send(OTHER[first], script.size())
    script.shutdown(OTHER[first])
    script.round_trips()


def _stuck(script: Script) -> None:
    """One ends its stream behind data for which there is no room: FIN_WAIT_1, CLOSING or LAST_ACK for long, with
    window probes in it.
    """
    reader = script.stalled = script.stalled or script.anyone()
    script.read(reader, 0)
    ends_first = script.chance.random() < 0.4
    if ends_first:
        script.shutdown(reader)
        script.pause()
    for _ in range(3):
        script.send(OTHER[reader], SMALL_BUFFER // 2)
    script.shutdown(OTHER[reader])
    script.pause()
    script.mark()
    if not ends_first and script.chance.random() < 0.6:
        script.send(reader, script.size())
        script.shutdown(reader)
        script.pause()
    script.rest()
    script.mark()
    script.read(reader, 2)
    script.round_trips()


def _reset(script: Script) -> None:
    """One resets the connection, while data is under way from the other."""
    side = script.anyone()
    script.send(OTHER[side], script.size())
    script.at_once()
    script.abort(side)
    script.at_once()
    script.send(OTHER[side], script.size())
    if script.chance.random() < 0.7:
        script.pause()
        script.send(OTHER[side], script.size())
        script.shutdown(OTHER[side])


def _closed_socket(script: Script) -> None:
    """One closes its socket, whether there is something to read or not; the other learns of it when it sends."""
    side = script.anyone()
    if script.chance.random() < 0.5:
        script.send(OTHER[side], script.size())
        script.at_once()
    script.detach(side)
    script.pause()
    script.send(OTHER[side], script.size())
    script.pause()
    script.shutdown(OTHER[side])


_OPENINGS: tuple[tuple[int, Callable[[Script], None]], ...] = (
    (1, _silence),
    (4, _one_sends),
    (5, _both_send),
    (3, _bulk),
    (2, _conversation),
    (2, _lone_segment),
)
_ENDINGS: tuple[tuple[int, Callable[[Script], None]], ...] = (
    (3, _stays_open),
    (4, _one_after_the_other),
    (5, _half_closed),
    (4, _crossed),
    (5, _stuck),
    (3, _reset),
    (3, _closed_socket),
)


def script_of(chance: Random, mss: int, delay_us: int) -> Script:
    """A script, for a connection with segments of ``mss`` bytes, over a network that takes ``delay_us``."""
    script = Script(chance, mss, delay_us)
    late = {side: chance.random() < _READS_LATE for side in SIDES}
    for side in SIDES:
        if not late[side]:
            script.read(side, chance.choice(_DEPTHS))
    pick(chance, _OPENINGS)(script)
    if chance.random() < _NODELAY_CHANGES:
        script.nodelay(script.anyone())
    for side in SIDES:
        if late[side]:
            script.pause()
            script.mark()
            script.read(side, chance.choice(_DEPTHS))
    if script.stalled is not None:
        _stall(script, script.stalled)
    pick(chance, _ENDINGS)(script)
    _aftermath(script)
    return script


def _aftermath(script: Script) -> None:
    """What comes when the ending has begun already."""
    chance = script.chance
    if chance.random() < _READS_ON:
        script.pause()
        script.read(script.anyone(), chance.choice((0, *_DEPTHS)))
    if chance.random() < _ABORT_AFTERWARDS:
        script.pause()
        script.abort(script.anyone())
    elif chance.random() < _CLOSE_AFTERWARDS:
        script.pause()
        script.detach(script.anyone())


def _stall(script: Script, side: Side) -> None:
    """A side stops reading, until its window is shut, and perhaps beyond that."""
    script.read(side, 0)
    for _ in range(3):
        script.send(OTHER[side], SMALL_BUFFER // 2)
        script.at_once()
    script.mark()
    pick(script.chance, ((2, script.pause), (1, script.rest)))()
    if script.chance.random() < 0.6:
        script.read(side, script.chance.choice(_DEPTHS))
        script.mark()
        script.pause()
