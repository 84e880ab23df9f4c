"""The options at the head of a script: which there are (packetdrill's config.c), and what they may say."""

import re

from chimney.packetdrill.errors import ScriptError, Unsupported

_FLAGS = frozenset({
    "wire_client", "wire_server", "tcp_ts_ecr_scaled", "strict_segments", "dry_run", "is_anyip", "send_omit_free",
    "debug", "verbose", "persistent_tun_dev",
})  # fmt: skip
_WITH_VALUE = frozenset({
    "ip_version", "bind_port", "code_command", "code_format", "code_sockopt", "connect_port", "remote_ip", "local_ip",
    "gateway_ip", "netmask_ip", "speed", "mss", "mtu", "init_scripts", "tolerance_usecs", "tolerance_percent",
    "wire_server_ip", "wire_server_at", "wire_server_port", "wire_client_dev", "wire_server_dev", "so_filename",
    "so_flags", "tcp_ts_tick_usecs", "non_fatal", "psp_udp_port", "define", "tun_dev",
    # Of the packetdrill that freebsd-net/tcp-testsuite is written for.
    "udp_encapsulation", "tcp_md5_secret",
})  # fmt: skip
_FOREIGN = {
    "psp_udp_port": "PSP", "udp_encapsulation": "TCP over UDP", "tcp_md5_secret": "MD5 signatures (RFC 2385)",
    **dict.fromkeys((name for name in _FLAGS | _WITH_VALUE if name.startswith("wire_")),
                    "the client and server of packetdrill"),
}  # fmt: skip
"""What a whole script is about, if it has such an option."""
_VERSIONS = ("ipv4", "ipv6", "ipv4-mapped-ipv6")
_LEAST = {"tolerance_usecs": 0, "tcp_ts_tick_usecs": 0, "mss": 0, "mtu": 68}
"""The least value of those that are whole numbers; RFC 791 has that of the MTU."""


def check(name: str, value: str, line: int) -> None:
    """Raises ScriptError for an option or a value that is none, Unsupported where the whole script is foreign."""
    if name not in _FLAGS | _WITH_VALUE:
        raise ScriptError(f"there is no option --{name}", line)
    if name in _FOREIGN:
        raise Unsupported(_FOREIGN[name], line)
    if name in _WITH_VALUE and not value:
        raise ScriptError(f"--{name} wants a value", line)
    if name == "ip_version" and value not in _VERSIONS:
        raise ScriptError(f"--ip_version is one of {', '.join(_VERSIONS)}, not {value}", line)
    if name in _LEAST and not (re.fullmatch(r"[0-9]+", value) and int(value) >= _LEAST[name]):
        raise ScriptError(f"--{name} wants a whole number, {_LEAST[name]} or more, not {value}", line)
    if name == "tolerance_percent" and not re.fullmatch(r"[0-9]+|[0-9]*\.[0-9]+", value):
        raise ScriptError(f"--{name} wants a number, 0 or more, not {value}", line)
