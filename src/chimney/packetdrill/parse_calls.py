"""The grammar of socket calls and their arguments: `read(4, ..., 1000) = -1 EAGAIN (Try again)`."""

from chimney.packetdrill.errors import ScriptError
from chimney.packetdrill.lexer import Kind
from chimney.packetdrill.nodes import (
    Anything,
    Call,
    Either,
    Expression,
    Name,
    Number,
    Sequence,
    SocketCall,
    Structure,
    Text,
)
from chimney.packetdrill.reader import Reader


def parse_call(reader: Reader, end: int | None) -> SocketCall:
    """A socket call with its result. Raises ScriptError."""
    name = reader.take()
    if name.kind is not Kind.WORD:
        raise ScriptError(f"a packet, a call, a command or code is expected, not {name.shown()}", name.line)
    reader.expect("(")
    arguments = _list(reader, ")")
    reader.expect("=")
    result = _expression(reader)
    errno = ""
    if reader.at_kind(Kind.WORD):
        errno = reader.take().text
    if reader.at("("):
        _note(reader)
    return SocketCall(name.text, arguments, result, errno, end)


def _note(reader: Reader) -> None:
    """`(Connection refused)`: for the reader."""
    while not reader.accept(")"):
        reader.take()


def _list(reader: Reader, closing: str) -> tuple[Expression, ...]:
    items: list[Expression] = []
    while not reader.accept(closing):
        items.append(_expression(reader))
        if not reader.accept(",") and not reader.at(closing):
            raise reader.fail(f"{closing!r} or ',' is expected, not {reader.peek().shown()}")
    return tuple(items)


def _expression(reader: Reader) -> Expression:
    parts = [_term(reader)]
    while reader.accept("|"):
        parts.append(_term(reader))
    return parts[0] if len(parts) == 1 else Either(tuple(parts))


def _term(reader: Reader) -> Expression:
    token = reader.peek()
    if token.kind is Kind.INTEGER:
        return Number(reader.integer())
    if token.kind is Kind.ELLIPSIS:
        reader.take()
        return Anything()
    if token.kind is Kind.STRING:
        return _text(reader)
    if token.kind is Kind.WORD:
        name = reader.take().text
        if reader.accept("("):
            return Call(name, _list(reader, ")"))
        return Name(name)
    if reader.accept("["):
        return Sequence(_list(reader, "]"))
    if reader.accept("{"):
        return _structure(reader)
    raise ScriptError(f"a value is expected, not {token.shown()}", token.line)


def _text(reader: Reader) -> Text:
    value = ""
    while reader.at_kind(Kind.STRING):
        value += reader.take().text
    return Text(_unescape(value), reader.accept_kind(Kind.ELLIPSIS))


def _unescape(value: str) -> str:
    return value.encode("latin-1", "backslashreplace").decode("unicode_escape") if "\\" in value else value


def _structure(reader: Reader) -> Structure:
    fields: list[tuple[str, Expression]] = []
    while not reader.accept("}"):
        name = ""
        if reader.at_kind(Kind.WORD) and (reader.at("=", 1) or reader.at("(", 1)):
            name = reader.take().text
            if reader.accept("("):
                # `msg_iov(1)=[...]`: how many there are stands in front of them.
                _list(reader, ")")
            reader.expect("=")
        fields.append((name, _expression(reader)))
        if not reader.accept(",") and not reader.at("}"):
            raise reader.fail(f"'}}' or ',' is expected, not {reader.peek().shown()}")
    return Structure(tuple(fields))
