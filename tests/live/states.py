"""Every state of RFC 9293 (3.3.2) from ESTABLISHED on, brought about on both sides of the hand-over, and moved.

`python -m tests.live.states` prints the table of docs/network.md. Each cell is a live connection to an unmodified
kernel, brought into its state, moved, looked at, and brought to its end, with data that is unread or in flight then.
A peer that must not answer for a while has a filter that drops all.
"""

from __future__ import annotations

import socket
import time

import chimney
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import TcpState, endpoint_of, read_info
from chimney.lab.tap import RST
from chimney.tcp.state import State

FAMILIES = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}
ROLES = ("client", "server")
MOVES = ("down", "up", "down and up", "down, up, down")
STATES = ("ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT")
REFUSED = {("TIME_WAIT", move) for move in MOVES if move.startswith("down")}
"""The kernel has no socket in TIME-WAIT: there is nothing that could be handed over, and that is what is said."""
WE_HAVE_SHUT = ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "LAST_ACK", "TIME_WAIT")
THE_PEER_HAS_SHUT = ("CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT")
_KERNELS = {"FIN_WAIT_1": "FIN_WAIT1", "FIN_WAIT_2": "FIN_WAIT2", "TIME_WAIT": "CLOSE"}
_DEADLINE = 15.0


class Cell:
    """One connection on its way through its state: (state, move, family, role)."""

    def __init__(self, lab, stack, state, move, family, role):
        self.lab, self.stack, self.state, self.move = lab, stack, state, move
        self.ours, self.theirs = lab.connect(FAMILIES[family], role)
        self.connection = stack.connection(self.ours)
        self.heard = bytearray()
        self.sent = b""
        self.expected = b""
        self.local_port = endpoint_of(self.ours.getsockname()).port

    # Where it is

    def now(self):
        """The state that the owner has."""
        if not self.connection.offloaded:
            return TcpState(read_info(self.ours).state).name
        below = self.connection.adapter.target.connections.values()
        [tcp] = [tcp for tcp in below if tcp.flow.local_port == self.local_port]
        return State(tcp.engine.state).name

    def is_in(self, state):
        return self.now() in (state, _KERNELS.get(state))

    def until(self, condition, what):
        end = time.monotonic() + _DEADLINE
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {_DEADLINE} s; it is in {self.now()}"
            self.stack.poll(0.001)

    def reaches(self, state):
        self.until(lambda: self.is_in(state), state)

    # What happens to it

    def deafen(self):
        self.theirs.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.DROP_ALL.program)

    def peer_says(self, data):
        self.theirs.sendall(data)
        self.expected += data

    def say(self, data):
        self.connection.post_send(data)
        self.sent += data

    def bring_about(self):
        """The state, where the connection is now; every one with something unread, and with something in flight if
        the peer must not answer.
        """
        state = self.state
        self.say(b"said before ")
        self.peer_says(b"heard before ")
        if state in ("CLOSE_WAIT", "LAST_ACK"):
            self.theirs.shutdown(socket.SHUT_WR)
            # What is unread keeps the target from telling of it: its engine knows.
            self.reaches("CLOSE_WAIT")
        if state in ("FIN_WAIT_1", "CLOSING", "LAST_ACK"):
            self.until(lambda: not self.in_flight(), "everything is acknowledged")
            self.deafen()
            self.say(b"in flight ")
        if state in WE_HAVE_SHUT:
            self.connection.shutdown()
            reached = {"LAST_ACK": "LAST_ACK", "FIN_WAIT_1": "FIN_WAIT_1", "CLOSING": "FIN_WAIT_1"}
            self.reaches(reached.get(state, "FIN_WAIT_2"))
        if state in ("CLOSING", "TIME_WAIT"):
            self.theirs.shutdown(socket.SHUT_WR)
        self.reaches(state)
        if not self.connection.offloaded:
            self.until(lambda: not self.connection.sends, "the kernel has everything")

    def in_flight(self):
        if self.connection.offloaded:
            return bool(self.connection.sends)
        return so.queue_length(self.ours.fileno(), so.SIOCOUTQ)

    def carry_out(self):
        """Move it; raises AssertionError if it does not arrive in the state that it has left."""
        connection = self.connection
        if self.move == "up":
            connection.offload()
        self.bring_about()
        for move in self.move.replace(" and", ",").split(", "):
            (connection.offload if move == "down" else connection.upload)()
            assert connection.offloaded == (move == "down"), f"it is not {move}"
            assert self.is_in(self.state), f"moved {move} it is in {self.now()}"
        if self.state == "TIME_WAIT":
            assert self.lab_has_time_wait(), "the kernel does not wait for what is still on its way"

    def lab_has_time_wait(self):
        """Whether the kernel holds the four-tuple in TIME-WAIT (proc(5): state 06)."""
        local = f":{self.local_port:04X}"
        name = "/proc/thread-self/net/tcp" + ("6" if self.ours.family == socket.AF_INET6 else "")
        with open(name) as table:
            return any(line.split()[1].endswith(local) and line.split()[3] == "06" for line in table.readlines()[1:])

    def go_on(self):
        """Let both sides say what they still can, and close."""
        state = self.state
        if state in ("FIN_WAIT_1", "CLOSING", "LAST_ACK"):
            self.theirs.setsockopt(so.SOL_SOCKET, so.SO_DETACH_FILTER, 0)
        if state not in THE_PEER_HAS_SHUT:
            self.peer_says(b"heard afterwards")
        if state not in WE_HAVE_SHUT:
            self.say(b"said afterwards")
            self.connection.shutdown()
        if state not in THE_PEER_HAS_SHUT:
            self.theirs.shutdown(socket.SHUT_WR)

    def check(self):
        """Both streams have come to their ends, and nobody was reset."""
        while part := self.connection.recv(1 << 16):
            self.heard += part
        assert self.heard == self.expected, f"{bytes(self.heard)!r} has been heard"
        said = bytearray()
        self.theirs.setblocking(False)
        while True:
            try:
                part = self.theirs.recv(1 << 16)
            except BlockingIOError:
                self.stack.poll(0.001)
                continue
            if not part:
                break
            said += part
        assert said == self.sent, f"the peer has heard {bytes(said)!r}"
        self.until(lambda: not self.connection.sends and self.connection.shutdown_request.done, "the end")
        assert self.connection.error is None and self.connection.shutdown_request.error is None
        self.until(lambda: read_info(self.theirs).state == TcpState.CLOSE, "the peer's end")
        assert self.ours.getsockopt(so.SOL_SOCKET, so.SO_ERROR) == 0


def run(lab, stack, move, family, role):
    """All states with one move, side by side: what became of each, "" if all is well."""
    found = {}
    cells = {}
    for state in STATES:
        cell = Cell(lab, stack, state, move, family, role)
        try:
            if (state, move) in REFUSED:
                found[state] = _is_refused(cell)
                cell.connection.close()
                continue
            cell.carry_out()
            cells[state] = cell
        except (AssertionError, chimney.ChimneyError, OSError) as problem:
            found[state] = str(problem) or repr(problem)
    for cell in cells.values():
        cell.go_on()
    for state, cell in cells.items():
        try:
            cell.check()
            found[state] = ""
        except (AssertionError, chimney.ChimneyError, OSError) as problem:
            found[state] = str(problem) or repr(problem)
        cell.connection.close()
    resets = [{packet.source[1], packet.destination[1]} for packet in lab.tap.drain() if packet.flags & RST]
    for state, cell in cells.items():
        if any(cell.local_port in ports for ports in resets):
            found[state] = found[state] or "somebody was reset"
    return {state: found[state] for state in STATES}


def _is_refused(cell):
    cell.bring_about()
    try:
        cell.connection.offload()
    except chimney.NotOffloadable as refusal:
        assert "has ended" in str(refusal), str(refusal)
        return ""
    return "it was offloaded"


def table(results):
    """A Markdown table of {(move, family, role): {state: problem}}."""
    columns = [(family, role) for family in FAMILIES for role in ROLES]
    lines = [
        "| state | move | " + " | ".join(f"{family}, {role}" for family, role in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for state in STATES:
        for move in MOVES:
            cells = [results[move, *column][state] for column in columns]
            good = "refused" if (state, move) in REFUSED else "✓"
            lines.append(f"| {state} | {move} | " + " | ".join(cell or good for cell in cells) + " |")
    return "\n".join(lines)


def main():
    """Print the table."""
    import contextlib

    from tests.live.conftest import Laboratory

    with contextlib.ExitStack() as stack:
        lab = Laboratory(stack)
        made = stack.enter_context(chimney.Stack(intermediate_drivers=1))
        every = [(move, family, role) for move in MOVES for family in FAMILIES for role in ROLES]
        print(table({each: run(lab, made, *each) for each in every}))


if __name__ == "__main__":
    main()
