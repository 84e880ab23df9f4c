"""What a connection consists of, what there is to see of it, and what its next owner gets."""

from chimney.tcp.ack import AckPolicy
from chimney.tcp.auto_tuning import AutoTuning
from chimney.tcp.challenge import Challenges
from chimney.tcp.chrono import Chrono
from chimney.tcp.config import NEVER, Config, Tcb
from chimney.tcp.ecn import Ecn
from chimney.tcp.keepalive import Keepalive
from chimney.tcp.receiver import Receiver
from chimney.tcp.sender import Sender
from chimney.tcp.seq import unwrap
from chimney.tcp.state import FIN_WAS_ACKED, OFFLOADABLE, State
from chimney.tcp.statistics import Statistics
from chimney.tcp.timestamps import Timestamps

_NEVER = NEVER
_FIN_WAIT_2 = int(State.FIN_WAIT_2)


class Parts:
    """A connection that was taken over, without its behaviour: `Connection` has that.

    state: a State. wl1: the position SND.WL1. Times in microseconds, NEVER where nothing is scheduled.
    """

    def __init__(self, config: Config, tcb: Tcb, now: int) -> None:
        """Raises ValueError for a state that cannot be taken over."""
        if tcb.state not in OFFLOADABLE:
            raise ValueError(f"a connection in state {State(tcb.state).name} cannot be taken over")
        self.config = config
        self.state = int(tcb.state)
        self.events: list[int] = []
        self.stats = Statistics()
        self.timestamps = Timestamps(tcb.ts_time, config.ticks_per_second, tcb.ts_recent, tcb.ts_recent_age_us, now)
        self.sender = Sender(config, tcb, self.timestamps, self.stats, now)
        self.receiver = Receiver(config, tcb, self.sender.mss, self.stats)
        self.ack_policy = AckPolicy(config.ack_frequency, config.delayed_ack_us, config.quick_acks)
        self.ecn = Ecn(config.ecn)
        self.challenges = Challenges()
        window = self.receiver.window
        largest = min(config.max_rcv_wnd, 65535 << window.scale)
        self.tuning = AutoTuning(window.size, largest, self.sender.mss, now)
        self.keepalive = Keepalive(
            config.keepalive_us,
            config.keepalive_interval_us,
            config.keepalive_probes,
            tcb.keepalive_probe_count,
            tcb.keepalive_left_us,
            now,
        )
        self.fin_acked = tcb.state in FIN_WAS_ACKED
        self.fin_wait_2_at = NEVER
        if self.state == _FIN_WAIT_2 and config.fin_wait_2_us > 0:
            left = tcb.retransmit_left_us
            self.fin_wait_2_at = now + (left if left >= 0 else config.fin_wait_2_us)
        self.chrono = Chrono(now)
        self.wl1 = min(unwrap(tcb.snd_wl1, tcb.rcv_nxt, 0), 0)
        self.data_received_at = self.ack_received_at = now

    @property
    def received(self) -> list[tuple[memoryview, bool]]:
        """In-order data and whether it was pushed, since the caller last cleared it.

        Views of the segment processed last are valid as long as its frame is; the others are the engine's memory.
        """
        return self.receiver.received

    @property
    def fin_received(self) -> bool:
        """Whether the peer's FIN has come in order: all data before it is, or was, in `received`."""
        return self.receiver.fin_received

    @property
    def acked(self) -> int:
        """Stream bytes acknowledged since construction; the FIN does not count."""
        return min(self.sender.una, self.sender.queue.end)

    @property
    def snd_una(self) -> int:
        """SND.UNA."""
        return self.sender.sequence(self.sender.una)

    @property
    def snd_nxt(self) -> int:
        """SND.NXT: the next byte to send, below `snd_max` where bytes have to be sent again."""
        return self.sender.sequence(self.sender.resumes_at())

    @property
    def snd_max(self) -> int:
        """The highest sequence number ever sent, plus one."""
        return self.sender.sequence(self.sender.max)

    @property
    def snd_wnd(self) -> int:
        """The peer's window in bytes."""
        return self.sender.wnd

    @property
    def rcv_nxt(self) -> int:
        """RCV.NXT."""
        return self.receiver.window.sequence(self.receiver.window.nxt)

    @property
    def rcv_wnd(self) -> int:
        """The window that was advertised, less what has arrived since, in bytes."""
        return self.receiver.window.edge - self.receiver.window.nxt

    @property
    def cwnd(self) -> int:
        """The congestion window in bytes."""
        return self.sender.congestion.cwnd

    @property
    def mss(self) -> int:
        """Payload bytes of a full segment."""
        return self.sender.mss

    def export(self, now: int) -> Tcb:
        """The state for the next owner, who must also get the bytes from SND.UNA on, and a FIN that was not sent.

        Out-of-order data is dropped: it was never acknowledged, except selectively.
        """
        sender = self.sender
        window = self.receiver.window
        deadline = self.fin_wait_2_at if self.state == _FIN_WAIT_2 else sender.timer.deadline
        return Tcb(
            state=self.state,
            rcv_nxt=self.rcv_nxt,
            rcv_wnd=self.rcv_wnd,
            snd_una=self.snd_una,
            snd_nxt=self.snd_nxt,
            snd_max=self.snd_max,
            snd_wnd=sender.wnd,
            max_snd_wnd=sender.max_wnd,
            snd_wl1=window.sequence(self.wl1),
            cwnd=sender.congestion.cwnd,
            ssthresh=sender.congestion.ssthresh,
            srtt_us=sender.rtt.srtt,
            rttvar_us=sender.rtt.rttvar,
            ts_recent=self.timestamps.recent,
            ts_recent_age_us=now - self.timestamps.recent_at,
            ts_time=self.timestamps.value(now),
            total_rt_us=sender.timer.total,
            dup_ack_count=min(sender.recovery.dup_acks, 255),
            snd_wnd_probe_count=min(sender.timer.probe_count, 255),
            keepalive_probe_count=min(self.keepalive.count, 255),
            keepalive_left_us=_left(self.keepalive.deadline, now),
            retransmit_count=min(sender.timer.count, 255),
            retransmit_left_us=_left(deadline, now),
            undelivered=window.undelivered,
        )


def _left(deadline: int, now: int) -> int:
    """What remains of a timer: -1 not running, 0 due now."""
    return -1 if deadline == NEVER else max(deadline - now, 0)
