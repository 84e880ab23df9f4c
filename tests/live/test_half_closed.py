"""Connections out of the kernel and back after a FIN or RST, in every state that they can be in then."""

import dataclasses
import errno
import socket

import pytest

from chimney.conformance.wire import ip_packet
from chimney.host.linux import handover, inject
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import TcpState, size_of
from chimney.lab.firewall import Block

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
ROLES = pytest.mark.parametrize("role", ["client", "server"])


def give_back(placeholder, **changes):
    """Back into the kernel, changed; nothing may be left over."""
    returned = placeholder.give_back(dataclasses.replace(placeholder.state, **changes))
    assert not returned.unsent and not returned.fin_pending


@FAMILIES
@ROLES
def test_the_peer_has_closed(lab, helpers, family, role):
    ours, theirs = lab.connect(family, role)
    theirs.sendall(b"last")
    theirs.shutdown(socket.SHUT_WR)
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE_WAIT, "the peer's FIN")
    placeholder = handover.take(ours, lab.device)
    assert placeholder.state.state is TcpState.CLOSE_WAIT
    assert b"".join(placeholder.state.receive_queue) == b"last"
    lab.tap.drain()
    give_back(placeholder)
    assert helpers.state_of(ours) is TcpState.CLOSE_WAIT
    # The FIN has been acknowledged already: nothing takes that back.
    said = [packet.ack for packet in lab.tap.drain() if packet.outgoing]
    assert set(said) <= {placeholder.state.rcv_nxt}
    assert ours.recv(100) == b"last" and ours.recv(100) == b""
    ours.sendall(helpers.pattern(100_000))
    assert helpers.receive(theirs, 100_000) == helpers.pattern(100_000)
    ours.shutdown(socket.SHUT_WR)
    assert theirs.recv(1) == b""
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE, "the peer's last acknowledgement")
    assert not lab.tap.resets()


@FAMILIES
@ROLES
def test_we_have_closed_and_the_peer_knows(lab, helpers, family, role):
    ours, theirs = lab.connect(family, role)
    ours.sendall(b"last")
    ours.shutdown(socket.SHUT_WR)
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.FIN_WAIT2, "the acknowledgement of our FIN")
    placeholder = handover.take(ours, lab.device)
    assert placeholder.state.state is TcpState.FIN_WAIT2 and not placeholder.state.send_queue
    give_back(placeholder)
    assert helpers.state_of(ours) is TcpState.FIN_WAIT2
    theirs.sendall(helpers.pattern(100_000))
    assert helpers.receive(ours, 100_000) == helpers.pattern(100_000)
    assert helpers.receive(theirs, 4) == b"last" and theirs.recv(1) == b""
    theirs.close()
    assert ours.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        ours.send(b"too late")
    lab.tap.drain()
    assert not lab.tap.resets()


@FAMILIES
@pytest.mark.parametrize("simultaneous", [False, True], ids=["FIN_WAIT1", "CLOSING"])
def test_our_fin_is_on_its_way(lab, helpers, family, simultaneous):
    ours, theirs = lab.connect(family)
    deaf = Block(lab.peer, theirs.getsockname()[1])
    ours.sendall(b"last")
    ours.shutdown(socket.SHUT_WR)
    expected = TcpState.FIN_WAIT1
    if simultaneous:
        theirs.shutdown(socket.SHUT_WR)
        expected = TcpState.CLOSING
    helpers.wait_until(lambda: helpers.state_of(ours) is expected, expected.name)
    placeholder = handover.take(ours, lab.device)
    assert placeholder.state.state is expected
    assert b"".join(placeholder.state.send_queue) == b"last"
    give_back(placeholder)
    assert helpers.state_of(ours) is expected
    deaf.remove()
    assert helpers.receive(theirs, 4) == b"last" and theirs.recv(1) == b""
    if not simultaneous:
        theirs.sendall(b"answer")
        assert helpers.receive(ours, 6) == b"answer"
        theirs.close()
    assert ours.recv(1) == b""
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE, "the end")
    lab.tap.drain()
    assert not lab.tap.resets()


@pytest.mark.parametrize("peer_closed", [False, True], ids=["FIN_WAIT1", "LAST_ACK"])
def test_more_in_flight_before_our_fin_than_a_fresh_congestion_window(lab, helpers, peer_closed):
    """The peer has everything, and says so as soon as it is heard again: the kernel must know of its own FIN."""
    ours, theirs = lab.connect()
    warm = helpers.pattern(4 << 20)
    sending = helpers.Sending(ours, warm)
    assert helpers.receive(theirs, len(warm)) == warm
    sending.join()
    if peer_closed:
        theirs.shutdown(socket.SHUT_WR)
        helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE_WAIT, "the peer's FIN")
    helpers.wait_until(lambda: not so.queue_length(ours.fileno(), so.SIOCOUTQ), "all acknowledgements")
    deaf = Block(lab.host, ours.getsockname()[1])
    ours.sendall(helpers.pattern(60_000))
    ours.shutdown(socket.SHUT_WR)
    assert helpers.receive(theirs, 60_000) == helpers.pattern(60_000) and theirs.recv(1) == b""
    placeholder = handover.take(ours, lab.device)
    state = placeholder.state
    lab.tap.drain()
    said = inject.segment(state.remote, state.local, state.rcv_nxt, state.write_seq, inject.ACK, 1000)
    deaf.remove()
    placeholder.give_back(
        dataclasses.replace(state, snd_nxt=state.write_seq),
        lambda: [ip_packet(state.remote.address, state.local.address, said)],
    )
    assert helpers.state_of(ours) is (TcpState.CLOSE if peer_closed else TcpState.FIN_WAIT2)
    assert not lab.tap.resets()


@FAMILIES
@pytest.mark.parametrize("peer_closed", [False, True], ids=["FIN_WAIT1", "LAST_ACK"])
def test_the_peer_resets_it_while_our_fin_is_on_its_way_back(lab, helpers, family, peer_closed):
    """The reset is among what arrived meanwhile."""
    ours, theirs = lab.connect(family)
    if peer_closed:
        theirs.shutdown(socket.SHUT_WR)
        helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE_WAIT, "the peer's FIN")
    deaf = Block(lab.peer, theirs.getsockname()[1])
    ours.shutdown(socket.SHUT_WR)
    placeholder = handover.take(ours, lab.device)
    state = placeholder.state
    assert state.state is (TcpState.LAST_ACK if peer_closed else TcpState.FIN_WAIT1)
    said = inject.segment(state.remote, state.local, state.rcv_nxt, 0, inject.RST)
    placeholder.give_back(state, lambda: [ip_packet(state.remote.address, state.local.address, said)])
    assert helpers.state_of(ours) is TcpState.CLOSE
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    deaf.remove()


@FAMILIES
def test_both_have_closed_and_our_fin_is_on_its_way(lab, helpers, family):
    ours, theirs = lab.connect(family)
    theirs.shutdown(socket.SHUT_WR)
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE_WAIT, "the peer's FIN")
    deaf = Block(lab.peer, theirs.getsockname()[1])
    ours.sendall(b"last")
    ours.shutdown(socket.SHUT_WR)
    assert helpers.state_of(ours) is TcpState.LAST_ACK
    placeholder = handover.take(ours, lab.device)
    give_back(placeholder)
    assert helpers.state_of(ours) is TcpState.LAST_ACK
    deaf.remove()
    assert helpers.receive(theirs, 4) == b"last" and theirs.recv(1) == b""
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE, "the peer's last acknowledgement")
    lab.tap.drain()
    assert not lab.tap.resets()


@FAMILIES
@pytest.mark.parametrize("state", [TcpState.TIME_WAIT, TcpState.CLOSE])
def test_the_engine_has_finished(lab, helpers, family, state):
    ours, theirs = lab.connect(family)
    theirs.sendall(b"unread")
    helpers.wait_until(lambda: so.queue_length(ours.fileno(), so.SIOCINQ) == 6, "the peer's data")
    placeholder = handover.take(ours, lab.device)
    before = placeholder.state
    # As if an engine had exchanged both FINs: each counts 1.
    end = (before.write_seq + 1) % 2**32
    give_back(
        placeholder,
        state=state,
        snd_una=end,
        snd_nxt=end,
        write_seq=end,
        rcv_nxt=(before.rcv_nxt + 1) % 2**32,
        rcv_wup=(before.rcv_nxt + 1) % 2**32,
    )
    assert helpers.state_of(ours) is TcpState.CLOSE
    assert ours.recv(100) == b"unread" and ours.recv(100) == b""
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@FAMILIES
@pytest.mark.parametrize("closed", [False, True], ids=["ESTABLISHED", "CLOSE_WAIT"])
@pytest.mark.parametrize(
    "error", [errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH]
)
def test_it_has_ended_by_an_error(lab, helpers, family, closed, error):
    """Whatever is unread comes first, then the end of the stream if it had ended, then the error, once."""
    ours, theirs = lab.connect(family)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
    ours.setsockopt(socket.SOL_SOCKET, so.SO_ATTACH_FILTER, so.assemble((0x06, 0, 0, 0x40000)).program)
    own_filter = so.read_filter(ours.fileno()).instructions
    theirs.sendall(b"unread")
    if closed:
        theirs.shutdown(socket.SHUT_WR)
    helpers.wait_until(lambda: so.queue_length(ours.fileno(), so.SIOCINQ) == 6, "the peer's data")
    expected = TcpState.CLOSE_WAIT if closed else TcpState.ESTABLISHED
    helpers.wait_until(lambda: helpers.state_of(ours) is expected, expected.name)
    placeholder = handover.take(ours, lab.device)
    returned = placeholder.give_back(dataclasses.replace(placeholder.state, error=error))
    if returned.dying is not None:
        returned.dying.wait(ours)
    assert helpers.state_of(ours) is TcpState.CLOSE
    assert ours.recv(100) == b"unread"
    shown = error if closed or error != errno.EPIPE else errno.ECONNRESET
    if closed:
        assert ours.recv(100) == b""
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == shown
    else:
        with pytest.raises(OSError) as raised:
            ours.recv(100)
        assert raised.value.errno == shown
    # What ICMP has said stays beside the error that it became.
    again = error if error == errno.EHOSTUNREACH else 0
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == again
    assert ours.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        ours.send(b"too late")
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
    assert so.read_filter(ours.fileno()).instructions == own_filter
    # What leaves while it ends brings the peer nothing.
    theirs.setblocking(False)
    with pytest.raises((BlockingIOError, ConnectionResetError)):
        theirs.recv(100)


def test_a_fin_behind_bytes_that_do_not_fit(lab, helpers):
    ours, theirs = lab.connect()
    placeholder = handover.take(ours, lab.device)
    before = placeholder.state
    data = helpers.pattern(4 << 20)
    # The application has closed; the engine has sent none of this yet.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    returned = placeholder.give_back(
        dataclasses.replace(
            before,
            state=TcpState.FIN_WAIT1,
            send_queue=[memoryview(data)],
            write_seq=(before.snd_una + len(data) + 1) % 2**32,
        )
    )
    assert returned.fin_pending and 0 < size_of(returned.unsent) < len(data)
    sending = helpers.Sending(ours, b"".join(returned.unsent))
    assert helpers.receive(theirs, len(data)) == data
    sending.join()
    ours.shutdown(socket.SHUT_WR)
    assert theirs.recv(1) == b""


def test_a_fin_behind_bytes_never_sent(lab, helpers):
    ours, theirs = lab.connect()
    placeholder = handover.take(ours, lab.device)
    before = placeholder.state
    give_back(
        placeholder,
        state=TcpState.FIN_WAIT1,
        send_queue=[memoryview(b"never "), memoryview(b"sent")],
        write_seq=(before.snd_una + 11) % 2**32,
    )
    assert helpers.receive(theirs, 10) == b"never sent" and theirs.recv(1) == b""


@FAMILIES
def test_a_fin_in_a_closed_window(lab, helpers, family):
    ours, theirs = lab.connect(family)
    theirs.sendall(helpers.pattern(30_000))
    theirs.shutdown(socket.SHUT_WR)
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE_WAIT, "the peer's FIN")
    placeholder = handover.take(ours, lab.device)
    give_back(placeholder, rcv_wnd=0, rcv_wup=placeholder.state.rcv_nxt)
    assert helpers.receive(ours, 30_000) == helpers.pattern(30_000) and ours.recv(1) == b""
