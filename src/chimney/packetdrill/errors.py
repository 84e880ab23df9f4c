"""What can go wrong with a script, and whose matter it is."""


class ScriptError(Exception):
    """The script cannot be read, or asks for something that makes no sense. `line` is 0 where no line is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Unsupported(Exception):
    """The script asks for something that an established connection on an engine of its own does not offer."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Mismatch(Exception):
    """The engine did something else than the script expects."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line
