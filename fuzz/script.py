"""Bytes read as decisions: whatever the fuzzer invents is a script, and a small change of it is a small change."""


class Script:
    """Reads numbers from `data`; after its end everything is 0."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def more(self) -> bool:
        """Whether there is anything left."""
        return self.at < len(self.data)

    def byte(self) -> int:
        """0 .. 255."""
        return self.number(1)

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes, big-endian."""
        value = int.from_bytes(self.data[self.at : self.at + size].ljust(size, b"\0"), "big")
        self.at += size
        return value

    def signed(self, size: int) -> int:
        """A number of `size` bytes in two's complement."""
        return int.from_bytes(self.number(size).to_bytes(size, "big"), "big", signed=True)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece

    def choice(self, values):
        """One of `values`, by one byte."""
        return values[self.byte() % len(values)]
