"""Initiates: trees of many connections, linkers and placeholders, shortages (documents: 9.2, 9.3)."""

from __future__ import annotations

from chimney.conformance import trees
from chimney.conformance.end import End
from chimney.conformance.handshake import delegated
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, pattern, send
from chimney.conformance.world import World
from chimney.ndis.buffers import net_buffer_list
from chimney.ndis.state import NeighborConst, ProtocolOffloadBlockList, walk
from chimney.ndis.status import OffloadStateType, Status
from chimney.target import TargetConfig

_OK = Status.SUCCESS
_PARTIAL = Status.OFFLOAD_PARTIAL_SUCCESS
_FAILED = Status.FAILURE
_MASK = 0xFFFFFFFF


def _shaped(ends: list[End]) -> list[End]:
    """N1 with P1 (two connections) and P2 (one), N2 with P3 (two)."""
    one, two, three, four, five = ends
    two.share(one)
    three.share(one, path=False)
    five.share(four)
    return ends


@scenario(delay_us=100)
def trees_of_connections(world: World) -> None:
    """Five connections over three paths and two neighbors in one tree; more above these; taken back in parts."""
    pairs = [world.ends(port) for port in range(1000, 1050, 10)]
    for number, side in enumerate(world.sides):
        ends = _shaped([pair[number] for pair in pairs])
        assert side.initiate(*ends) == [_OK] * 10
    for a, b in pairs:
        exchange(a, b, 1000)
    # A linker and a linker, and a new connection above.
    a6, b6 = world.ends(2000)
    a6.share(pairs[0][0])
    assert a6.initiate() == [_OK] * 3
    b6.initiate()
    exchange(a6, b6, 1000)
    # Placeholders: one for the neighbor, and one with nothing above it.
    a7, b7 = world.ends(3000)
    a7.share(pairs[0][0])
    path = trees.new_path(a7)
    path.dependent_block_list = trees.new_connection(a7)
    path.next_block = ProtocolOffloadBlockList(type=a7.ip_type)
    root = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR, dependent_block_list=path)
    assert [block.status for block in a7.side.perform("initiate", root)] == [_OK] * 4
    b7.initiate()
    exchange(a7, b7, 1000)
    # The first two of four connections on a path go back: path and neighbor stay.
    side = world.sides[0]
    assert side.terminate(pairs[0][0], pairs[1][0]) == [_OK] * 2
    # Now all others of this neighbor, in one tree with path and neighbor; the second neighbor is not touched.
    assert side.terminate(a6, a7, pairs[2][0]) == [_OK] * 6
    exchange(pairs[3][0], pairs[3][1], 1000)


@scenario(delay_us=100)
def initiates_at_the_same_time(world: World) -> None:
    """Several initiates before the first completes, of both IP versions."""
    pairs = [world.ends(1000), world.ends(2000), world.ends(3000, ipv6=True)]
    side = world.sides[0]
    asked = [trees.initiate_tree([a]) for a, _ in pairs]
    for tree in asked:
        side.start("initiate_offload", tree)
    for tree in asked:
        side.wait_for("initiate", tree)
        assert {block.status for block in walk(tree)} == {_OK}
    for a, b in pairs:
        b.initiate()
        exchange(a, b, 500)


@scenario(config=(TargetConfig(max_initial_rcv_wnd=1 << 18), TargetConfig()))
def partial_success(world: World) -> None:
    """The documents' worked example: one connection and one path fail; linkers above which all or some fail."""
    pairs = [world.ends(port) for port in range(1000, 1060, 10)]
    one, two, three, four, five, six = [a for a, _ in pairs]
    for end in (two, four, five, six):
        end.share(one)
    three.share(one, path=False)
    side = one.side
    two.cached.initial_rcv_wnd = (1 << 18) + 1
    two.unfinished = [net_buffer_list(b"stays with the host")]
    three.path_mtu = 9000
    small, large = Status.OFFLOAD_TCP_RCV_WINDOW, Status.OFFLOAD_PATH_MTU
    assert side.initiate(one, two, three) == [_PARTIAL, _PARTIAL, _OK, small, large, _FAILED]
    assert two.unfinished and not two.host.took("send")
    # Linkers: some of the dependents, none of them.
    four.cached.initial_rcv_wnd = two.cached.initial_rcv_wnd
    assert side.initiate(two, five) == [_PARTIAL, _PARTIAL, small, _OK]
    assert side.initiate(two, four) == [_FAILED, _FAILED, small, small]
    two.cached.initial_rcv_wnd = four.cached.initial_rcv_wnd = 1 << 18
    assert side.initiate(two, four, six) == [_OK] * 5


@scenario(config=(TargetConfig(neighbor_capacity=2, path_capacity=3, tcp_capacity=3), TargetConfig()))
def capacities(world: World) -> None:
    """No neighbor, path or connection more than there is room for; a root that fails ends the traversal."""
    first, second, third = [world.ends(port)[0] for port in (1000, 2000, 3000)]
    side = first.side
    assert first.initiate() == [_OK] * 3
    assert second.initiate() == [_OK] * 3
    failed = [Status.OFFLOAD_NEIGHBOR_ENTRIES, _FAILED, _FAILED]
    other = world.ends(4000)[0]
    assert side.initiate(third, other) == failed + [_FAILED] * 3
    third.share(first, path=False)
    assert third.initiate() == [_OK] * 3
    other.share(second, path=False)
    assert other.initiate() == [_FAILED, Status.OFFLOAD_PATH_ENTRIES, _FAILED]
    other.share(second)
    assert other.initiate() == [_FAILED, _FAILED, Status.OFFLOAD_TCP_ENTRIES]
    side.terminate(third)
    assert other.initiate() == [_OK] * 3


@scenario(
    config=(
        TargetConfig(hw_address_capacity=1, vlan_capacity=1, ip_address_capacity=1, interface_vlans=frozenset({5, 6})),
        TargetConfig(),
    )
)
def addresses_and_vlans(world: World) -> None:
    """Records of source addresses, source MAC addresses and VLANs run out; a VLAN that the interface is not in."""
    neighbor = [Status.OFFLOAD_HW_ADDRESS_ENTRIES, _FAILED, _FAILED]

    def end(port: int, mac: bytes = b"", vlan: int = 0, address: bytes = b"\x0a\0\0\x01") -> End:
        made = world.ends(port, addresses=(address, b"\x0a\0\0\x02"))[0]
        made.neighbor = NeighborConst(mac, vlan)
        return made

    assert end(1000, b"\2\0\0\0\0\x77").initiate() == [_OK] * 3
    assert end(1010, b"\2\0\0\0\0\x77").initiate() == [_OK] * 3
    assert end(1020, b"\2\0\0\0\0\x78").initiate() == neighbor
    assert end(1030, vlan=7).initiate()[0] == Status.OFFLOAD_VLAN_MISMATCH
    assert end(1040, vlan=5).initiate() == [_OK] * 3
    assert end(1050, vlan=5).initiate() == [_OK] * 3
    assert end(1060, vlan=6).initiate()[0] == Status.OFFLOAD_VLAN_ENTRIES
    assert end(1070).initiate() == [_OK] * 3
    assert end(1080, address=b"\x0a\0\0\x03").initiate()[1] == Status.OFFLOAD_IP_ADDRESS_ENTRIES


@scenario()
def shortages(world: World) -> None:
    """The target runs out of memory for objects, transmit and receive buffers, and for buffered data."""
    expected = [
        ("neighbor", 0, Status.RESOURCES),
        ("path", 1, Status.RESOURCES),
        ("connection", 2, Status.RESOURCES),
        ("transmit buffer", 2, Status.OFFLOAD_TCP_XMIT_BUFFER),
        ("receive buffer", 2, Status.OFFLOAD_TCP_RCV_BUFFER),
        ("buffered data", 2, _FAILED),
    ]
    for number, (short, place, status) in enumerate(expected):
        a, _ = world.ends(1000 + 10 * number)
        a.delegated.buffered_data = net_buffer_list(bytearray(b"not delivered yet"))
        a.unfinished = [net_buffer_list(b"not sent yet")]
        a.side.runs_short_of(short)
        assert a.initiate()[place] == status, short
        a.side.runs_short_of("")
        if place:
            assert a.neighbor_handle.miniport_offload_context is not None
        assert a.initiate() == [_OK] * 3
        assert [nbl for nbl, *_ in a.host.took("send")] == []
        [(nbl, buffer)] = a.receive(17)
        world.poll()
        assert buffer == b"not delivered yet" and nbl.status == Status.SUCCESS


@scenario(delay_us=100)
def handed_over_sends(world: World) -> None:
    """The documents' example of a chain: in flight, to be sent again, never sent; a part is acknowledged meanwhile."""
    a, b = world.ends()
    data = pattern(a, 2000)
    a.application += data
    pieces = [data[at : at + 200] for at in range(0, 2000, 200)]
    a.unfinished = [
        net_buffer_list(pieces[0], pieces[1] + pieces[2]),
        net_buffer_list(pieces[3] + pieces[4], pieces[5] + pieces[6]),
        net_buffer_list(pieces[7] + pieces[8], pieces[9]),
    ]
    a.delegated.snd_nxt = a.delegated.snd_nxt + 1000 & 0xFFFFFFFF
    a.delegated.snd_max = a.delegated.snd_max + 1800 & 0xFFFFFFFF
    # The first 600 bytes had arrived, the acknowledgement is on its way.
    b.delegated.rcv_nxt = b.delegated.rcv_nxt + 600 & 0xFFFFFFFF
    b.received += data[:600]
    b.reading = 5000
    b.initiate(), a.initiate()
    a.arrives(0, ack=600, push=False)
    send(a, 500)
    world.run(until=lambda: arrived(b) and len(a.host.took("send")) == 4)
    assert [status for _, status, _ in a.host.took("send")] == [_OK] * 4


@scenario(delay_us=100)
def handed_over_in_flight(world: World) -> None:
    """Everything is in flight and lost: the target sends it again when the handed-over timer expires."""
    a, b = world.ends()
    data = pattern(a, 1000)
    a.application += data
    a.unfinished = [net_buffer_list(data)]
    a.delegated.snd_nxt = a.delegated.snd_nxt + 1000 & 0xFFFFFFFF
    a.delegated.snd_max = a.delegated.snd_max + 1000 & 0xFFFFFFFF
    a.delegated.retransmit.count, a.delegated.retransmit.timeout_delta = 1, 250
    a.delegated.s_rtt, a.delegated.rtt_var = 8 * 10, 4 * 5
    b.reading = 5000
    b.initiate(), a.initiate()
    world.run(duration=240_000)
    assert not b.received
    world.run(until=lambda: arrived(b) and len(a.host.took("send")) == 1)


@scenario(delay_us=100)
def handed_over_receives(world: World) -> None:
    """Buffered data waits for requests, comes before newer data; what does not fit is indicated."""
    a, b = world.ends()
    data = pattern(a, 900)
    a.application += data
    a.delegated = delegated(0, snd_una=a.delegated.snd_una + 900 & _MASK)
    a.delegated.snd_nxt = a.delegated.snd_max = a.delegated.snd_una
    b.delegated.rcv_nxt = a.delegated.snd_una
    b.delegated.buffered_data = net_buffer_list(bytearray(data[:500]), bytearray(data[500:]))
    a.initiate(), b.initiate()
    send(a, 400)
    world.run(duration=100_000)
    assert not b.host.took("indicate"), "buffered data is indicated only when a request has been posted"
    b.host.answer = len
    [(nbl, buffer)] = b.receive(600)
    world.run(until=lambda: arrived(b))
    assert buffer == data[:600] and nbl.status == _OK


@scenario(delay_us=100, unfiltered=True)
def initiate_under_pause(world: World) -> None:
    """An initiate under way when the target pauses waits; the host keeps what arrives, and forwards it afterwards."""
    a, b = world.ends()
    a.initiate()
    target = b.side.target
    tree = b.initiate_tree()
    b.side.start("initiate_offload", tree)
    target.pause()
    b.reading = 4000
    for size in (700, 800):
        send(a, size)
        world.run(duration=1000)
    assert b.to_forward and not b.host.took("initiate")
    target.resume()
    world.run(until=lambda: arrived(b))
    assert b.host.took("forward") and {block.status for block in walk(tree)} == {_OK}
