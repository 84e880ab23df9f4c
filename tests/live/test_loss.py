"""Transfers over paths that lose, delay, reorder and duplicate: every byte once and in order, both ways, while the
connection goes down and comes up.
"""

import functools
import socket

import pytest

import chimney
from chimney.lab.firewall import counters
from chimney.lab.path import RelayedPath, RoutedPath
from chimney.lab.relay import Behaviour
from tests.live.traffic import Traffic, cycle

PATHS = {
    "segments": (functools.partial(RoutedPath, loss=3.0), 1_500_000),
    "super-segments": (functools.partial(RoutedPath, loss=3.0, super_segments=True), 6_000_000),
    "much loss": (functools.partial(RoutedPath, loss=6.0), 150_000),
    "reordered": (functools.partial(RelayedPath, Behaviour(delay=0.002, late=0.05, late_by=0.005)), 1_000_000),
    "shuffled": (functools.partial(RelayedPath, Behaviour(jitter=0.02)), 400_000),
    "duplicated": (functools.partial(RelayedPath, Behaviour(delay=0.002, duplicate=0.1)), 1_000_000),
    "everything": (functools.partial(RelayedPath, Behaviour(jitter=0.01, duplicate=0.05, loss=0.01)), 300_000),
}


@pytest.fixture
def connect(make_lab):
    """A function that joins two sockets over a path: ours and theirs."""
    opened = []

    def join(path):
        opened.append(path)
        with path.host:
            listener = socket.create_server((path.address, 0))
        theirs = path.peer.socket()
        opened.append(theirs)
        # A SYN may be lost.
        theirs.settimeout(20)
        theirs.connect(listener.getsockname())
        theirs.settimeout(None)
        ours, _ = listener.accept()
        opened.append(ours)
        listener.close()
        return ours, theirs

    yield join
    for thing in reversed(opened):
        thing.close()


@pytest.mark.parametrize("name", PATHS)
def test_every_byte_arrives_once_and_in_order(connect, helpers, name):
    make, size = PATHS[name]
    path = make()
    ours, theirs = connect(path)
    outgoing, incoming = helpers.pattern(size), helpers.pattern(size, 1 << 32)
    sending = helpers.Sending(theirs, incoming)
    received = helpers.Receiving(theirs, size)
    with path.host, chimney.Stack() as stack:
        connection = stack.connection(ours)
        traffic = Traffic(connection, outgoing, block=size // 30)
        cycle(stack, connection, traffic, 2, size // 8)
        connection.offload()
        traffic.rest(stack, size, limit=60.0)
        assert traffic.incoming == incoming
        assert received.join() == outgoing
        sending.join()
        assert connection.info().offloads == 3


def test_the_router_loses(connect, helpers):
    # With much more the kernel's time-outs may double beyond what helpers.receive waits for.
    path = RoutedPath(loss=3.0)
    ours, theirs = connect(path)
    sending = helpers.Sending(ours, bytes(1_000_000))
    helpers.receive(theirs, 1_000_000)
    sending.join()
    assert counters(path.router, "lab_path")["lost"].packets > 0
