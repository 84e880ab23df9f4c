"""The congestion-control algorithms by their names."""

from chimney.tcp.config import Config, Tcb
from chimney.tcp.congestion import CongestionControl
from chimney.tcp.cubic import Cubic
from chimney.tcp.hystart import Hystart, HystartPlusPlus, SlowStartExit
from chimney.tcp.reno import Reno

SLOW_START_EXITS: dict[str, type[SlowStartExit]] = {
    "hystart++": HystartPlusPlus,
    "hystart": Hystart,
    "none": SlowStartExit,
}


def congestion_control(config: Config, tcb: Tcb, mss: int) -> CongestionControl:
    """What config.congestion names, with the windows that were handed over."""
    if config.congestion == "reno":
        return Reno(tcb.cwnd, tcb.ssthresh, mss, config.max_cwnd)
    leaving = SLOW_START_EXITS[config.hystart]()
    return Cubic(tcb.cwnd, tcb.ssthresh, mss, config.max_cwnd, leaving)
