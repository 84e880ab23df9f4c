"""`ip route`: what the route says about connections becomes settings (ip-route(8))."""

import re
from collections.abc import Iterator

from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.settings import Settings

_VERBS = ("add", "change", "replace", "append", "prepend")
_READING = ("show", "list", "ls", "get")
_WHERE = frozenset({"via", "dev", "src", "proto", "scope", "table", "metric", "preference", "tos", "dsfield", "type"})
"""Which way packets go, and not how: each has a value."""
_MICROSECONDS = {"": 1000, "ms": 1000, "s": 1_000_000, "us": 1}
_NUMBERS = {"mtu": "route_mtu", "advmss": "route_advmss", "initcwnd": "initcwnd"}
_FAMILIES = ("inet", "inet6")


def run(command: str, words: list[str], settings: Settings) -> None:
    """Carries out an `ip` command. Raises Unsupported for what is not here, ScriptError for what cannot be read."""
    if "route" not in words:
        raise Unsupported(f"the command `{command}`")
    rest = iter(words[words.index("route") + 1 :])
    verb = next(rest, "show")
    if verb in _READING:
        settings.ignored.append(command)
        return
    if verb not in _VERBS:
        raise Unsupported(f"the command `{command}`")
    next(rest, "")  # the destination
    for word in rest:
        _run_word(word, rest, settings)


def _run_word(word: str, rest: Iterator[str], settings: Settings) -> None:
    if word in _WHERE:
        if (value := next(rest, "")) in _FAMILIES:
            value = next(rest, "")
        if not value:
            raise ScriptError(f"ip route: {word} wants a value")
    elif word in _NUMBERS:
        value = next(rest, "")
        if word == "mtu" and value == "lock":
            value = next(rest, "")
        setattr(settings, _NUMBERS[word], _whole_number(word, value))
    elif word == "rto_min":
        settings.min_rto_us = _time(word, next(rest, ""))
    elif word in ("congctl", "cc"):
        if not (name := next(rest, "")):
            raise ScriptError(f"ip route: {word} wants a name")
        settings.congestion_control = name
    elif word != "onlink" and not (word in ("window", "initrwnd", "quickack") and next(rest, "") == "0"):
        raise Unsupported(f"ip route … {word}")


def _whole_number(word: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise ScriptError(f"ip route: {word} wants a number" + (f", not {text}" if text else ""))
    return int(text)


def _time(word: str, text: str) -> int:
    """Microseconds: without a unit it is milliseconds."""
    match = re.fullmatch(r"([0-9]+)(us|ms|s|)", text)
    if match is None:
        raise ScriptError(f"ip route: {word} wants a time" + (f", not {text}" if text else ""))
    return int(match[1]) * _MICROSECONDS[match[2]]
