"""Plays a script to both sides, step by step: first to the kernel, then to the engine."""

from tests.differential import known
from tests.differential.actions import Read
from tests.differential.book import Book, Track
from tests.differential.compare import compare
from tests.differential.engine import EngineSide
from tests.differential.kernel import KernelSide
from tests.differential.peer import MASK, build
from tests.differential.terms import Difference, describe, theirs
from tests.differential.terms import ours as our_bytes

_ALL = 1 << 20
_OPTION_SPACE = 40


class Outcome:
    """What one side did in one step: packets, bytes that the application read, and how it stands then."""

    def __init__(self, sent, data, view, track):
        self.sent, self.data, self.view = sent, data, view
        self.ack, self.edge, self.max = track.ack, track.edge, track.max


class Performance:
    """A script that is being played. met: what has happened in it, for statistics.

    literally: the peer sends what the script says, even if it contradicts itself, and nothing is judged.
    """

    def __init__(self, wire, script, literally=False):
        self.literally = literally
        self.script = script
        self.kernel = KernelSide(wire, script.setup)
        self.setup = setup = self.kernel.setup
        self.book = Book(setup)
        self.engine = EngineSide(setup)
        self.tracks = {side: Track(side, setup, not literally) for side in (self.kernel, self.engine)}
        self.story = [repr(setup)]
        self.met = set()
        self.written = 0
        self.is_shut = False
        self.is_over = False
        self.state = "ESTABLISHED"
        self.arrival = None
        self.tolerance = 0

    def play(self):
        """All steps, or those until the connection has ended. Returns what kernel and engine did in the last one.

        Raises Difference.
        """
        last = None
        try:
            for step in self.script.steps:
                if self.is_over:
                    break
                self.story.append(f"--- {step}")
                last = self._step(step) or last
        except AssertionError as error:
            raise Difference(f"{error}\n\n" + "\n".join(self.story)) from None
        finally:
            self.kernel.close()
        return last

    def _step(self, step):
        self.arrival = None
        call = getattr(self, "_" + type(step).__name__.lower())(step)
        if call is None:
            self.story.append("    (not possible)")
            return None
        method, *rest = call
        kernel = self._perform(self.kernel, method, rest)
        self.engine.edge = (self.setup.irs + kernel.edge) & MASK
        engine = self._perform(self.engine, method, rest)
        if not self.literally:
            self._judge(step, kernel, engine)
        self.state = kernel.view.state
        self.book.note(self.arrival, kernel, min(kernel.max, engine.max))
        self.is_over |= kernel.view.state == "CLOSED" or self.engine.connection.stopped
        return kernel, engine

    def _perform(self, side, method, rest):
        sent, data = getattr(side, method)(*rest), b""
        if method == "read":
            data, sent = sent
        if self.setup.reads_at_once and method != "abort":
            more, answers = side.read(_ALL)
            data, sent = data + more, sent + answers
        track, view = self.tracks[side], side.view()
        self.story += [f"    {side.name}: {describe(packet, self.setup)}" for packet in sent]
        self.story.append(f"    {side.name} {view}")
        track.written = self.written
        track.room = max(track.room, view.acked + view.snd_wnd)
        if not (self.arrival and known.is_urgent(self.arrival)):
            track.take(data)
        for packet in sent:
            track.note(packet)
        return Outcome(sent, data, view, track)

    def _judge(self, step, kernel, engine):
        if isinstance(step, Read):
            self._settle_window(kernel, engine)
        compare(self, kernel, engine)
        if not self.setup.reads_at_once and self.kernel.is_out_of_memory():
            self.met.add("ended: the kernel is out of memory")
            self.is_over = True

    def _settle_window(self, kernel, engine):
        """What has been read opens the window. The kernel tells of one that has doubled, the engine of two segments
        more, or of one if none is left: nobody has to wait (docs/differences.md).
        """
        mss = self.engine.connection.mss
        left = engine.edge - engine.view.received
        if kernel.sent and not engine.sent and (left >= mss or kernel.edge - engine.edge < mss):
            engine.sent = self.engine.tell_window()
            for packet in engine.sent:
                self.tracks[self.engine].note(packet)
            engine.edge = self.tracks[self.engine].edge

    # What the steps mean: a method of the sides, and its arguments.

    def _segment(self, step):
        setup, book = self.setup, self.book
        start = book.peer_place(step.seq)
        ack, length, flags = book.our_place(step.ack), step.length, step.flags
        if not self.literally:
            ack = book.known_ack(ack, max(track.max for track in self.tracks.values()))
            length, flags = book.honest(start, length, flags)
        # To the kernel an old acknowledgement would tell no time (docs/differences.md).
        ts = book.timestamp(step) if self.literally or ack >= book.una else None
        distance = step.ts if ts else 0
        places = [[(book.our_place(end) + setup.iss) & MASK for end in block] for block in step.sack]
        blocks = places[: (_OPTION_SPACE - len(step.options) - (12 if ts else 0) - 4) // 8]
        window = min(step.window >> setup.snd_wscale, 0xFFFF)
        data = step.data or theirs(start, length)
        segment = build(setup.irs + start, setup.iss + ack, flags, window, data, ts, blocks, step.options, step.urgent)
        if step.offset is not None and (step.offset < 5 or step.offset * 4 > len(segment)):
            segment = segment[:12] + bytes((step.offset << 4,)) + segment[13:]
        options = segment[20 : (segment[12] >> 4) * 4]
        self.arrival = known.Arrival(start, length, flags, ack, book, self.state, options, distance)
        self.story.append(f"    seq {start}+{length} ack {ack} flags {flags:#x}")
        return "arrives", segment, step.ecn

    def _read(self, step):
        return "read", step.count

    def _write(self, step):
        if self.is_shut:
            return None
        data = our_bytes(self.written, step.count)
        self.written += step.count
        return "write", data

    def _shutdown(self, step):
        if self.is_shut:
            return None
        self.is_shut = True
        return ("shutdown",)

    def _abort(self, step):
        self.is_over = True
        return ("abort",)
