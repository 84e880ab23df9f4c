"""Every state of RFC 9293 from ESTABLISHED on: both families, both roles, down and up, and reset at any moment."""

import errno
import re
import select
import socket
import struct
from pathlib import Path

import pytest

import chimney
from chimney.host.linux import handover
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import TcpState, read_info
from tests.live import states

GUIDE = Path(__file__).parents[2] / "docs" / "network.md"
FAMILIES = pytest.mark.parametrize("family", states.FAMILIES)
RESETTABLE = [state for state in states.STATES if state != "TIME_WAIT"]


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=1) as made:
        yield made


@pytest.mark.parametrize("role", states.ROLES)
@FAMILIES
@pytest.mark.parametrize("move", states.MOVES)
def test_every_state_and_move(lab, stack, move, family, role):
    assert states.run(lab, stack, move, family, role) == dict.fromkeys(states.STATES, "")


def test_the_guide_shows_the_table():
    columns = [(family, role) for family in states.FAMILIES for role in states.ROLES]
    good = {(move, *column): dict.fromkeys(states.STATES, "") for move in states.MOVES for column in columns}
    assert states.table(good) in GUIDE.read_text()


# Resets. What the application sees must be what it would have seen without any hand-over.


def reset(sock):
    """The peer's program dies: its kernel sends an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def shown(sock):
    """What a socket tells its application, in the order of the calls."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    said = [events for _, events in poll.poll(0)]
    calls = [
        lambda: sock.recv(100, socket.MSG_DONTWAIT),
        lambda: sock.recv(100, socket.MSG_DONTWAIT),
        lambda: errno.errorcode.get(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)),
        lambda: sock.recv(100, socket.MSG_DONTWAIT),
        lambda: sock.send(b"x", socket.MSG_NOSIGNAL),
        lambda: sock.shutdown(socket.SHUT_WR),
    ]
    for call in calls:
        try:
            said.append(call())
        except OSError as error:
            said.append(errno.errorcode[error.errno])
    return [*said, TcpState(read_info(sock).state).name]


def without_hand_over(lab, stack, helpers, state, family):
    """The same in the kernel alone."""
    cell = states.Cell(lab, stack, state, "", family, "client")
    cell.bring_about()
    cell.connection.detach()
    reset(cell.theirs)
    helpers.wait_until(lambda: read_info(cell.ours).state == TcpState.CLOSE, "the reset")
    return shown(cell.ours)


@FAMILIES
@pytest.mark.parametrize("state", RESETTABLE)
@pytest.mark.parametrize("when", ["on the way down", "below", "on the way up"])
def test_a_reset_shows_as_it_would_have_in_the_kernel(lab, helpers, stack, monkeypatch, when, state, family):
    expected = without_hand_over(lab, stack, helpers, state, family)
    assert expected[-1] == "CLOSE" and b"heard before " in expected
    cell = states.Cell(lab, stack, state, "", family, "client")
    connection = cell.connection
    cell.bring_about()

    def during(what):
        step = getattr(handover, what)

        def reset_and(*arguments, **named):
            monkeypatch.setattr(handover, what, step)
            # The cover stands: it takes the RST, and the tap has it.
            reset(cell.theirs)
            return step(*arguments, **named)

        monkeypatch.setattr(handover, what, reset_and)

    if when == "on the way down":
        during("dump")
    connection.offload()
    if when == "below":
        reset(cell.theirs)
    if when == "on the way up":
        during("restore")
        connection.upload()
    cell.until(lambda: not connection.offloaded, "it comes up")
    # Nobody has been told yet, unless something was posted.
    told = [request.error for request in (*connection.sends,) if request.error]
    assert not told
    connection.detach()
    helpers.wait_until(lambda: read_info(cell.ours).state == TcpState.CLOSE, "the reset")
    assert shown(cell.ours) == expected


@FAMILIES
def test_a_reset_in_time_wait_changes_nothing(lab, stack, family):
    """RFC 1337: the connection is over; who waits for stray segments goes on waiting."""
    cell = states.Cell(lab, stack, "TIME_WAIT", "up", family, "client")
    cell.carry_out()
    reset(cell.theirs)
    assert cell.connection.recv(100) == b"heard before " and cell.connection.recv(100) == b""
    assert cell.ours.getsockopt(socket.SOL_SOCKET, so.SO_ERROR) == 0


def test_the_names_of_the_states_are_the_documents():
    assert re.findall(r"[A-Z_0-9]+", " ".join(states.STATES)) == list(states.STATES)
