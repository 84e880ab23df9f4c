"""The kernel's side: a socket of its TCP, made with the numbers that the test wants, and observed from outside.

TCP_REPAIR makes an established connection with any sequence numbers and options, but not with ECN: for that the peer
opens one. What it holds is read by TCP_INFO.
Sources: tcp(7), linux/tcp.h.
"""

import dataclasses
import itertools
import socket
import struct

from chimney.host.linux import sockopts as so
from tests.differential.peer import ACK, CWR, ECE, HOST, HOST_PORT, LISTENING_PORT, MASK, PEER, SYN, build
from tests.differential.terms import View

_TCP = socket.IPPROTO_TCP
_TCP_WINDOW_CLAMP = 10
_SO_MEMINFO = 55
_INFO = 240
_SMALL_WINDOW = 2000
# Each connection has another port of the peer's: the last one that had it may be in TIME_WAIT.
_PORTS = itertools.cycle(range(1024, 65536))
# Longer than any timer but that of retransmission takes, in seconds.
_SOON = 2.0
_STATES = {
    1: "ESTABLISHED", 4: "FIN_WAIT_1", 5: "FIN_WAIT_2", 6: "TIME_WAIT", 7: "CLOSED", 8: "CLOSE_WAIT", 9: "LAST_ACK",
    11: "CLOSING",
}  # fmt: skip


class KernelSide:
    """A connection of the kernel's. Every verb returns what it has made the kernel send at once.

    setup: what was asked for, with the numbers that the kernel has chosen itself.
    """

    name = "kernel"

    def __init__(self, wire, setup):
        self._wire = wire
        self._port = next(_PORTS)
        self.reset = False
        self.setup = setup
        if setup.ecn:
            self._accept()
        else:
            self._restore()
        self._sock.setsockopt(_TCP, so.TCP_NODELAY, not setup.nagle)

    def _accept(self):
        setup = self.setup
        self._to = LISTENING_PORT
        options = struct.pack("!BBHBBBBBBBB", 2, 4, setup.mss, 1, 3, 3, setup.snd_wscale, 1, 1, 4, 2)
        ts = (setup.peer_clock, 0) if setup.timestamps else None
        syn = build(setup.irs - 1, 0, SYN | ECE | CWR, 0xFFFF, ts=ts, options=options)
        self._wire.listener.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, setup.receive_buffer)
        self._sock = None
        (answer,) = self._give(syn)
        assert answer.flags == SYN | ACK | ECE, f"no ECN: {answer}"
        clock = answer.ts[0] if answer.ts else setup.clock
        self.setup = setup = dataclasses.replace(
            setup, iss=(answer.seq + 1) & MASK, rcv_wnd=answer.window, rcv_wscale=answer.wscale, clock=clock
        )
        ts = (setup.peer_clock, clock) if setup.timestamps else None
        self._give(build(setup.irs, setup.iss, ACK, setup.window >> setup.snd_wscale, ts=ts))
        self._sock, _ = self._wire.listener.accept()
        self._sock.setblocking(False)
        self._sock.setsockopt(_TCP, so.TCP_CONGESTION, b"cubic")

    def _restore(self):
        setup, port = self.setup, self._port
        self._to = HOST_PORT
        self._sock = sock = self._wire.host.socket()
        sock.setblocking(False)
        sock.setsockopt(so.SOL_SOCKET, so.SO_RCVBUF, setup.receive_buffer)
        sock.setsockopt(_TCP, so.TCP_CONGESTION, b"cubic")
        sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_ON)
        for queue, seq in ((so.SEND_QUEUE, setup.iss), (so.RECEIVE_QUEUE, setup.irs)):
            sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, queue)
            sock.setsockopt(_TCP, so.TCP_QUEUE_SEQ, so.signed32(seq))
        sock.setsockopt(_TCP, so.TCP_MAXSEG, setup.mss)
        sock.bind((socket.inet_ntoa(HOST), HOST_PORT))
        sock.connect((socket.inet_ntoa(PEER), port))
        options = struct.pack("II", so.TCPOPT_MAXSEG, setup.mss)
        options += struct.pack("II", so.TCPOPT_WINDOW, setup.snd_wscale | setup.rcv_wscale << 16)
        if setup.sack:
            options += struct.pack("II", so.TCPOPT_SACK_PERMITTED, 0)
        if setup.timestamps:
            options += struct.pack("II", so.TCPOPT_TIMESTAMP, 0)
        sock.setsockopt(_TCP, so.TCP_REPAIR_OPTIONS, options)
        if setup.timestamps:
            sock.setsockopt(_TCP, so.TCP_TIMESTAMP, so.signed32(setup.clock))
        # Another window than the one that is announced below: so the kernel forgets what it predicts of the next
        # segment, which after a repair is an acknowledgement with a window of 0, not to be looked at.
        other = max(setup.window - (1 << setup.snd_wscale), 0) if setup.window else 1
        window = struct.pack("=5I", setup.irs, other, max(setup.window, other), setup.rcv_wnd, setup.irs)
        sock.setsockopt(_TCP, so.TCP_REPAIR_WINDOW, window)
        sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)
        sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_OFF)
        # In two steps: a clamp that grows opens the window up to it, one that shrinks does not.
        sock.setsockopt(_TCP, _TCP_WINDOW_CLAMP, _SMALL_WINDOW)
        self._clamp()
        ts = (setup.peer_clock, setup.clock) if setup.timestamps and setup.knows_clock else None
        self.arrives(build(setup.irs, setup.iss, ACK, setup.window >> setup.snd_wscale, ts=ts))

    def _clamp(self):
        """The window stays as it is: the kernel would let it grow with what it receives."""
        self._sock.setsockopt(_TCP, _TCP_WINDOW_CLAMP, self.setup.rcv_wnd)

    def close(self):
        """The socket goes, and tells nobody."""
        self._sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_ON)
        self._sock.close()

    def arrives(self, segment, ecn=0):
        """A segment comes from the wire, with that codepoint."""
        self._clamp()
        return self._give(segment, ecn)

    def _give(self, segment, ecn=0):
        ports = self._port << 16 | self._to
        self._wire.send(ports.to_bytes(4, "big") + segment[4:], ecn)
        return self._answers()

    def read(self, limit):
        """The application reads up to `limit` bytes: they, and what is sent."""
        parts = []
        while limit > 0:
            try:
                part = self._sock.recv(limit)
            except BlockingIOError:
                break
            except ConnectionError:
                self.reset = True
                break
            if not part:
                break
            parts.append(part)
            limit -= len(part)
        return b"".join(parts), self._answers()

    def write(self, data):
        """The application writes."""
        assert self._sock.send(data, socket.MSG_NOSIGNAL) == len(data)
        return self._answers()

    def shutdown(self):
        """The application has nothing more to send."""
        self._sock.shutdown(socket.SHUT_WR)
        return self._answers()

    def abort(self):
        """The application wants no more of it (RFC 9293, 3.10.5)."""
        self._sock.setsockopt(so.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # A copy of the descriptor would keep it alive; a disconnect is an abort, and leaves something to look at.
        so.disconnect(self._sock.fileno())
        self.reset = True
        return self._answers()

    def wait(self):
        """What a timer of the kernel's makes it send soon."""
        self._wire.wait(_SOON)
        return self._answers()

    def view(self):
        """What TCP_INFO tells."""
        info = self._sock.getsockopt(_TCP, so.TCP_INFO, _INFO)
        # ECONNRESET, or EPIPE where the peer had closed before.
        if self._sock.getsockopt(so.SOL_SOCKET, so.SO_ERROR):
            self.reset = True
        state, ca_state = info[0], info[1]
        unacked, sacked, lost, retrans = struct.unpack_from("=4I", info, 24)
        (cwnd,) = struct.unpack_from("=I", info, 80)
        acked, received = struct.unpack_from("=2Q", info, 120)
        (snd_wnd,) = struct.unpack_from("=I", info, 228)
        return View(
            state=_STATES[state],
            reset=self.reset,
            acked=acked,
            received=received,
            snd_wnd=snd_wnd,
            is_disturbed=ca_state != 0 or sacked + lost + retrans > 0,
            # As far as segments are held back to be sent in larger trains.
            is_cwnd_limited=unacked * 3 >= cwnd,
        )

    def is_out_of_memory(self):
        """Whether what comes next may be dropped, or what is out of order, although there is room in the window."""
        allocated, limit = struct.unpack("=2I", self._sock.getsockopt(so.SOL_SOCKET, _SO_MEMINFO, 8))
        return allocated > limit

    def _answers(self):
        return self._wire.answers(self._port)
