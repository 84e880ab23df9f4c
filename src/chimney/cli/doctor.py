"""`chimney doctor`: what works on this machine, and what to do about what does not."""


def doctor() -> None:
    """Say what works on this machine, and what to do about what does not."""
