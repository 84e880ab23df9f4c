"""The shell commands of scripts: sysctls and routes become settings, some are known to make no difference.

Nothing is executed. A command that is in no table makes the script unsupported, with the command as the reason.
"""

import re
import shlex
from collections.abc import Callable
from typing import get_args, get_type_hints

from chimney.packetdrill import routes
from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.settings import Settings
from chimney.tcp import Config

_SECOND = 1_000_000
_MILLISECOND = 1000


def _flag(value: str) -> bool:
    return int(value, 0) != 0


def _number(value: str) -> int:
    return int(value, 0)


def _rto_max(value: str) -> int:
    """Microseconds; Linux takes one second to two minutes (net/ipv4/sysctl_net_ipv4.c)."""
    if not 1000 <= (milliseconds := int(value)) <= 120_000:
        raise ValueError(value)
    return milliseconds * _MILLISECOND


def _seconds(value: str) -> int:
    return int(value) * _SECOND


def _milliseconds(value: str) -> int:
    return int(value) * _MILLISECOND


def _triple(value: str) -> tuple[int, int, int]:
    low, middle, high = (int(_arithmetic(part)) for part in value.split())
    return low, middle, high


def _arithmetic(text: str) -> str:
    """`$((15*1024*1024))`."""
    match = re.fullmatch(r"\$\(\(([0-9*]+)\)\)", text)
    if match is None:
        return text
    value = 1
    for factor in match[1].split("*"):
        value *= int(factor)
    return str(value)


_SYSCTLS: dict[str, tuple[str, Callable[[str], object]]] = {
    "tcp_congestion_control": ("congestion_control", str),
    "tcp_sack": ("sack", _flag),
    "tcp_timestamps": ("timestamps", _flag),
    "tcp_window_scaling": ("window_scaling", _flag),
    "tcp_ecn": ("ecn", _number),
    "tcp_rmem": ("rmem", _triple),
    "tcp_wmem": ("wmem", _triple),
    "tcp_adv_win_scale": ("adv_win_scale", _number),
    "tcp_early_retrans": ("early_retrans", _number),
    "tcp_reordering": ("reordering", _number),
    "tcp_slow_start_after_idle": ("slow_start_after_idle", _flag),
    "tcp_notsent_lowat": ("notsent_lowat", _number),
    "tcp_min_tso_segs": ("min_tso_segs", _number),
    "tcp_retries2": ("retries2", _number),
    "tcp_fin_timeout": ("fin_timeout_us", _seconds),
    "tcp_keepalive_time": ("keepalive_time_us", _seconds),
    "tcp_keepalive_intvl": ("keepalive_interval_us", _seconds),
    "tcp_keepalive_probes": ("keepalive_probes", _number),
    "tcp_mtu_probing": ("mtu_probing", _number),
    "tcp_base_mss": ("base_mss", _number),
    "tcp_moderate_rcvbuf": ("moderate_rcvbuf", _flag),
    "tcp_pacing_ss_ratio": ("pacing_ss_ratio", _number),
    "tcp_pacing_ca_ratio": ("pacing_ca_ratio", _number),
    "tcp_rto_min_us": ("min_rto_us", _number),
    "hystart": ("hystart", _flag),
}
_FIXED = {
    "tcp_dsack": ("1",), "tcp_recovery": ("1",), "tcp_frto": ("1", "2"), "tcp_shrink_window": ("0",),
    "hystart_detect": ("1", "2", "3"),
}  # fmt: skip
"""What the engine does in one way only: other values would make another script of it."""
_ENGINE_SYSCTLS: dict[str, tuple[str, Callable[[str], object]]] = {"tcp_rto_max_ms": ("max_rto_us", _rto_max)}
"""The same where nothing but the engine is concerned: a field of its Config."""
_DEFAULT_ONLY = {
    "tcp_thin_linear_timeouts": ("0",), "tcp_orphan_retries": ("0",), "tcp_retries1": ("3",), "tcp_rfc1337": ("0",),
    "tcp_abort_on_overflow": ("0",), "tcp_plb_enabled": ("0",), "ip_no_pmtu_disc": ("0",), "tcp_reflect_tos": ("0",),
    "tcp_ecn_fallback": ("1",), "tcp_syncookies": ("0", "1"), "tcp_invalid_ratelimit": ("0", "500"),
    "tcp_syn_retries": ("5", "6"), "tcp_synack_retries": ("5",), "tcp_syn_linear_timeouts": ("0",),
}  # fmt: skip
"""Sysctls that would make a difference, with the values that make none."""
_IGNORED_SYSCTLS = frozenset({
    # How much leaves at once: packets are merged before they are compared.
    "tcp_tso_win_divisor", "tcp_tso_rtt_log", "tcp_autocorking", "tcp_limit_output_bytes",
    # How connections are opened: what of it is not here is noticed in calls and packets.
    "tcp_max_syn_backlog", "tcp_migrate_req", "tcp_fastopen", "tcp_fastopen_key",
    "tcp_fastopen_blackhole_timeout_sec", "tcp_ecn_option",
    # The whole host: there is one connection here, memory for all, and no other CPU.
    "tcp_challenge_ack_limit", "tcp_no_metrics_save", "tcp_tw_reuse", "tcp_mem", "tcp_low_latency", "tcp_early_demux",
    "tcp_backlog_ack_defer",
    # Linux holds acknowledgements back where it sees many holes; the engine does not.
    "tcp_comp_sack_nr", "tcp_comp_sack_delay_ns", "tcp_comp_sack_slack_ns",
    # Gone from Linux.
    "tcp_fack",
})  # fmt: skip
_IGNORED = (
    re.compile(r"tc( -\w+)* qdisc (add|replace|change|del|delete) dev \S+ root( pfifo)?( limit [1-9]\d*)?$"),
    re.compile(r"ip tcp_metrics flush"),
    re.compile(r"ip link set"),
    re.compile(r"(/usr/bin/)?(sleep|true|echo|logger|set|cat|#)\b"),
    re.compile(r"\S*/sysctl_restore_\S*$"),
    re.compile(r"(\S*/)?(defaults|server|client)\.sh$"),
    re.compile(r"sysctl (-w |-q )*(net\.inet6?\.|kern\.)"),
)
_WRITTEN = re.compile(r"^echo\s+\"?(\w+)\"?\s*>\s*(/(?:proc/sys|sys/module)/\S+)$")
_DEFAULTS = "defaults.sh"
_ENGINE = "chimney."


def run(text: str, settings: Settings) -> None:
    """Carries out what a script has between backticks. Raises Unsupported for a command that is not known, ScriptError
    for one that makes no sense."""
    if not text.strip():
        return
    for command in _commands(text):
        _run(command, settings)


def _commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r";|&&|\|\|", line)]
    parts = [_WRITTEN.sub(r"sysctl \2=\1", part) for part in parts]
    return [re.sub(r"\s*(\d?>>?|&>)\s*(&\d|\S+)", "", part).strip() for part in parts if part]


def _run(command: str, settings: Settings) -> None:
    if not command:
        return
    words = _words(command)
    name = words[0].rsplit("/", 1)[-1]
    if name == _DEFAULTS:
        _apply_defaults(settings)
    elif any(pattern.match(command) for pattern in _IGNORED):
        settings.ignored.append(command)
    elif name == "sysctl":
        _run_sysctl(_assignments(command, words), settings)
    elif name == "set_sysctls.py":
        _run_sysctl(words[1:], settings)
    elif name == "tc":
        _run_tc(command, words, settings)
    elif name == "ip":
        routes.run(command, words, settings)
    elif name == "ethtool":
        settings.ignored.append(command)
    else:
        raise Unsupported(f"the command `{command}`")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command) or [command]
    except ValueError:
        return command.split()


def _apply_defaults(settings: Settings) -> None:
    """What the common defaults.sh of google's suite sets, where it differs from Linux's own."""
    settings.rmem = (4096, 540_000, 15 << 20)
    settings.wmem = (4096, 256 << 10, 4 << 20)
    settings.early_retrans = 4
    settings.slow_start_after_idle = False
    settings.ecn = 0


def _assignments(command: str, words: list[str]) -> list[str]:
    """What sysctl is told to set. Raises Unsupported if a file says so."""
    if any(word.startswith(("--load", "--system")) or re.match(r"-\w*[pf]", word) for word in words[1:]):
        raise Unsupported(f"settings from a file: `{command}`")
    return [word for word in words[1:] if not word.startswith("-")]


def _run_sysctl(assignments: list[str], settings: Settings) -> None:
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        name = path.replace("/", ".").rsplit(".", 1)[-1]
        if path.startswith(_ENGINE) and equals:
            _set_engine(path.removeprefix(_ENGINE), value, settings)
        elif not equals or name in _IGNORED_SYSCTLS:
            settings.ignored.append(f"sysctl {assignment}")
        elif name in _FIXED:
            if value.strip() not in _FIXED[name]:
                raise Unsupported(f"sysctl {assignment}: the engine has it as {_FIXED[name][-1]}")
        elif name in _DEFAULT_ONLY:
            if value.strip() not in _DEFAULT_ONLY[name]:
                raise Unsupported(f"sysctl {assignment}: only {' or '.join(_DEFAULT_ONLY[name])} is there")
            settings.ignored.append(f"sysctl {assignment}")
        elif name in _SYSCTLS or name in _ENGINE_SYSCTLS:
            _set(name, assignment, value.strip().strip('"'), settings)
        else:
            raise Unsupported(f"sysctl {path}")


def _set(name: str, assignment: str, value: str, settings: Settings) -> None:
    try:
        if name in _ENGINE_SYSCTLS:
            attribute, convert = _ENGINE_SYSCTLS[name]
            settings.engine[attribute] = convert(value)
        else:
            attribute, convert = _SYSCTLS[name]
            setattr(settings, attribute, convert(value))
    except ValueError:
        raise Unsupported(f"the value of sysctl {assignment}") from None


def _set_engine(name: str, value: str, settings: Settings) -> None:
    """A parameter of the engine that Linux does not have. Raises ScriptError for one that the engine has not either."""
    kind = get_type_hints(Config).get(name)
    if kind is None:
        raise ScriptError(f"the engine has no parameter {name}")
    allowed = ("0", "1") if kind is bool else get_args(kind)
    if allowed and value not in allowed:
        raise ScriptError(f"chimney.{name} is {' or '.join(allowed)}, not {value}")
    try:
        settings.engine[name] = value if get_args(kind) else kind(_number(value))
    except ValueError:
        raise ScriptError(f"chimney.{name} is a number, not {value}") from None


def _run_tc(command: str, words: list[str], settings: Settings) -> None:
    if words[1:2] == ["qdisc"] and "fq" in words and "limit" not in words:
        settings.fair_queue = True
        return
    raise Unsupported(f"the command `{command}`")
