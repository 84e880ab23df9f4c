"""Orders of calls that once went wrong; most were found by the machine in `test_api_machine`."""

from __future__ import annotations

import pytest

from chimney.host.connection import Owner
from chimney.host.errors import ChimneyError
from chimney.sim.case import Case, Host
from tests.sim.api_model import CallbackFailure, any_world


class Orders:
    """Side a's application, its connection, and its peer."""

    def __init__(self, seed: int = 0) -> None:
        self.world, self.application = any_world(Case(seed=seed, a=Host(chimney=True), grace_us=1 << 61))
        self.connection, self.stack = self.application.connection, self.application.stack
        self.peer = self.world.applications["b"]
        self.peer.read(5000, 1, True)

    def time(self, ms: int) -> None:
        until = self.world.clock.now + ms * 1000
        while self.world.step(until):
            pass

    def peer_does(self, act) -> None:
        self.world.busily("b", act)
        self.world.machines["b"].flush()
        self.time(5)

    def poll(self) -> None:
        self.stack.poll(0.0)


@pytest.fixture
def orders():
    return Orders()


def fails(request):
    raise CallbackFailure("a slip of the application's")


def test_a_receive_that_is_done_at_once_has_its_callbacks_hand_over_carried_out_later(orders):
    connection = orders.connection
    connection.offload()
    orders.peer_does(orders.peer.shutdown)
    seen = []

    def callback(request):
        connection.upload()
        seen.append(connection.owner)

    connection.post_receive(bytearray(10), callback)
    orders.poll()
    assert seen == [Owner.TARGET] and connection.owner is Owner.KERNEL


def test_poll_is_refused_in_every_callback(orders):
    connection = orders.connection
    refused = []

    def callback(request):
        with pytest.raises(ChimneyError, match="inside a request's callback"):
            orders.stack.poll()
        with pytest.raises(ChimneyError, match="inside a request's callback"):
            orders.stack.close()
        refused.append(True)

    connection.post_receive(bytearray(10), callback)
    connection.abort()
    assert refused


def test_a_blocking_call_that_is_refused_in_a_callback_leaves_no_request(orders):
    connection = orders.connection
    got = []

    def callback(request):
        with pytest.raises(ChimneyError):
            connection.recv(1000)
        with pytest.raises(ChimneyError):
            connection.sendall(b"nobody wants this to be sent")
        got.append(request.bytes_transferred)

    connection.post_receive(bytearray(10), callback)
    orders.peer_does(lambda: orders.peer.send(100))
    orders.poll()
    assert got == [10]
    assert len(connection.recv(1000)) == 90 and not connection.sends


@pytest.mark.parametrize("offloaded", [False, True])
def test_abort_ends_every_request_whatever_callbacks_raise(orders, offloaded):
    connection = orders.connection
    if offloaded:
        connection.offload()
    requests = [
        connection.post_send(b"x" * 200_000, fails),
        connection.post_send(b"y", fails),
        connection.post_receive(bytearray(10), fails),
        connection.shutdown(),
    ]
    with pytest.raises(BaseExceptionGroup):
        connection.abort()
    assert [type(request.error) for request in requests] == [ConnectionAbortedError] * 4


def test_abort_in_a_callback_waits_for_its_end(orders):
    connection = orders.connection
    connection.offload()
    states = []

    def callback(request):
        connection.abort()
        connection.abort()
        states.append(connection.post_send(b"before the end").done)

    first = connection.post_send(b"x", callback)
    orders.time(5)
    orders.poll()
    assert first.done and states == [False] and not connection.sends
    assert connection.owner is Owner.KERNEL and isinstance(connection.error, ConnectionAbortedError)


@pytest.mark.parametrize("end", ["detach", "close", "the stack's"])
def test_what_is_posted_on_a_failed_connection_is_done_when_it_has_been_given_back(orders, end):
    connection = orders.connection
    connection.abort()
    requests = [connection.post_send(b"x"), connection.post_receive(bytearray(1)), connection.shutdown()]
    if end == "the stack's":
        orders.stack.close()
    else:
        getattr(connection, end)()
    assert all(isinstance(request.error, ConnectionAbortedError) for request in requests)


def test_sends_that_are_done_keep_nobody_from_detaching(orders):
    connection = orders.connection
    send = connection.post_send(b"x")
    orders.poll()
    assert send.done
    connection.offload()
    connection.detach()
    assert connection.owner is Owner.APPLICATION


@pytest.mark.parametrize("end", ["detach", "the stack's"])
@pytest.mark.parametrize("seed", range(4))
def test_sends_that_are_done_are_sent_whoever_ends_the_connection(seed, end):
    orders = Orders(seed)
    connection = orders.connection
    orders.peer_does(lambda: orders.peer.read(5000, 0, True))
    sends = [connection.post_send(orders.application.next_bytes(60_000)) for _ in range(2)]
    orders.time(5)
    assert all(send.done for send in sends), "they are in the kernel's queue, and the peer's window is full"
    connection.offload()
    if end == "detach":
        connection.detach()
    else:
        orders.stack.close()
    orders.peer_does(lambda: orders.peer.read(5000, 1, True))
    orders.time(2000)
    assert orders.peer.received == 120_000


def test_a_stack_whose_callbacks_raise_while_it_closes_is_closed_all_the_same(orders):
    connection = orders.connection
    connection.offload()
    connection.post_receive(bytearray(1), fails)
    with pytest.raises(CallbackFailure):
        orders.stack.close()
    assert connection.owner is Owner.APPLICATION and not orders.world.machines["a"].taps


def test_a_closed_stack_says_so(orders):
    orders.stack.close()
    orders.stack.close()
    with pytest.raises(ChimneyError, match="has been closed"):
        orders.stack.poll()
    with pytest.raises(ChimneyError, match="has been closed"):
        orders.stack.connection(orders.application.sock)
