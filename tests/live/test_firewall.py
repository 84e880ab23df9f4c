"""Hand-overs behind a stateful firewall, with sequence numbers that its connection tracking has not seen."""

import dataclasses
import select
import socket
import struct
import time

import pytest

from chimney.host.linux import conntrack, handover, inject
from chimney.lab.firewall import StatefulFirewall
from chimney.lab.tap import ACK

V4, V6 = socket.AF_INET, socket.AF_INET6


class Acknowledger:
    """The least that keeps a connection alive outside the kernel: takes in-order data, and acknowledges it."""

    def __init__(self, lab, state):
        self.state = state
        self.rcv_nxt = state.rcv_nxt
        self.received = 0
        self._ts_base, self._started = state.timestamp, time.monotonic()
        self._lab = lab
        self._raw = lab.keep(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._raw.bind((lab.device, 0))

    def now(self):
        return (self._ts_base + int((time.monotonic() - self._started) * 1000)) % 2**32

    def run(self, size):
        """Until `size` bytes have been taken."""
        end = time.monotonic() + 10
        while self.received < size:
            assert time.monotonic() < end, f"{self.received} of {size} bytes"
            select.select([self._lab.tap], [], [], 0.1)
            for packet in self._lab.tap.drain():
                if packet.outgoing or packet.destination[1] != self.state.local.port or not packet.length:
                    continue
                if packet.seq == self.rcv_nxt:
                    self.rcv_nxt = (self.rcv_nxt + packet.length) % 2**32
                    self.received += packet.length
                self._acknowledge(packet)

    def _acknowledge(self, packet):
        state = self.state
        segment = inject.segment(
            state.local, state.remote, state.snd_una, self.rcv_nxt, ACK, 500, (self.now(), packet.ts_val)
        )
        local, remote = state.local.address, state.remote.address
        if len(local) == 4:
            pseudo = local + remote + struct.pack("!HH", 6, len(segment))
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0) + local + remote
            header = header[:10] + struct.pack("!H", inject.checksum(header)) + header[12:]
        else:
            pseudo = local + remote + struct.pack("!II", len(segment), 6)
            header = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + local + remote
        segment = segment[:16] + struct.pack("!H", inject.checksum(pseudo + segment)) + segment[18:]
        lab = self._lab
        kind = b"\x08\x00" if len(local) == 4 else b"\x86\xdd"
        self._raw.send(lab.peer_end.mac + lab.host_end.mac + kind + header + segment)


def offloaded_stretch(lab, family, helpers, liberal):
    """A connection whose tracked sequence numbers are 8 MB behind when it returns to the kernel."""
    size = 8 << 20
    firewall = StatefulFirewall(lab.host)
    ours, theirs = lab.connect(family)
    ours.sendall(b"tracked")
    assert helpers.receive(theirs, 7) == b"tracked"
    placeholder = handover.take(ours, lab.device)
    state = placeholder.state
    if liberal:
        assert conntrack.make_liberal(state.local, state.remote)
    lab.tap.drain()
    sending = helpers.Sending(theirs, bytes(size))
    engine = Acknowledger(lab, state)
    engine.run(size)
    sending.join()
    placeholder.give_back(
        dataclasses.replace(
            state, rcv_nxt=engine.rcv_nxt, rcv_wup=engine.rcv_nxt, snd_wl1=engine.rcv_nxt, timestamp=engine.now()
        )
    )
    return ours, theirs, firewall


@pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
def test_the_firewall_lets_an_uploaded_connection_pass(lab, helpers, family):
    ours, theirs, firewall = offloaded_stretch(lab, family, helpers, liberal=True)
    theirs.sendall(helpers.pattern(100_000))
    assert helpers.receive(ours, 100_000) == helpers.pattern(100_000)
    ours.sendall(helpers.pattern(100_000))
    assert helpers.receive(theirs, 100_000) == helpers.pattern(100_000)
    assert firewall.invalid() == 0
    assert firewall.counters()["established"].packets > 0
    lab.tap.drain()
    assert not lab.tap.resets()


def test_the_firewall_would_not_without_being_told(lab, helpers):
    """The laboratory's firewall is a strict one: or the test above would prove nothing."""
    ours, theirs, firewall = offloaded_stretch(lab, V4, helpers, liberal=False)
    theirs.sendall(b"unheard")
    helpers.wait_until(lambda: firewall.counters()["invalid"].packets, "a packet that is called invalid")
    del ours
