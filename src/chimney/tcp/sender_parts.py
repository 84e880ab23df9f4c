"""What the sending half consists of: positions, windows, parameters, and how a segment is built.

Positions: una <= nxt <= max. What lies between una and nxt is in the flight; nxt is below max only after a hand-over,
where bytes have possibly been sent by the owner before. The FIN takes one position after the last byte of the queue.
"""

from chimney.tcp.algorithms import congestion_control
from chimney.tcp.black_hole import BlackHole
from chimney.tcp.config import Config, Tcb
from chimney.tcp.flight import Flight
from chimney.tcp.pacing import Pacer
from chimney.tcp.persist import Persist
from chimney.tcp.rack import Rack
from chimney.tcp.recovery import Recovery
from chimney.tcp.rtt import RttEstimator
from chimney.tcp.segment import Segment
from chimney.tcp.send_queue import SendQueue
from chimney.tcp.seq import add, unwrap
from chimney.tcp.state import FIN_IS_QUEUED, State
from chimney.tcp.statistics import Statistics
from chimney.tcp.tail import TailProbe
from chimney.tcp.timer import RetransmitTimer
from chimney.tcp.timestamps import Timestamps
from chimney.tcp.usage import CwndUsage

_NEVER = 2**62
_FIN = 1
_PSH = 8
_ACK = 16
_LEAST_MSS = 48
_OVERRIDE_US = 200_000
_TRAIN_US = 977
_LONG_PATH = 17
_SHORT_PATH_US = 512


class SenderParts:
    """Queue, windows, congestion, loss recovery and timers of the sending half."""

    def __init__(self, config: Config, tcb: Tcb, timestamps: Timestamps, statistics: Statistics, now: int) -> None:
        self.statistics = statistics
        self.timestamps = timestamps
        self.use_timestamps = config.timestamps
        self.remote_mss = config.remote_mss
        self.ip_header = 40 if config.ipv6 else 20
        self.nagle = config.nagle
        self.minshall = config.minshall
        self.scale = min(config.snd_wscale, 14) if config.window_scaling else 0
        self.path_mtu = config.path_mtu
        self.black_hole = BlackHole(config.black_hole_detection, config.ipv6, 12 if config.timestamps else 0)
        self.mtu_probe_floor = config.mtu_probe_floor
        self.mss = self._effective_mss()
        self.max_burst = max(config.max_burst_segment, self.mss)

        self.base_seq = tcb.snd_una
        self.una = 0
        self.nxt = max(unwrap(tcb.snd_nxt, tcb.snd_una, 0), 0)
        self.max = max(unwrap(tcb.snd_max, tcb.snd_una, 0), self.nxt)
        self.wnd = tcb.snd_wnd
        self.max_wnd = max(tcb.max_snd_wnd, tcb.snd_wnd)
        self.queue = SendQueue()
        self.fin_length = 1 if tcb.state in FIN_IS_QUEUED else 0

        self.rtt = RttEstimator(tcb.srtt_us, tcb.rttvar_us, config.min_rto_us, config.max_rto_us, now)
        self.congestion = congestion_control(config, tcb, self.mss)
        self.usage = CwndUsage(self.congestion, config.slow_start_after_idle, now)
        self.pacer = Pacer(config.pacing, self.mss)
        self.timer = RetransmitTimer(config.max_retransmissions, config.max_rt_us)
        self.timer.count = self.timer.backoff = tcb.retransmit_count
        self.timer.total = tcb.total_rt_us
        self.timer.probe_count = tcb.snd_wnd_probe_count
        self.persist = Persist(self.timer, self.rtt, config.linux_window_probes)
        self.tail = TailProbe()
        self.rack = Rack(self.rtt)
        self.flight = Flight(config.max_sack_blocks, self.rack)
        self.recovery = Recovery(
            config.sack,
            config.dupack_threshold,
            self.mss,
            min(tcb.dup_ack_count, 255),
            self.flight,
            self.rack,
            self.congestion,
            self.timer,
            statistics,
        )
        self.delivered = 0
        self.train = self.carried = self.max_burst
        self.min_train_segments = config.min_train_segments
        self._set_pace()
        # Whether what somebody else has sent ends with a small segment is not known.
        self.small_end = self.max
        self.probes_tail = config.tail_loss_probes
        self.pushes_probes = config.pushed_tail_probes
        self.set_sws_prevention(config.sws_prevention_us)
        self.override_at = _NEVER
        self.last_sent = now
        self._urgent = False
        if self.nxt > 0:
            # Somebody else has sent it, some time ago: it tells no round trip.
            self.flight.add(self.nxt, self.mss, (self.nxt + self.mss - 1) // self.mss, now, True)
        self.recovery.adopt_duplicates()
        self.usage.adopt(self.nxt, self.recovery.in_flight() > self.congestion.cwnd - self.mss)
        self._resume_timer(tcb.retransmit_left_us if tcb.state != State.FIN_WAIT_2 else -1, now)

    def _resume_timer(self, left: int, now: int) -> None:
        if left >= 0:
            self.timer.start(now, left)
            self.persist.is_on = self.wnd == 0
        elif self.nxt > 0 and self.wnd > 0:
            self.timer.start(now, self._time_out())

    # What is there.

    def end(self) -> int:
        """The position after all that is to be sent, FIN included."""
        return self.queue.end + self.fin_length

    def sequence(self, position: int) -> int:
        """The sequence number of `position`."""
        return add(self.base_seq, position)

    def position(self, ack: int) -> int:
        """The position of an acknowledgement number."""
        return unwrap(ack, add(self.base_seq, self.una), self.una)

    def fin_is_acked(self) -> bool:
        """Whether the acknowledgement covers our FIN."""
        return self.fin_length > 0 and self.una > self.queue.end

    def resumes_at(self) -> int:
        """SND.NXT for the next owner: after a time-out, the first byte that waits to be sent again."""
        record = self.flight.next_lost()
        return self.nxt if record is None else record.start

    def deadline(self) -> int:
        """When this half wants to be called next."""
        at = min(self.timer.deadline, self.override_at, self.tail.deadline)
        return min(at, self.rack.deadline, self.pacer.deadline)

    def _time_out(self) -> int:
        return self.rtt.backed_off(self.timer.backoff)

    # Parameters that change.

    def set_path_mtu(self, mtu: int) -> None:
        """Segments get another size; what is in flight and has become too large is sent again at once (RFC 1191)."""
        before = self._room()
        self.path_mtu = mtu
        self.black_hole.on_path_mtu(before, self._allowed(), self.mtu_probe_floor)
        if self._adopt_mss() and not self.persist.is_on:
            self.recovery.on_smaller_mss()
            self._urgent = self.flight.pending > 0

    def set_sws_prevention(self, microseconds: int) -> None:
        """How long what is small is held back (Config.sws_prevention_us)."""
        self.override_us = microseconds or _OVERRIDE_US

    def _adopt_mss(self) -> bool:
        """Segments have the size that is effective now, from now on; whether that is a smaller one."""
        mss = self._effective_mss()
        smaller = mss < self.mss
        self.mss = self.recovery.mss = self.pacer.mss = mss
        self.max_burst = max(self.max_burst, mss)
        self.train = max(self.train, mss)
        self.congestion.set_mss(mss)
        return smaller

    def _effective_mss(self) -> int:
        """RFC 6691: the options that every segment carries come out of the MSS. Tiny ones are an attack."""
        return max(self._room() - self.black_hole.options, _LEAST_MSS)

    def _room(self) -> int:
        """How many bytes of options and payload a segment carries at most."""
        return self.black_hole.mss(self._allowed())

    def _allowed(self) -> int:
        """What the peer and the path, as far as it has told, would take."""
        return min(self.remote_mss, self.path_mtu - self.ip_header - 20)

    def _set_pace(self) -> None:
        congestion = self.congestion
        self.pacer.update(congestion.cwnd, self.rtt.srtt, congestion.cwnd * 2 < congestion.ssthresh)
        self._size_trains()

    def _size_trains(self) -> None:
        """A train is what the path carries in a millisecond, as Linux has it, and on a short path more.

        It has two segments at least, and takes up no more than half of cwnd, so that acknowledgements keep coming.
        """
        srtt = self.rtt.srtt
        if srtt == 0:
            return
        congestion = self.congestion
        mss = self.mss
        percent = 200 if congestion.cwnd * 2 < congestion.ssthresh else 120
        count = max(congestion.cwnd, self.nxt - self.una) * percent // 100 * _TRAIN_US // srtt
        self.carried = count - count % mss
        if self.rtt.min_rtt() < _SHORT_PATH_US and congestion.cwnd >= 2 * self.max_burst:
            self.train = self.max_burst
            return
        halvings = self.rtt.min_rtt() >> 9
        if halvings < _LONG_PATH:
            count += self.max_burst >> halvings
        count = min(max(count, self.min_train_segments * mss), max(congestion.cwnd // 2, mss))
        self.train = min(count - count % mss, self.max_burst)

    # Building segments.

    def _build(self, start: int, end: int, now: int) -> Segment:
        """A segment of the bytes from `start` to `end`, which may be the position after the FIN, or fewer."""
        queue = self.queue
        data = min(end, queue.end) - start
        segment = Segment()
        segment.seq = add(self.base_seq, start)
        segment.flags = _ACK
        segment.mss = self.mss
        if data > 0:
            segment.payload_parts = queue.gather(start, data)
            data = queue.gathered
            segment.payload_length = data
            segment.segments = (data + self.mss - 1) // self.mss
            # The receiver of a train shall not wait for more (GRO), as Linux does it.
            if queue.pushed or segment.segments > 1:
                segment.flags |= _PSH
        if end > queue.end and start + data == queue.end:
            segment.flags |= _FIN
        self.last_sent = now
        self._count(segment, start, data)
        return segment

    def _count(self, segment: Segment, start: int, data: int) -> None:
        statistics = self.statistics
        again = min(max(self.max - start, 0), data)
        if start < self.max:
            segment.is_retransmission = True
            # A FIN alone counts as a segment, too; of a train, what had not left before does not.
            statistics.retransmitted_segments += max((again + self.mss - 1) // self.mss, 1)
        statistics.retransmitted_bytes += again
        statistics.bytes_out += data - again
