"""An attempt happens elsewhere, leaves nothing behind, and always ends."""

import os
import signal
import socket
import time

import pytest

from chimney.cli.sandbox import Refused, attempt


def name_of_namespace():
    return os.readlink("/proc/self/ns/net")


def test_an_attempt_runs_in_a_network_namespace_of_its_own():
    assert attempt(name_of_namespace) not in ("", name_of_namespace())


def test_loopback_is_up():
    def connect():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
            return "connected"

    assert attempt(connect) == "connected"


def test_an_error_is_told_with_its_words():
    def fail():
        raise OSError(1, "not today")

    with pytest.raises(Refused, match=r"PermissionError: \[Errno 1\] not today"):
        attempt(fail)


def test_an_attempt_that_hangs_is_ended():
    started = time.monotonic()
    with pytest.raises(Refused, match="no answer within 0.2 s"):
        attempt(signal.pause, seconds=0.2)
    assert time.monotonic() - started < 5


def test_an_attempt_that_dies_is_noticed():
    with pytest.raises(Refused, match="ended without an answer"):
        attempt(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_no_descriptor_and_no_child_is_left():
    before = os.listdir("/proc/self/fd")
    attempt(name_of_namespace)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
