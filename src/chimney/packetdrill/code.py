"""`%{ … }%`: Python that sees the connection as TCP_INFO shows it.

A script is a program: its code runs with the rights of whoever runs the script, as packetdrill's does.
"""

import contextlib
import dataclasses
import io
import re
import traceback

from chimney.packetdrill.endpoint import Endpoint, Phase
from chimney.packetdrill.engine_config import receive_buffer
from chimney.packetdrill.errors import Mismatch, ScriptError, Unsupported
from chimney.packetdrill.host import Host, Socket
from chimney.tcp import State
from chimney.tcp.info import KERNEL_STATE, info

_CONSTANTS = {
    "TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4, "TCP_FIN_WAIT2": 5,
    "TCP_TIME_WAIT": 6, "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8, "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
    "TCP_INFINITE_SSTHRESH": 0x7FFFFFFF,
    "TCP_CA_Open": 0, "TCP_CA_Disorder": 1, "TCP_CA_CWR": 2, "TCP_CA_Recovery": 3, "TCP_CA_Loss": 4,
    "TCPI_OPT_TIMESTAMPS": 1, "TCPI_OPT_SACK": 2, "TCPI_OPT_WSCALE": 4, "TCPI_OPT_ECN": 8, "TCPI_OPT_ECN_SEEN": 16,
    "TCPI_OPT_SYN_DATA": 32, "TCPI_OPT_USEC_TS": 64, "TCPI_OPT_TFO_CHILD": 128,
    **{f"TCPI_{state.name}": value for state, value in KERNEL_STATE.items()},
}  # fmt: skip
_NAMES = (
    "state", "ca_state", "retransmits", "probes", "backoff", "options", "snd_wscale", "rcv_wscale",
    "rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans",
    "fackets", "last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu", "rcv_ssthresh", "rtt",
    "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "reordering", "rcv_rtt", "rcv_space", "total_retrans",
    "pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received", "segs_out", "segs_in", "notsent_bytes",
    "min_rtt", "data_segs_in", "data_segs_out", "busy_time", "rwnd_limited", "sndbuf_limited",
    "delivered", "delivered_ce", "bytes_sent", "bytes_retrans", "dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd",
)  # fmt: skip
_NOT_COUNTED = frozenset({
    "tcpi_delivery_rate", "tcpi_delivery_rate_app_limited", "tcpi_rcv_wnd", "tcpi_rehash", "tcpi_total_rto",
    "tcpi_total_rto_recoveries", "tcpi_total_rto_time",
})  # fmt: skip
"""What Linux tells and the engine does not know: 0 would be a lie."""


class _Names(dict[str, object]):
    """The names that the code of a script sees and makes."""

    def __missing__(self, name: str) -> object:
        if name in _NOT_COUNTED:
            raise Unsupported(f"{name}: the engine does not count it")
        raise KeyError(name)


class CodeRunner:
    """Runs the code blocks of one script, which share their names. `printed` is what they printed."""

    def __init__(self) -> None:
        self._names = _Names(_CONSTANTS)
        self.printed = ""

    def run(self, text: str, host: Host) -> None:
        """Raises Mismatch if an assertion fails, Unsupported for a figure that is not counted, else ScriptError."""
        self._names.update(tcp_info(host))
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                exec(compile(text + "\n", "<script>", "exec"), self._names)
        except AssertionError as error:
            line = _failed_line(text, error)
            raise Mismatch(f"the assertion fails: {line}: {error if error.args else self._figures(line)}") from None
        except Unsupported:
            raise
        except (Exception, SystemExit) as error:
            raise ScriptError(f"{type(error).__name__} in the code: {error}") from error
        finally:
            self.printed += output.getvalue()

    def _figures(self, line: str) -> str:
        """What the figures of TCP_INFO are that a line names."""
        names = dict.fromkeys(re.findall(r"tcpi_\w+", line))
        return ", ".join(f"{name} is {self._names.get(name)}" for name in names) or "it is not true"


def _failed_line(text: str, error: BaseException) -> str:
    """The statement that failed."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<script>"), None)
    lines = text.splitlines()
    source = lines[line - 1] if line is not None and line <= len(lines) else text
    return source.strip()


def tcp_info(host: Host) -> dict[str, object]:
    """The names of TCP_INFO for the connection under test; all 0 but what is known."""
    values: dict[str, object] = {f"tcpi_{name}": 0 for name in _NAMES}
    target = host.under_test
    if isinstance(target, Socket):
        values["tcpi_state"] = _CONSTANTS["TCP_LISTEN" if target.listening else "TCP_CLOSE"]
        return values
    if target is None:
        values["tcpi_state"] = _CONSTANTS["TCP_CLOSE"]
        return values
    values["tcpi_state"] = KERNEL_STATE[State(target.state())]
    if target.connection is not None and target.phase is not Phase.CLOSED:
        values.update(_of_the_engine(target, host.now))
    values.update(_of_the_socket(target, host))
    return values


def _of_the_engine(endpoint: Endpoint, now: int) -> dict[str, object]:
    connection = endpoint.connection
    assert connection is not None
    seen = info(connection, now)
    values = {f.name: getattr(seen, f.name) for f in dataclasses.fields(seen) if f.name not in _NOT_COUNTED}
    # Linux counts our SYN, if it was answered by a SYN.
    values["tcpi_bytes_acked"] = connection.acked + (not endpoint.passive)
    # What the peer was told is the handshake's; it counts without the options that every segment carries.
    values["tcpi_advmss"] = endpoint.agreed.our_mss - (12 if endpoint.agreed.timestamps else 0)
    return values


def _of_the_socket(endpoint: Endpoint, host: Host) -> dict[str, object]:
    """What the socket knows and the engine does not."""
    return {
        "tcpi_notsent_bytes": endpoint.unsent(),
        "SK_MEMINFO_RCVBUF": receive_buffer(host.settings, endpoint.options),
        "SK_MEMINFO_RMEM_ALLOC": len(endpoint.unread),
        "SK_MEMINFO_SNDBUF": endpoint.buffer.limit(),
        "SK_MEMINFO_WMEM_QUEUED": endpoint.unacked(),
    }
