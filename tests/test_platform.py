"""What a stack stands on: waiting for descriptors and for a time."""

import errno
import socket
import time
from types import SimpleNamespace

import pytest

from chimney.platform import LinuxPlatform


@pytest.fixture
def platform():
    made = LinuxPlatform()
    yield made
    made.close()


@pytest.fixture
def ends():
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_ready_descriptors_are_told_as_long_as_they_are(platform, ends):
    here, there = ends
    platform.interest(here.fileno(), True, False)
    assert platform.wait(0.0) == []
    there.send(b"x")
    assert platform.wait(None) == platform.wait(None) == [here.fileno()]
    here.recv(1)
    assert platform.wait(0.0) == []


def test_interest_can_change_and_end(platform, ends):
    here, there = ends
    there.send(b"x")
    platform.interest(here.fileno(), True, True)
    platform.interest(here.fileno(), False, True)
    there.close()
    for _ in range(2):
        platform.interest(here.fileno(), False, False)
        assert platform.wait(0.0) == []


def test_a_deadline_ends_the_waiting(platform):
    started = platform.clock()
    platform.arm(started + 3_000)
    platform.arm(started + 3_600_000_000)
    assert platform.wait(60.0) == []
    assert 3_000 <= platform.clock() - started < 30_000_000
    platform.arm(platform.clock() + 3_600_000_000)
    assert platform.wait(0.0) == []


def test_a_deadline_that_has_passed_is_due_now(platform):
    platform.arm(0)
    assert platform.wait(60.0) == []


def test_others_can_wait_for_the_platform(platform, ends):
    here, there = ends
    outer = LinuxPlatform()
    outer.interest(platform.fileno(), True, False)
    platform.interest(here.fileno(), True, False)
    assert outer.wait(0.0) == []
    there.send(b"x")
    assert outer.wait(None) == [platform.fileno()]
    outer.close()


def test_the_clock_is_the_timers(platform):
    before = time.monotonic_ns() // 1000
    assert before <= platform.clock() <= time.monotonic_ns() // 1000


def test_there_is_room(platform):
    receive, send = platform.room()
    assert receive > 0 and send > 0


def test_a_link_needs_its_interface(platform):
    with pytest.raises(OSError):
        platform.open_link("nowhere0")


def test_what_cannot_be_heard_as_a_whole_is_not_listened_to(platform, monkeypatch):
    opened = []

    class Source:
        def __init__(self):
            opened.append(self)

        def close(self):
            opened.remove(self)

    def full():
        assert len(opened) == 3
        raise OSError(errno.EMFILE, "too many open files")

    for name in ("LinuxNetwork", "IcmpSockets", "LinuxFirewall"):
        monkeypatch.setattr(f"chimney.platform.{name}", Source)
    monkeypatch.setattr("chimney.platform.RawSockets", full)
    services = SimpleNamespace(on_adapter=[], clock=lambda: 0)
    with pytest.raises(OSError, match="too many"):
        platform.listeners(services)
    assert opened == services.on_adapter == []
