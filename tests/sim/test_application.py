"""Applications notice whatever comes that must not come, or not so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chimney.sim.application import Application, ChimneyApplication, KernelApplication, pattern

SIZE = 100


class Connection:
    """Keeps what is posted, and completes it when a test says so."""

    def __init__(self) -> None:
        self.sends: list[Any] = []
        self.receives: list[Any] = []

    def post_send(self, data: bytes, callback: Any) -> None:
        self.sends.append((data, callback))

    def post_receive(self, buffer: bytearray, callback: Any, push: bool) -> None:
        self.receives.append((buffer, callback))

    def shutdown(self, callback: Any) -> None:
        self.shut = callback


class Rig:
    """The application of side a, whose peer sends nothing but what a test says that it has posted."""

    def __init__(self, peer_posted: int = 1000) -> None:
        self.broken_off: list[str] = []
        self.findings: list[tuple[str, str]] = []
        self.connection = Connection()
        self.a = ChimneyApplication(self, "a", self.connection)  # type: ignore[arg-type]
        self.b = SimpleNamespace(side="b", posted=peer_posted, shut=False)
        self.applications = {"a": self.a, "b": self.b}

    def broken(self, kind: str, message: str) -> None:
        self.findings.append((kind, message))

    def visit(self, side: str, event: str) -> None:
        pass

    def note(self, side: str, kind: str, text: str) -> None:
        pass

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.findings]

    def receives(self, data: bytes, which: int = 0, error: OSError | None = None) -> None:
        """A posted receive completes."""
        buffer, callback = self.connection.receives.pop(which)
        buffer[: len(data)] = data
        callback(SimpleNamespace(bytes_transferred=len(data), error=error))

    def sent(self, which: int = 0, short: int = 0, error: OSError | None = None) -> None:
        """A posted send completes."""
        data, callback = self.connection.sends.pop(which)
        callback(SimpleNamespace(bytes_transferred=len(data) - short, length=len(data), error=error))


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Streams


def test_the_stream_as_it_should_be(rig: Rig) -> None:
    rig.a.read(SIZE, 2, True)
    for start in range(0, 1000, SIZE):
        rig.receives(pattern("b", start, SIZE))
    rig.b.shut = True
    rig.receives(b"")
    assert rig.findings == [] and rig.a.received == 1000 and rig.a.end_of_stream


@pytest.mark.parametrize("start", [1, 50, 250])
def test_bytes_of_another_place(rig: Rig, start: int) -> None:
    """Repeated, or left out."""
    rig.a.read(SIZE, 2, True)
    rig.receives(pattern("b", 0, SIZE))
    rig.receives(pattern("b", start, SIZE))
    assert rig.kinds == ["streams"]


def test_the_first_wrong_byte_is_named(rig: Rig) -> None:
    rig.a.read(SIZE, 1, True)
    wrong = bytearray(pattern("b", 0, SIZE))
    wrong[77] ^= 1
    rig.receives(bytes(wrong))
    assert rig.findings == [
        ("streams", "a received a wrong byte at 77 of its stream (in 100 bytes that begin at 0)"),
    ]


def test_bytes_that_nobody_has_sent() -> None:
    rig = Rig(peer_posted=SIZE - 1)
    rig.a.read(SIZE, 1, True)
    rig.receives(pattern("b", 0, SIZE))
    assert rig.findings == [("streams", "a received bytes that nobody has sent")]


def test_an_end_that_is_none(rig: Rig) -> None:
    rig.a.read(SIZE, 1, True)
    rig.receives(b"")
    assert rig.findings == [("streams", "a sees the end of a stream that b has not ended")]


def test_an_end_that_comes_too_early(rig: Rig) -> None:
    rig.b.shut = True
    rig.a.read(SIZE, 1, True)
    rig.receives(pattern("b", 0, SIZE))
    rig.receives(b"")
    assert rig.findings == [("streams", "a sees the end of its stream after 100 of 1000 bytes")]


def test_who_has_broken_off_may_leave_a_stream_unfinished(rig: Rig) -> None:
    rig.broken_off.append("b aborts")
    rig.a.read(SIZE, 1, True)
    rig.receives(b"")
    assert rig.findings == []


# Completions


@pytest.mark.parametrize("what", ["send", "receive"])
def test_completions_in_another_order(rig: Rig, what: str) -> None:
    rig.a.read(SIZE, 2, True)
    rig.a.send(SIZE)
    rig.a.send(SIZE)
    if what == "send":
        rig.sent(1)
    else:
        rig.receives(pattern("b", 0, SIZE), 1)
    assert rig.findings == [("completion", f"a {what} of a completed out of order, or twice")]


@pytest.mark.parametrize("what", ["send", "receive"])
def test_a_completion_that_comes_twice(rig: Rig, what: str) -> None:
    rig.a.read(SIZE, 1, True)
    rig.a.send(SIZE)
    if what == "send":
        rig.connection.sends *= 2
        rig.sent()
        rig.sent()
    else:
        rig.connection.receives *= 2
        rig.receives(pattern("b", 0, SIZE))
        rig.receives(pattern("b", SIZE, SIZE))
    assert rig.findings == [("completion", f"a {what} of a completed out of order, or twice")]


def test_a_send_of_too_little(rig: Rig) -> None:
    rig.a.send(SIZE)
    rig.sent(short=1)
    assert rig.findings == [("completion", "a send of 100 bytes ended well with 99")]


@pytest.mark.parametrize("what", ["send", "receive", "shutdown"])
def test_a_failure_without_a_cause(what: str) -> None:
    for broken_off in ([], ["b aborts"]):
        rig, error = Rig(), ConnectionResetError("reset")
        rig.broken_off += broken_off
        rig.a.read(SIZE, 1, True)
        rig.a.send(SIZE)
        rig.a.shutdown()
        if what == "send":
            rig.sent(error=error)
        elif what == "receive":
            rig.receives(b"", error=error)
        else:
            rig.connection.shut(SimpleNamespace(error=error))
        assert rig.kinds == ["completion"] * (not broken_off)


def test_a_kernel_s_failure_without_a_cause(rig: Rig) -> None:
    tcp = SimpleNamespace(error=ConnectionResetError("reset"), readable=False, writable=False)
    rig.clock = SimpleNamespace(now=0)  # type: ignore[attr-defined]
    application: Application = KernelApplication(rig, "a", tcp)  # type: ignore[arg-type]
    assert isinstance(application, KernelApplication) and application.wants
    application.run()
    assert rig.kinds == ["completion"]


def test_a_shutdown_that_completes_twice(rig: Rig) -> None:
    rig.a.shutdown()
    rig.connection.shut(SimpleNamespace(error=None))
    assert rig.findings == []
    rig.connection.shut(SimpleNamespace(error=None))
    assert rig.findings == [("completion", "the shutdown of a completed twice")]
