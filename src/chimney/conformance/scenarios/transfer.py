"""Sends, receives and indications on connections that stay offloaded (documents: chapters 10.1 to 10.4, 13)."""

from __future__ import annotations

from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, pattern, send
from chimney.conformance.world import World
from chimney.ndis.status import Status, TcpCachedFlags
from chimney.target import TargetConfig


@scenario(delay_us=100)
def transfer(world: World) -> None:
    """Lists of sends and receives both ways, several MDLs and NetBuffers, and a graceful close."""
    a, b = world.connect()
    for end in (a, b):
        end.receive(3000, 500, 2000, 4500)
    streams = [(end, pattern(end, 10_000)) for end in (a, b)]
    for end, data in streams:
        end.send(data[:3000], (data[3000:3100], data[3100:3400], data[3400:3500]), [data[3500:4200], data[4200:5500]])
    world.run(duration=200)
    for end, data in streams:
        end.send(data[5500:])
    world.run(until=lambda: len(a.host.took("send")) == len(b.host.took("send")) == 4)
    assert arrived(a, b)
    a.disconnect()
    b.disconnect()
    world.run(until=lambda: not (a.offloaded or b.offloaded))


@scenario(delay_us=100)
def transfer_ipv6(world: World) -> None:
    """The same over IPv6, with hop limit, traffic class and flow label of its own."""
    a, b = world.ends(ipv6=True)
    for end in (a, b):
        end.cached.ttl_or_hop_limit, end.cached.tos_or_traffic_class, end.cached.flow_label = 9, 0x48, 0x12345
        end.initiate()
    exchange(a, b, 9000)
    a.disconnect(b"the last words")
    b.receive(100)
    world.run(until=lambda: b.peer_closed)
    assert arrived(b)


@scenario(delay_us=200, loss=0.1)
def transfer_with_losses(world: World) -> None:
    """A tenth of all segments is lost: holes, selective acknowledgements, retransmissions."""
    a, b = world.connect()
    for _ in range(3):
        exchange(a, b, 30_000)


@scenario(delay_us=300, reorder=0.2, reorder_us=2000, duplicate=0.1)
def transfer_out_of_order(world: World) -> None:
    """Segments overtake each other and arrive twice."""
    a, b = world.connect()
    exchange(a, b, 40_000)


@scenario(delay_us=200, gro=True)
def transfer_in_bulk(world: World) -> None:
    """Super-segments out, merged segments in; several connections at once, of both IP versions."""
    pairs = [world.connect(1000), world.connect(2000), world.connect(3000, ipv6=True)]
    for a, b in pairs:
        b.reading = 60_000
        send(a, 20_000, 20_000, 20_000)
    world.run(until=lambda: all(arrived(b) for _, b in pairs))


@scenario(delay_us=500)
def pipelined_sends(world: World) -> None:
    """Many send calls before any completes, completed in one list; a send from within a completion, and of nothing."""
    a, b = world.connect()
    b.reading = 10_000

    def send_more(nbl: object) -> None:
        a.host.on.clear()
        send(a, 700)

    a.host.on["send"] = send_more
    for _ in range(10):
        send(a, 300, 300)
    a.send(b"")
    world.run(until=lambda: len(a.host.took("send")) == 22)
    assert {status for _, status, _ in a.host.took("send")} == {Status.SUCCESS}
    b.disconnect()
    a.disconnect()
    world.run(until=lambda: b.peer_closed and arrived(b))


@scenario(delay_us=5000)
def nagle(world: World) -> None:
    """Small sends with the Nagle algorithm on, then off."""
    a, b = world.ends()
    a.cached.flags = TcpCachedFlags.NAGLING_ENABLED
    a.initiate(), b.initiate()
    b.reading = 1000
    for _ in range(5):
        send(a, 50)
        world.run(duration=200)
    world.run(duration=400_000)
    a.update(flags=TcpCachedFlags(0))
    for _ in range(5):
        send(a, 50)
        world.run(duration=200)
    world.run(duration=700_000)
    assert arrived(b)


@scenario(delay_us=1000, config=TargetConfig(sws_prevention_ticks=100))
def silly_windows(world: World) -> None:
    """A peer that opens its window by little: the sender holds small segments back, until its timer expires."""
    a, b = world.ends()
    a.cached.initial_rcv_wnd = b.cached.initial_rcv_wnd = 4000
    a.delegated.rcv_wnd = b.delegated.rcv_wnd = 4000
    a.delegated.snd_wnd = b.delegated.snd_wnd = 4000
    a.delegated.max_snd_wnd = b.delegated.max_snd_wnd = 4000
    a.initiate(), b.initiate()
    send(a, 9000)
    world.run(duration=600_000)
    for _ in range(30):
        b.receive(300)
        world.run(duration=150_000)
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def receive_modes(world: World) -> None:
    """Push and non-push requests: PSH, the push timer, one restarted by data, filled ones, prefilled ones."""
    a, b = world.connect()
    # PSH completes a push request at once, partly filled.
    [(nbl, _)] = b.receive(1000)
    send(a, 400)
    world.run(until=lambda: any(done is nbl for done, *_ in b.host.took("receive")))
    # Without PSH the push timer does.
    sent = len(a.application)
    [(nbl, _)] = b.receive(1000)
    data = pattern(a, 300)
    a.application += data
    b.arrives(sent, data[:100], push=False)
    world.run(duration=300_000)
    b.arrives(sent + 100, data[100:200], push=False)
    world.run(duration=300_000)
    assert all(done is not nbl for done, *_ in b.host.took("receive"))
    world.run(duration=300_000)
    assert any(done is nbl for done, *_ in b.host.took("receive"))
    # A non-push request waits for as long as it takes.
    [(first, _), (second, _)] = b.receive(150, 100, push=False)
    b.arrives(sent + 200, data[200:], push=True)
    world.run(duration=2_000_000)
    assert all(done is not first for done, *_ in b.host.took("receive"))
    world.clock.advance(1)


@scenario(delay_us=100)
def receive_non_push(world: World) -> None:
    """Non-push requests of several MDLs complete when full, whatever PSH says; one comes with bytes in it (A9)."""
    a, b = world.connect()
    pairs = b.receive(1000, 2000, push=False, mdls=3)
    for size in (400, 500, 1100, 1000):
        send(a, size)
        world.run(duration=100_000)
    assert [nbl for nbl, *_ in b.host.took("receive")] == [nbl for nbl, _ in pairs]
    assert arrived(b)
    [(nbl, buffer)] = b.receive(500, push=False, filled=b"12345")
    data = pattern(a, 495)
    a.send(data)
    world.run(until=lambda: len(b.host.took("receive")) == 3)
    assert nbl.tcp_offload_bytes_transferred == 500 and buffer == b"12345" + data


@scenario(delay_us=100)
def receive_from_completions(world: World) -> None:
    """Requests posted from within receive completions, one after the other, and in lists that complete in parts."""
    a, b = world.connect()
    b.host.on["receive"] = lambda nbl: b.receive(500) if len(b.host.took("receive")) < 12 else None
    b.receive(500, 300, 200)
    for _ in range(6):
        send(a, 1000)
        world.run(duration=60_000)
    b.host.on.clear()
    b.reading = 6000
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def indications(world: World) -> None:
    """Indications: refused, taken by a request; accepted and returned in a chain; partly accepted; data meanwhile."""
    a, b = world.connect()
    host = b.host
    # Refused: not indicated again before a request is posted.
    send(a, 600)
    world.run(duration=100_000)
    send(a, 600)
    world.run(duration=100_000)
    assert len(host.took("indicate")) == 1
    b.receive(500)
    world.run(duration=100_000)
    # What did not fit has been indicated again, and refused again; it goes on with a zero-length request.
    host.answer = len
    host.keeps_lists = True
    b.receive(0)
    world.run(until=lambda: arrived(b))
    for _ in range(3):
        send(a, 800)
        world.run(duration=60_000)
    assert arrived(b) and len(host.held) >= 3
    host.return_lists(2)
    # Partly accepted: the rest waits for a request.
    host.answer = lambda data: min(len(data), 300)
    send(a, 1000)
    world.run(duration=100_000)
    b.receive(2000)
    world.run(until=lambda: arrived(b))
    host.keeps_lists = False
    world.poll()
    assert not host.held


@scenario(delay_us=100)
def indications_of_a_size(world: World) -> None:
    """A preferred indication size, and an application that looks at a header before it posts the rest."""
    a, b = world.ends()
    b.cached.rcv_indication_size = 256
    a.initiate(), b.initiate()
    b.host.answer = lambda data: 16

    def header(handle: object) -> None:
        if len(b.host.took("indicate")) < 4:
            b.receive(984)

    b.host.on["indicate"] = header
    for _ in range(3):
        send(a, 1000)
        world.run(duration=100_000)
    b.host.on.clear()
    b.host.answer = len
    b.receive(0)
    send(a, 2000)
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def lists_of_several_connections(world: World) -> None:
    """Indications on three connections, returned in one chain."""
    pairs = [world.connect(port) for port in (1000, 2000, 3000)]
    hosts = pairs[0][1].host
    hosts.answer = len
    hosts.keeps_lists = True
    for _ in range(2):
        for a, _b in pairs:
            send(a, 700)
        world.run(duration=100_000)
    assert all(arrived(b) for _, b in pairs) and len(hosts.held) >= 6
    hosts.return_lists()


@scenario(delay_us=10_000, gro=True, config=TargetConfig(send_backlog=True))
def backlog(world: World) -> None:
    """The preferred send backlog grows and shrinks with the congestion window, and the host keeps to it."""
    a, b = world.connect()
    b.reading = 100_000
    [block] = a.query("delegated")
    a.backlog = block.delegated.send_backlog_size  # type: ignore[union-attr]
    for turn in range(16):
        world.network.loss = 0.2 if turn in (8, 9) else 0.0
        outstanding = sum(nbl.data_length() for nbl in a.pending("send"))
        while outstanding < a.backlog:
            send(a, 50_000)
            outstanding += 50_000
        world.run(duration=60_000)
    world.run(until=lambda: arrived(b))
    assert len(a.host.took("INDICATE_SEND_BACKLOG_CHANGE")) >= 2
