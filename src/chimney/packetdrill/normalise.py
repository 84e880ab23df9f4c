"""The filter that makes a script of freebsd-net/tcp-testsuite neutral to the stack.

Those scripts set up and look at FreeBSD: its sysctls, the size of its buffers, its windows, the options of its SYN.
What is left after the filter is what every TCP must do: numbers, flags, and the other options.
"""

import re

_COMMAND = re.compile(r"^\s*[+*]?\s*[\d.~+]*\s*`.*`\s*$")
_BUFFER = re.compile(r"\b[gs]etsockopt\s*\(.*\bSO_(RCVBUF|SNDBUF)\b")
_EXPECTED_BUFFER = re.compile(r"\bgetsockopt\s*\([^)]*\bSO_RCVBUF\s*,\s*\[(\d+)\]")
_OUTBOUND = re.compile(r"^\s*(\*|\+?\s*[\d.]+(\s*~\s*\+?[\d.]+)?)\s*>")
_WINDOW = re.compile(r"\bwin\s+\d+\b")
_SYN = re.compile(r">\s*(\[[^\]]*\]\s*|\([^)]*\)\s*)?S[A-Z]*\.?\s")
_OPTIONS = re.compile(r"<[^<>]*>")
_ACCEPT = re.compile(r"^(\s*)\S+\s+accept\s*\(.*\)\s*=\s*(\d+)")
_CONDITION = re.compile(r"^#(ifdef|ifndef|else|endif)\b\s*(\w*)")
_STANDARD = "STANDARD"
_MARKS = ("net.inet.", "net.inet6.", "kern.ipc.", "TCP_LOG_ID", "sockstat")


def is_freebsd(text: str) -> bool:
    """Whether a script sets up or looks at FreeBSD."""
    return any(mark in text for mark in _MARKS)


def normalise(text: str) -> str:
    """The script without what is FreeBSD's only; every line keeps its number.

    After accept(), the quick acknowledgements at the start of a connection are switched off, which Linux has and
    FreeBSD has not. Where a script distinguishes (`#ifdef STANDARD`), it is read as for a stack that follows the RFCs.
    """
    return "\n".join(_line(line) for line in _standard(text.splitlines())) + "\n"


def _standard(lines: list[str]) -> list[str]:
    """The lines that hold for such a stack; the others are empty."""
    kept: list[str] = []
    left_out: list[bool] = []
    for line in lines:
        condition = _CONDITION.match(line)
        if condition and condition[1] in ("ifdef", "ifndef"):
            left_out.append((condition[2] == _STANDARD) != (condition[1] == "ifdef"))
        elif condition and left_out and condition[1] == "else":
            left_out[-1] = not left_out[-1]
        elif condition and left_out:
            left_out.pop()
        kept.append("" if condition or any(left_out) else line)
    return kept


def receive_window(text: str) -> int:
    """The receive window that a script says the stack has, by the last size of the buffer that it expects; 0: none.

    FreeBSD's window is the buffer, even where the field of a packet without window scaling cannot tell all of it.
    """
    sizes = _EXPECTED_BUFFER.findall(text)
    return int(sizes[-1]) if sizes else 0


def _line(line: str) -> str:
    if _COMMAND.match(line) or _BUFFER.search(line):
        return ""
    if _OUTBOUND.match(line):
        head, comment, tail = line.partition("//")
        head = _WINDOW.sub("", head)
        if _SYN.search(head):
            start = head.index(">") + 1
            head = head[:start] + _OPTIONS.sub("<...>", head[start:])
        return head + comment + tail
    accepted = _ACCEPT.match(line)
    if accepted:
        return f"{line} +0 setsockopt({accepted[2]}, SOL_TCP, TCP_QUICKACK, [0], 4) = 0"
    return line
