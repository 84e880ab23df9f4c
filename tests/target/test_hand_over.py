"""Connections that come and go in mid-flow, on both sides, at any moment: no byte is lost, doubled or out of order."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from chimney.ndis import DisconnectFlags, Status, net_buffer_list
from chimney.ndis.buffers import iterate, link
from chimney.ndis.status import TcpConnectionState
from chimney.target import TargetConfig
from tests.target.machine import ISS, World

_MASK = 0xFFFFFFFF
_FIN_SENT = {TcpConnectionState.FIN_WAIT_1, TcpConnectionState.CLOSING, TcpConnectionState.LAST_ACK}
_FIN_ACKED = {TcpConnectionState.FIN_WAIT_2, TcpConnectionState.TIME_WAIT, TcpConnectionState.CLOSED}


class Application:
    """A client of one end that sends ``data``, takes what comes, and moves the connection about."""

    def __init__(self, end, data, rng):
        self.end, self.data, self.rng = end, data, rng
        self.host, self.side = end.host, end.side
        self.arrived = bytearray()
        self.pending = []  # sends with the target or between two offloads, oldest first: (list, length)
        self.posted = 0
        self.acked = 0
        self.receives = []
        self.unread = b""
        self.chain = []
        self.disconnect = None
        self.closed = self.end_seen = False
        self.offloaded = False
        self.left_at = 0
        self.mss_sizes = (1, 17, 1448, 5000, 60_000)
        self.host.on.update(send=self._sent, receive=self._received, disconnect=self._disconnected)
        self.host.on["INDICATE_DISCONNECT"] = self._ended
        self.host.answer = self._indicated

    # What the host is told

    def _sent(self, nbl):
        expected, length = self.pending[0]
        assert nbl is expected, "sends complete in the order posted"
        assert nbl.status == Status.SUCCESS and nbl.tcp_offload_bytes_transferred == nbl.protocol_reserved
        assert nbl.data_length() == 0
        self.pending.pop(0)
        self.acked += length

    def _received(self, nbl):
        expected, memory, before = self.receives.pop(0)
        assert nbl is expected, "receives complete in the order posted"
        count = nbl.tcp_offload_bytes_transferred
        assert nbl.status in (Status.SUCCESS, Status.UPLOAD_IN_PROGRESS, Status.INVALID_STATE)
        assert nbl.data_length() == len(memory) - count
        self.arrived += memory[:count]
        if self.offloaded and self.rng.random() < 0.5 and nbl.status == Status.SUCCESS and count:
            self._post_receive()

    def _indicated(self, data):
        consumed = self.rng.choice((0, len(data), self.rng.randrange(len(data) + 1)))
        self.arrived += data[:consumed]
        return consumed

    def _disconnected(self, nbl):
        assert nbl is self.disconnect
        if nbl.status == Status.SUCCESS:
            self.closed = True
            self.disconnect = None
        else:
            assert nbl.status == Status.UPLOAD_IN_PROGRESS

    def _ended(self, _):
        self.end_seen = True

    # What the application does

    def _post_receive(self):
        if self.end_seen:
            return
        size = self.rng.choice((0, 1, 100, 1448, 20_000, 70_000))
        push = self.rng.random() < 0.8
        memory = bytearray(size)
        nbl = net_buffer_list(memory)
        nbl.tcp_receive_no_push = not push
        self.receives.append((nbl, memory, 0))
        self.side.binding.offload_tcp_receive(self.end.handle, nbl)

    def step(self):
        """Post a little of everything."""
        if not self.offloaded:
            return
        while self.posted < len(self.data) and len(self.pending) < 6:
            size = self.rng.choice(self.mss_sizes)
            parts = [self.data[self.posted : self.posted + size]]
            self.posted += len(parts[0])
            if self.rng.random() < 0.3:
                parts = [parts[0][:1], parts[0][1:]]
            lists = [self._list(part) for part in parts]
            self.side.binding.offload_tcp_send(self.end.handle, link(lists))
        if self.posted == len(self.data) and self.disconnect is None and not self.closed:
            self.disconnect = self._list(b"", pending=False)
            self._post_disconnect()
        if self.rng.random() < 0.7:
            self._post_receive()

    def _post_disconnect(self):
        self.side.binding.offload_tcp_disconnect(self.end.handle, self.disconnect, DisconnectFlags.GRACEFUL_CLOSE)

    def _list(self, part, pending=True):
        nbl = net_buffer_list(part)
        nbl.protocol_reserved = len(part)
        if pending:
            self.pending.append((nbl, len(part)))
        return nbl

    def offload(self, now):
        end = self.end
        if self.unread:
            end.delegated.buffered_data = net_buffer_list(self.unread)
        gap = (now - self.left_at) // 1000 if self.left_at else 0
        end.delegated.ts_time = (end.delegated.ts_time + gap) & _MASK
        self.offloaded = True
        statuses = end.initiate(link(self.chain))
        assert set(statuses) == {Status.SUCCESS}, statuses
        self.unread = b""
        if self.disconnect is not None and end.delegated.state not in _FIN_SENT:
            if end.delegated.state in (TcpConnectionState.ESTABLISHED, TcpConnectionState.CLOSE_WAIT):
                self._post_disconnect()
        kept, self.host.ordinary = self.host.ordinary, []
        if kept:
            end.forward(*[frame[34:] for frame in kept])

    def upload(self, now):
        """Take the connection back; everything that the target held must be there."""
        end, side = self.end, self.side
        before = len(self.pending)
        self.offloaded = False
        self.left_at = now
        block = end.terminate()
        assert not self.receives, "a terminate completes every receive"
        state = end.delegated
        self.chain = list(iterate(block.net_buffer_list_chain))
        for nbl in self.chain:
            nbl.next = None
        assert [nbl for nbl, _ in self.pending] == self.chain and len(self.pending) <= before
        advanced = sum(nbl.protocol_reserved - nbl.data_length() for nbl in self.chain)
        fin = state.state in _FIN_ACKED
        assert state.snd_una == (ISS[side.number] + self.acked + advanced + fin) & _MASK
        for nbl in self.chain:
            assert nbl.status == Status.UPLOAD_IN_PROGRESS
            assert nbl.tcp_offload_bytes_transferred == nbl.protocol_reserved - nbl.data_length()
            nbl.protocol_reserved = nbl.data_length()
        self.acked += advanced
        self.pending = [(nbl, nbl.protocol_reserved) for nbl in self.chain]
        if state.buffered_data is not None:
            self.unread = b"".join(b"".join(n.first_net_buffer.views()) for n in iterate(state.buffered_data))
            side.binding.offload_tcp_receive_return(state.buffered_data)
            state.buffered_data = None
        for nbl in self.host.held:
            side.binding.offload_tcp_receive_return(nbl)
        self.host.held.clear()
        assert not side.target.lent
        if fin:
            # The disconnect of a connection that went up and down with its FIN on the way is the host's to complete.
            self.closed, self.disconnect = True, None

    @property
    def finished(self):
        """In TIME_WAIT or CLOSED: the target has asked for the upload."""
        return self.offloaded and self.end.offloaded.upload_reason != 0

    @property
    def over(self):
        """The host has the connection for good."""
        return not self.offloaded and not self.end.delegated.state.offloadable


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), drivers=st.integers(0, 2), bad=st.booleans())
def test_streams_survive_hand_overs_in_mid_flow(seed, drivers, bad):
    rng = random.Random(seed)
    network = {"loss": 0.03, "jitter_us": 300, "reorder": 0.05, "duplicate": 0.02} if bad else {}
    if rng.random() < 0.3:
        # A slow link that has no room most of the time.
        network |= {"bandwidth": 20_000_000, "send_buffer": 10_000}
    # Backed-off retransmissions may come more than the usual two minutes after a FIN.
    config = TargetConfig(min_rto_us=20_000, fin_wait_2_ticks=10**9, congestion=rng.choice(("cubic", "reno")))
    world = World(drivers, config, seed, delay_us=rng.choice((10, 1000, 20_000)), gro=rng.random() < 0.5, **network)
    ends = world.ends()
    data = [rng.randbytes(rng.choice((0, 1, 3000, 200_000))) for _ in ends]
    apps = [Application(end, part, rng) for end, part in zip(ends, data, strict=True)]
    for app in apps:
        if rng.random() < 0.5:
            app.side.target.watch(app.end.flow)
        app.offload(world.clock())
    for turn in range(3000):
        for app in apps:
            app.step()
            # Later on there is time for long retransmission time-outs, which the hand-overs have brought about.
            chance = rng.random() * (1 if turn < 300 else 2)
            if app.offloaded and chance < 0.05 and not app.finished and turn < 1000:
                app.upload(world.clock())
            elif not app.offloaded and chance < 0.3 and not app.over:
                app.offload(world.clock())
        world.run(duration=rng.choice((0, 100, 3000, 30_000)) if turn < 300 else 200_000)
        # Whoever is in TIME_WAIT leaves for good, and the peer may still need acknowledgements: so both leave together.
        if all(app.finished for app in apps):
            break
    else:
        raise AssertionError("the streams did not end")
    for app in apps:
        app.upload(world.clock())
        assert app.over and app.closed and not app.pending
        assert app.end_seen or app.unread, "the end comes after all data"
    for app, other in ((apps[0], apps[1]), (apps[1], apps[0])):
        assert bytes(app.arrived) + app.unread == other.data
