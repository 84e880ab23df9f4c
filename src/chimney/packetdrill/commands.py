"""The shell commands of scripts: sysctls and routes become settings, some are known to make no difference.

Nothing is executed. A command that is in no table makes the script unsupported, with the command as the reason.
"""

import re
import shlex
from collections.abc import Callable

from chimney.packetdrill.errors import Unsupported
from chimney.packetdrill.settings import Settings
from chimney.tcp import Config

_SECOND = 1_000_000
_MILLISECOND = 1000


def _flag(value: str) -> bool:
    return int(value, 0) != 0


def _number(value: str) -> int:
    return int(value, 0)


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
_IGNORED_SYSCTLS = frozenset({
    "tcp_tso_win_divisor", "tcp_orphan_retries", "tcp_autocorking", "tcp_invalid_ratelimit",
    "tcp_challenge_ack_limit",
    "tcp_syn_retries", "tcp_synack_retries", "tcp_fack", "tcp_ecn_option", "tcp_ecn_fallback", "tcp_fastopen",
    "tcp_fastopen_key", "tcp_syncookies", "tcp_retries1", "tcp_syn_linear_timeouts", "tcp_low_latency",
    "tcp_no_metrics_save", "tcp_tw_reuse", "tcp_mem", "tcp_limit_output_bytes", "tcp_rfc1337", "tcp_abort_on_overflow",
    "tcp_max_syn_backlog", "tcp_fastopen_blackhole_timeout_sec", "tcp_plb_enabled", "tcp_backlog_ack_defer",
    "tcp_comp_sack_nr", "tcp_comp_sack_delay_ns", "tcp_comp_sack_slack_ns", "tcp_thin_linear_timeouts",
    "tcp_early_demux", "ip_no_pmtu_disc", "tcp_tso_rtt_log", "tcp_rto_max_ms", "tcp_migrate_req", "tcp_reflect_tos",
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
    """Carries out what a script has between backticks. Raises Unsupported for a command that is not known."""
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
        _run_sysctl([word for word in words[1:] if not word.startswith("-")], settings)
    elif name == "set_sysctls.py":
        _run_sysctl(words[1:], settings)
    elif name == "tc":
        _run_tc(command, words, settings)
    elif name == "ip":
        _run_ip(command, words, settings)
    elif name == "ethtool":
        settings.segmentation_offload = not ("tso off" in command and "gso off" in command)
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
        elif name in _SYSCTLS:
            attribute, convert = _SYSCTLS[name]
            try:
                setattr(settings, attribute, convert(value.strip().strip('"')))
            except ValueError:
                raise Unsupported(f"the value of sysctl {assignment}") from None
        else:
            raise Unsupported(f"sysctl {path}")


def _set_engine(name: str, value: str, settings: Settings) -> None:
    """A parameter of the engine that Linux does not have."""
    default = getattr(Config(), name, None)
    if default is None:
        raise Unsupported(f"the engine's parameter {name}")
    converted: object = value
    if not isinstance(default, str):
        converted = _flag(value) if isinstance(default, bool) else _number(value)
    settings.engine[name] = converted


def _run_tc(command: str, words: list[str], settings: Settings) -> None:
    if words[1:2] == ["qdisc"] and "fq" in words and "limit" not in words:
        settings.fair_queue = True
        return
    raise Unsupported(f"the command `{command}`")


def _run_ip(command: str, words: list[str], settings: Settings) -> None:
    """Routes: mtu, advmss, initcwnd, rto_min."""
    if "route" not in words:
        raise Unsupported(f"the command `{command}`")
    rest = iter(words)
    for word in rest:
        if word == "mtu":
            value = next(rest)
            settings.route_mtu = int(next(rest) if value == "lock" else value)
        elif word == "advmss":
            settings.route_advmss = int(next(rest))
        elif word == "initcwnd":
            settings.initcwnd = int(next(rest))
        elif word == "rto_min":
            settings.min_rto_us = _milliseconds(next(rest).removesuffix("ms"))
        elif word in ("congctl", "cc"):
            settings.congestion_control = next(rest)
