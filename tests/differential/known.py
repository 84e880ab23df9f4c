"""Where the engine is meant to differ from the kernel: docs/differences.md says why, test_documented.py proves it.

Each predicate tells whether a step is of that kind. What it excuses is said by the tuples at the end.
"""

from dataclasses import dataclass

from tests.differential.book import Book
from tests.differential.peer import CWR, FIN, RST, SYN, URG

# An option with a signature, or the rest of a list that may hold one, has so many bytes.
_LEAST_SIGNATURE = 18
_FIN_RECEIVED = frozenset({"CLOSE_WAIT", "LAST_ACK", "CLOSING"})


@dataclass(frozen=True)
class Arrival:
    """A segment as it arrives, in positions, and the connection as it was before.

    ts_distance: of its TSval from the latest one that the peer has told.
    """

    start: int
    length: int
    flags: int
    ack: int
    book: Book
    state: str
    options: bytes
    ts_distance: int

    @property
    def end(self):
        """The position after it."""
        return self.start + self.length + bool(self.flags & FIN) + bool(self.flags & SYN)

    @property
    def is_exact(self):
        """Whether it begins at RCV.NXT."""
        return self.start == self.book.next


def has_options_for_signatures(arrival):
    """The kernel (built with TCP_MD5SIG) drops a segment with an unexpected signature, or with a malformed list of
    options that might hold one.
    """
    data, at = arrival.options, 0
    while len(data) - at >= _LEAST_SIGNATURE:
        kind = data[at]
        if kind == 0:
            return False
        if kind == 1:
            at += 1
            continue
        length = data[at + 1]
        if length < 2 or at + length > len(data) or kind in (19, 29):
            return True
        at += length
    return False


def has_two_timestamps(arrival):
    """Of two options of a kind the kernel takes the last, the engine the first."""
    return arrival.options.count(b"\x08\x0a") > 1


def reaches_over_the_edge(arrival):
    """The engine cuts it off at the window's edge, the kernel takes or refuses all of it."""
    return arrival.start <= arrival.book.edge < arrival.end and not arrival.flags & (RST | SYN)


def is_newer_with_older_data(arrival):
    """It acknowledges more, with an older sequence number: SND.WL1 goes back in the kernel, in the engine not."""
    book = arrival.book
    return book.una < arrival.ack <= book.max and arrival.start < book.wl1


def is_urgent(arrival):
    """The engine hands the connection back (rule tcp.urgent)."""
    return bool(arrival.flags & URG)


def is_exact_syn(arrival):
    """The engine ends the connection (rule tcp.syn)."""
    return bool(arrival.flags & SYN) and not arrival.flags & RST and arrival.is_exact


def is_reset_of_other_stacks(arrival):
    """The kernel accepts two more numbers of an RST: the peer's FIN, and the end of the SACK blocks."""
    book = arrival.book
    return bool(arrival.flags & RST) and (arrival.start == book.next - 1 or arrival.start in book.sacked)


def is_reset_beside_the_window(arrival):
    """An RST that begins before RCV.NXT and has data up to it or beyond, or stands just behind the window, is in the
    window for the kernel; for RFC 5961, 3.2, it is not.
    """
    book = arrival.book
    return bool(arrival.flags & RST) and (arrival.start < book.next <= arrival.end or arrival.start == book.edge)


def is_data_after_fin(arrival):
    """The kernel resets a connection whose peer sends on after its FIN (not so rule disconnect.rst.only-then)."""
    return arrival.state in _FIN_RECEIVED and arrival.start + arrival.length > arrival.book.next


def is_cwr_without_news(arrival):
    """The kernel takes it as an answer to its echo of congestion, the engine wants new data with it."""
    return bool(arrival.flags & CWR) and (not arrival.length or arrival.end <= arrival.book.next)


ENDS = (
    has_options_for_signatures,
    has_two_timestamps,
    reaches_over_the_edge,
    is_newer_with_older_data,
    is_urgent,
    is_exact_syn,
    is_reset_of_other_stacks,
    is_reset_beside_the_window,
    is_data_after_fin,
    is_cwr_without_news,
)
"""After these the two are not compared any more."""


def is_challenged_again(arrival):
    """The engine answers the first RST of a series, and one SYN in three seconds (rules tcp.rst, tcp.syn); the kernel
    has a limit for all of them, which is switched off here.
    """
    return bool(arrival.flags & (RST | SYN)) and arrival.book.challenged


def is_disordered_ack(arrival):
    """An acknowledgement without data that was overtaken by data, as its timestamp tells: the kernel says nothing,
    RFC 7323, 5.3 R1, wants an answer.
    """
    book = arrival.book
    return arrival.ts_distance < 0 and arrival.end == arrival.start < book.next


ANSWERS = (is_challenged_again, is_disordered_ack)
"""Whether these are answered, is not compared."""
