"""Tokens into a script: options, times, and which kind of event it is. Packets and calls have parsers of their own."""

from chimney.packetdrill import script_options
from chimney.packetdrill.errors import ScriptError
from chimney.packetdrill.lexer import Kind, Token, tokens
from chimney.packetdrill.nodes import Action, Code, Command, Event, Script, When
from chimney.packetdrill.parse_calls import parse_call
from chimney.packetdrill.parse_packets import parse_packet
from chimney.packetdrill.reader import Reader

_PER_SECOND = 1_000_000


def line_of_first_command(text: str) -> int:
    """Where the first command of a script stands, which nothing else tells of the one before all events; 0: none."""
    return next((token.line for token in tokens(text) if token.kind is Kind.COMMAND), 0)


def parse_script(text: str, defines: dict[str, str] | None = None) -> Script:
    """Reads a script. Raises ScriptError or Unsupported, which name the line."""
    return _ScriptParser(text, defines or {}).parse()


class _ScriptParser:
    def __init__(self, text: str, defines: dict[str, str]) -> None:
        self.text = text
        self.reader = Reader(tokens(text))
        self.defines = dict(defines)
        self.script = Script()

    def parse(self) -> Script:
        self._options()
        reader = self.reader
        if self.defines:
            reader.substitute(self.defines)
        if reader.at_kind(Kind.COMMAND):
            self.script.init = Command(reader.take().text)
        while not reader.at_kind(Kind.END):
            if reader.at_kind(Kind.COMMAND) and reader.peek(1).kind is Kind.END:
                self.script.cleanup = Command(reader.take().text)
            else:
                self.script.events.append(self._event())
        if not self.script.events:
            raise ScriptError("the script has no events", reader.peek().line)
        return self.script

    def _options(self) -> None:
        reader = self.reader
        while reader.at_kind(Kind.OPTION):
            option = reader.take()
            value = ""
            if reader.accept("="):
                value = reader.take().text
                if reader.accept("="):
                    literal = reader.take()
                    quote = {Kind.STRING: '"', Kind.COMMAND: "`"}.get(literal.kind, "")
                    if option.text == "define":
                        self.defines[value] = quote + literal.text + quote
                    value += f"={literal.text}"
                while reader.accept(","):
                    value += f",{reader.take().text}"
            script_options.check(option.text, value, option.line)
            self.script.options[option.text] = value

    def _event(self) -> Event:
        reader = self.reader
        first = reader.peek()
        when, start, end = self._time()
        action = self._action(when, first)
        last = reader.previous()
        return Event(first.line, when, start, end, action, " ".join(self.text[first.start : last.end].split()))

    def _time(self) -> tuple[When, int, int]:
        reader = self.reader
        if reader.accept("*"):
            return When.ANY, 0, 0
        relative = reader.accept("+")
        start = self._seconds()
        if not reader.accept("~"):
            return (When.RELATIVE if relative else When.ABSOLUTE), start, start
        if relative:
            reader.expect("+")
        end = self._seconds()
        if end < start:
            raise ScriptError("a time range that goes backwards", reader.previous().line)
        return (When.RELATIVE_RANGE if relative else When.ABSOLUTE_RANGE), start, end

    def _seconds(self) -> int:
        token = self.reader.take()
        if token.kind not in (Kind.FLOAT, Kind.INTEGER):
            raise ScriptError(f"a time is expected, not {token.shown()}", token.line)
        value = float(token.text)
        if value < 0:
            raise ScriptError("a negative time", token.line)
        return round(value * _PER_SECOND)

    def _action(self, when: When, first: Token) -> Action:
        reader = self.reader
        token = reader.peek()
        action: Action
        if token.text in ("<", ">") and token.kind is Kind.SYMBOL:
            action = parse_packet(reader)
        elif token.kind is Kind.COMMAND:
            action = Command(reader.take().text)
        elif token.kind is Kind.CODE:
            action = Code(reader.take().text)
        else:
            end = self._seconds() if reader.accept_kind(Kind.ELLIPSIS) else None
            action = parse_call(reader, end)
        if when in (When.ANY, When.ABSOLUTE_RANGE, When.RELATIVE_RANGE) and not getattr(action, "outbound", False):
            raise ScriptError("only a packet that leaves can have a range of time, or any time", first.line)
        return action
