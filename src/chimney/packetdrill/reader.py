"""A position in a list of tokens."""

from chimney.packetdrill.errors import ScriptError
from chimney.packetdrill.lexer import Kind, Token


class Reader:
    """Takes tokens one after the other; the last one, END, is never passed."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token to be taken next, or one after it."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def previous(self) -> Token:
        """The token that was taken last."""
        return self._tokens[max(self._at - 1, 0)]

    def take(self) -> Token:
        """The next token."""
        token = self.peek()
        if token.kind is Kind.END:
            raise ScriptError("the script ends in the middle of an event", token.line)
        self._at += 1
        return token

    def at(self, text: str, ahead: int = 0) -> bool:
        """Whether the next token is this word or character."""
        token = self.peek(ahead)
        return token.text == text and token.kind in (Kind.SYMBOL, Kind.WORD)

    def at_kind(self, kind: Kind) -> bool:
        """Whether the next token is of this kind."""
        return self.peek().kind is kind

    def accept(self, text: str) -> bool:
        """Takes the next token if it is this word or character."""
        if not self.at(text):
            return False
        self._at += 1
        return True

    def accept_kind(self, kind: Kind) -> bool:
        """Takes the next token if it is of this kind."""
        if not self.at_kind(kind):
            return False
        self._at += 1
        return True

    def expect(self, text: str) -> None:
        """Takes this word or character. Raises ScriptError if something else follows."""
        if not self.accept(text):
            token = self.peek()
            raise ScriptError(f"{text!r} is expected, not {token.shown()}", token.line)

    def integer(self) -> int:
        """Takes a number. Raises ScriptError if something else follows."""
        token = self.peek()
        if token.kind is not Kind.INTEGER:
            raise ScriptError(f"a number is expected, not {token.shown()}", token.line)
        self._at += 1
        return int(token.text, 0) if token.text[:2].lower() == "0x" else int(token.text)

    def fail(self, message: str) -> ScriptError:
        """An error at the next token."""
        return ScriptError(message, self.peek().line)

    def substitute(self, defines: dict[str, str]) -> None:
        """Replaces the words that --define gives a value."""
        for index, token in enumerate(self._tokens):
            if token.kind is Kind.WORD and token.text in defines:
                kind, text = _defined(defines[token.text])
                self._tokens[index] = Token(kind, text, token.line, token.start, token.end)


def _defined(value: str) -> tuple[Kind, str]:
    if value[:1] == '"':
        return Kind.STRING, value[1:-1]
    if value[:1] == "`":
        return Kind.COMMAND, value[1:-1]
    try:
        int(value, 0)
    except ValueError:
        return Kind.WORD, value
    return Kind.INTEGER, value
