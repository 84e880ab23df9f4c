"""A host that is busy while its peer closes answers late, but not more often than one that answers at once."""

import socket

import pytest

import chimney

BOTH = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=1) as made:
        yield made


@pytest.fixture
def half_closed(lab, helpers, stack):
    """Makes an offloaded connection whose sending half is closed: it, what lets the peer close, and what waits until
    the peer has repeated its FIN."""

    def make(family):
        ours, theirs = lab.connect(family)
        connection = stack.connection(ours)
        connection.offload()
        shutdown = connection.shutdown()
        while not shutdown.done:
            stack.poll(1)

        def close():
            # Linux repeats a FIN within milliseconds if data before it is not acknowledged either.
            theirs.sendall(b"last words")
            theirs.close()

        def repeated():
            helpers.wait_until(lambda: lab.heard(ours)[1].fins > 1, "the FIN again")

        return connection, close, repeated

    return make


@BOTH
def test_a_fin_that_is_repeated_before_it_is_answered(lab, stack, half_closed, family):
    connection, close, repeated = half_closed(family)
    words = connection.post_receive(bytearray(100))
    end = connection.post_receive(bytearray(1), lambda request: repeated())
    close()
    while not end.done:
        stack.poll(1)
    assert words.bytes_transferred == 10 and not end.bytes_transferred
    connection.close()
    assert lab.resets() == 0


@BOTH
def test_a_fin_that_is_repeated_during_the_upload(lab, half_closed, family, monkeypatch):
    connection, close, repeated = half_closed(family)
    give_back = connection._kernel.give_back

    def late(*arguments):
        close()
        repeated()
        give_back(*arguments)

    monkeypatch.setattr(connection._kernel, "give_back", late)
    connection.upload()
    assert connection.recv(100) == b"last words" and connection.recv(1) == b""
    connection.close()
    assert lab.resets() == 0
