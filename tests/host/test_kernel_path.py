"""The ordinary path after an upload: what the kernel has got with it is not done again."""

from __future__ import annotations

import socket

import pytest

from chimney.host.connection import Connection
from chimney.ndis.status import TcpConnectionState
from tests.host.scripted import ISS, ScriptedStack


@pytest.fixture
def stack():
    return ScriptedStack()


@pytest.fixture
def connection(stack):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(stack, ours, stack.kernel)


@pytest.mark.parametrize(
    ("state", "in_flight", "asked"),
    [
        (TcpConnectionState.ESTABLISHED, 0, True),
        (TcpConnectionState.CLOSE_WAIT, 0, True),
        (TcpConnectionState.FIN_WAIT_1, 1, False),
        (TcpConnectionState.FIN_WAIT_2, 0, False),
        (TcpConnectionState.CLOSING, 1, False),
        (TcpConnectionState.LAST_ACK, 1, False),
    ],
)
def test_a_fin_that_an_upload_gave_the_kernel_is_not_asked_for_again(stack, connection, state, in_flight, asked):
    connection.offload()
    shutdown = connection.shutdown()
    stack.target.final = {"state": state, "snd_una": ISS, "snd_max": ISS + in_flight}
    connection.upload()
    stack.poll()
    assert shutdown.done and shutdown.error is None and stack.kernel.shut is asked


def test_a_send_that_an_upload_gave_the_kernel_does_not_go_down_again(stack, connection):
    """It is done before the next offload, though its path has not had a turn."""
    connection.offload()
    done = []
    send = connection.post_send(b"sent", done.append)
    stack.target.final = {"snd_una": ISS, "snd_max": ISS + 4}
    connection.upload()
    assert b"".join(stack.kernel.given[0].sent) == b"sent"
    connection.offload()
    assert done == [send] and send.error is None and send.bytes_transferred == 4
    assert not stack.target.sends


def test_a_request_of_a_failed_connection_ends_once(stack, connection):
    """It was posted before the upload that ends all of them."""
    connection.offload()
    ended = []
    connection.post_send(b"x", ended.append)
    connection.error = ConnectionResetError("the connection was reset")
    for _ in range(2):
        connection.post_receive(bytearray(1), ended.append)
    connection.post_send(b"y", ended.append)
    connection.shutdown(ended.append)
    stack.target.final = {"state": TcpConnectionState.CLOSED}
    connection.upload()
    stack.poll()
    stack.poll()
    assert len(ended) == len(set(map(id, ended))) == 5
    assert all(request.done and request.error is not None for request in ended)
