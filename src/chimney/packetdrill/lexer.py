"""Text into tokens."""

import re
from dataclasses import dataclass
from enum import Enum, auto

from chimney.packetdrill.errors import ScriptError


class Kind(Enum):
    """What a token is."""

    OPTION = auto()
    """`--name`; the text is without the dashes."""
    FLOAT = auto()
    INTEGER = auto()
    """Decimal or hexadecimal; the text is as written."""
    WORD = auto()
    STRING = auto()
    """The text is without the quotes."""
    COMMAND = auto()
    """Between backticks, without them."""
    CODE = auto()
    """Between `%{` and `}%`, without them."""
    ADDRESS = auto()
    """An IPv4 or IPv6 address."""
    ELLIPSIS = auto()
    SYMBOL = auto()
    """Any other character."""
    END = auto()


@dataclass(slots=True)
class Token:
    """One token: its text, the line it begins in (from 1), and where it stands in the text."""

    kind: Kind
    text: str
    line: int
    start: int
    end: int

    def shown(self) -> str:
        """How a message names it."""
        return "the end of the script" if self.kind is Kind.END else repr(self.text)


_IPV4 = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+"
_IPV6 = r"(?:[0-9a-fA-F]{1,4}:)*(?:[0-9a-fA-F]{1,4})?::(?:[0-9a-fA-F]{1,4}:)*(?:[0-9a-fA-F]{1,4})?"
_IPV6_FULL = r"(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}"

# The first that matches counts, so what is longer, or more particular, comes first.
_PATTERNS = (
    ("SPACE", r"[ \t\r\n]+"),
    ("COMMENT", r"(?://|#)[^\n]*|/\*.*?\*/"),
    ("CODE", r"%\{.*?\}%"),
    ("COMMAND", r"`(?:\\.|[^`\\])*`"),
    ("STRING", r'"(?:\\.|[^"\\])*"'),
    ("OPTION", r"--[a-zA-Z0-9_]+"),
    ("ADDRESS", rf"{_IPV4}|{_IPV6_FULL}|{_IPV6}"),
    ("ELLIPSIS", r"\.\.\."),
    ("HEXADECIMAL", r"0[xX][0-9a-fA-F]+(?![a-zA-Z0-9_])"),
    ("FLOAT", r"-?[0-9]*\.[0-9]+"),
    ("INTEGER", r"-?[0-9]+(?![a-zA-Z0-9_])"),
    ("WORD", r"sequence#|[a-zA-Z0-9_]+"),
    ("SYMBOL", r"."),
)
_TOKEN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PATTERNS), re.DOTALL)
_DELIMITERS = {"CODE": 2, "COMMAND": 1, "STRING": 1}
_OPENING = ("/*", "%{")
_SKIPPED = ("SPACE", "COMMENT")


def tokens(text: str) -> list[Token]:
    """The tokens of a script, the last of which is END. Raises ScriptError for what is opened and not closed."""
    found: list[Token] = []
    line = 1
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None
        name = match.lastgroup or ""
        value = match.group()
        if name not in _SKIPPED:
            if name == "SYMBOL" and value in '`"':
                raise ScriptError(f"a {value} that is not closed", line)
            if name == "SYMBOL" and text.startswith(_OPENING, at):
                raise ScriptError(f"a {text[at : at + 2]} that is not closed", line)
            found.append(Token(*_token(name, value), line, match.start(), match.end()))
        line += value.count("\n")
        at = match.end()
    found.append(Token(Kind.END, "", found[-1].line if found else 1, at, at))
    return found


def _token(name: str, value: str) -> tuple[Kind, str]:
    cut = _DELIMITERS.get(name, 0)
    if cut:
        inner = value[cut:-cut]
        return Kind[name], inner.strip(" \t") if name == "CODE" else inner
    if name == "OPTION":
        return Kind.OPTION, value[2:]
    if name == "HEXADECIMAL":
        return Kind.INTEGER, value
    return Kind[name], value
