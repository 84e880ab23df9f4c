"""Packets: what stands in the headers of those that leave, and which of those that arrive are for the target."""

import struct
from dataclasses import replace

import pytest

from chimney.link.base import Frame
from chimney.ndis.capabilities import IpOffloadStats, TcpOffloadStats
from chimney.ndis.state import NeighborConst
from chimney.target import TargetConfig
from chimney.target.frames import FrameReader, HeaderTemplate, flow_key
from tests.target.machine import IPV4, IPV6, MACS, World

A, B = MACS


def folded(data):
    """The ones' complement sum of 16-bit words, as RFC 1071 has it."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(source, destination, length):
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, 6, length)
    return source + destination + struct.pack("!I3xB", length, 6)


def template(addresses=IPV4, ttl=64, tos=0, flow_label=0, vlan_id=0, priority=0):
    return HeaderTemplate(A, B, addresses[0], addresses[1], ttl, tos, flow_label, vlan_id, priority)


# What leaves


@pytest.mark.parametrize("ipv6", [False, True])
def test_packets_on_the_wire_are_whole_and_right(seed, ipv6):
    """Every field, and both checksums, of every wire segment of a stream with super-segments."""
    world = World(seed=seed)
    a, b = world.ends(ipv6=ipv6)
    a.cached = replace(a.cached, ttl_or_hop_limit=9, tos_or_traffic_class=0x48, flow_label=0x12345)
    a.initiate(), b.initiate()
    b.receive(50_000)
    a.send(bytes(range(250)) * 160)
    world.run()
    frames = [frame for _, name, frame in world.wire if name == "a"]
    assert len(frames) > 20
    source, destination = IPV6 if ipv6 else IPV4
    identifications = []
    for frame in frames:
        assert frame[:12] == B + A
        ip, start = frame[14:], 40 if ipv6 else 20
        if ipv6:
            assert struct.unpack("!IHBB", ip[:8]) == (6 << 28 | 0x48 << 20 | 0x12345, len(ip) - 40, 6, 9)
            assert ip[8:40] == source + destination
        else:
            first, tos, total, identification, flags, ttl, protocol = struct.unpack("!BBHHHBB", ip[:10])
            assert (first, tos, total, flags, ttl, protocol) == (0x45, 0x48, len(ip), 0x4000, 9, 6)
            assert ip[12:20] == source + destination and folded(ip[:20]) == 0xFFFF
            identifications.append(identification)
        segment = ip[start:]
        assert struct.unpack("!HH", segment[:4]) == (1000, 1001)
        assert folded(pseudo_header(source, destination, len(segment)) + segment) == 0xFFFF
    assert all(0x8000 <= i <= 0xFFFF for i in identifications)


def test_identifications_of_super_segments_stay_in_the_upper_half():
    made = template()
    last = 0x7FFF
    for segments in (1, 45, 0x7FFF - 100, 60, 45, 1, 45):
        headers = made.headers(bytes(20), 1448 * segments % 60000, segments, 0)
        first = struct.unpack_from("!H", headers, 18)[0]
        assert first >= 0x8000 and first + segments - 1 <= 0xFFFF
        assert folded(bytes(headers[14:34])) == 0xFFFF
        assert first == last + 1 or first == 0x8000
        last = first + segments - 1


@pytest.mark.parametrize("addresses", [IPV4, IPV6])
@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_the_ecn_field_is_each_segments_own(addresses, ecn):
    """Both ways; the host's value of the octet counts without it, and the header's checksum with it."""
    for tos in (0x48, 0x4B):
        made = template(addresses, tos=tos)
        headers = made.headers(bytes(20), 10, 1, ecn)
        reader = FrameReader()
        assert reader.read(memoryview(headers + bytes(10))) and reader.ecn == ecn
        octet = headers[15] if addresses == IPV4 else (headers[14] << 4 | headers[15] >> 4) & 0xFF
        assert octet == 0x48 | ecn
        assert addresses == IPV6 or folded(bytes(headers[14:34])) == 0xFFFF
        assert made.headers(bytes(20), 10, 1, 0)[15] & 0xF == (headers[15] & 0xF if addresses == IPV6 else 0x8)


@pytest.mark.parametrize(
    ("vlan_id", "priority", "tag"), [(0, 0, -1), (0, 5, 5 << 13), (77, 0, 77), (77, 5, 5 << 13 | 77)]
)
def test_tags(vlan_id, priority, tag):
    assert template(vlan_id=vlan_id, priority=priority).vlan == tag


def test_a_source_address_of_the_neighbors_own(seed):
    own = b"\x02\0\0\0\0\x77"
    world = World(seed=seed)
    a, b = world.ends()
    a.neighbor = NeighborConst(dl_source_address=own)
    a.initiate(), b.initiate()
    a.send(b"x")
    world.poll()
    assert world.wire[0][2][6:12] == own


# What arrives


def deliver(world, frame, vlan=-1):
    """Put a frame on the wire towards side b, as it is."""
    world.sides[0].link.send(frame, [], 0, 0, 0, False, vlan)
    world.poll()


def packet(end, data=b"data", *, options=b"", fragment=0x4000, protocol=6, length=None):
    """An IPv4 frame with one TCP segment for ``end`` at the start of its stream, with right checksums."""
    segment = bytearray(end.segment(0, data))
    source, destination = end.flow.remote_address, end.flow.local_address
    check = ~folded(pseudo_header(source, destination, len(segment)) + bytes(segment)) & 0xFFFF
    segment[16:18] = struct.pack("!H", check)
    words = 5 + len(options) // 4
    total = len(segment) + words * 4 if length is None else length
    ip = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, total, 1, fragment, 64, protocol, 0)
    ip += source + destination + options
    ip = ip[:10] + struct.pack("!H", ~folded(ip) & 0xFFFF) + ip[12:]
    return B + A + b"\x08\x00" + ip + bytes(segment)


@pytest.fixture
def world(seed):
    return World(seed=seed)


@pytest.fixture
def end(world):
    """The receiving end, with a request posted and its filter open for everything."""
    end = world.connect()[1]
    end.side.link.set_filter(None)
    end.receive(100)
    return end


def received(end):
    return [entry[2] for entry in end.host.took("receive")]


def test_a_segment_for_the_connection_is_processed(world, end):
    deliver(world, packet(end))
    assert received(end) == [4] and not end.host.ordinary


def test_padding_behind_the_packet_does_not_count(world, end):
    deliver(world, packet(end) + bytes(20))
    assert received(end) == [4]


@pytest.mark.parametrize(
    "change",
    [
        {"options": b"\x94\x04\0\0"},
        {"fragment": 0x2000},
        {"fragment": 0x0010},
        {"protocol": 17},
        {"length": 2000},
        {"length": 39},
    ],
    ids=["IP options", "first fragment", "later fragment", "no TCP", "too long", "too short"],
)
def test_what_is_not_for_a_target_takes_the_ordinary_path(world, end, change):
    frame = packet(end, **change)
    deliver(world, frame)
    assert end.host.ordinary == [frame] and not received(end)


@pytest.mark.parametrize("frame", [B + A + b"\x08\x06" + bytes(28), B + A + b"\x86\xdd" + bytes(46), B + A + b"\x08\0"])
def test_short_and_foreign_frames_take_the_ordinary_path(world, end, frame):
    deliver(world, frame)
    assert end.host.ordinary == [frame]


def test_another_connection_takes_the_ordinary_path(world, end):
    frame = bytearray(packet(end))
    frame[35] ^= 1
    # Its checksum has to be right in spite of the other port.
    check = struct.unpack_from("!H", frame, 50)[0] + (1 if not frame[35] & 1 else -1)
    struct.pack_into("!H", frame, 50, check)
    deliver(world, bytes(frame))
    assert end.host.ordinary == [bytes(frame)] and not received(end)


def test_a_wrong_checksum_is_the_hosts_to_judge(world, end):
    """Nobody has verified it: a flipped bit in what the network carries makes the frame one to be verified."""
    world.network.corrupt = 1.0
    for _ in range(300):
        deliver(world, packet(end))
    assert not received(end) and not end.host.took("indicate")
    assert len(end.host.ordinary) == 300 and 200 < end.side.target.frame_errors < 300
    assert end.side.target.ipv4.tcp(0) == TcpOffloadStats() and end.side.target.ipv4.ip() == IpOffloadStats()


def test_a_segment_that_is_no_segment_is_the_hosts_to_judge(world, end):
    frame = bytearray(packet(end))
    frame[46] = 1 << 4
    deliver(world, bytes(frame))
    assert not received(end) and end.host.ordinary == [bytes(frame)] and end.side.target.frame_errors == 1


@pytest.mark.parametrize(
    ("vlan_id", "tag", "accepted"),
    [(0, -1, 1), (0, 77, 1), (77, 77, 1), (77, 5 << 13 | 77, 1), (77, -1, 0), (77, 78, 0)],
)
def test_the_vlan_of_the_neighbor(world, vlan_id, tag, accepted):
    end = world.ends()[1]
    end.neighbor = NeighborConst(vlan_id=vlan_id)
    end.initiate()
    end.receive(100)
    deliver(world, packet(end), tag)
    assert received(end) == [4] * accepted
    assert end.side.target.frames_dropped == 1 - accepted


@pytest.mark.parametrize(("joined", "accepted"), [(True, [4]), (False, [])])
def test_frames_to_a_group(seed, joined, accepted):
    """tcp.rx-mac: one that the interface has joined, and no other; not to all stations either."""
    group = b"\x01\0\x5e\0\0\x01"
    config = TargetConfig(multicast_addresses=frozenset({group} if joined else ()))
    world = World(config=config, seed=seed)
    end = world.connect()[1]
    end.receive(100)
    for address in (b"\xff" * 6, group):
        deliver(world, address + packet(end)[6:])
    assert received(end) == accepted and len(end.host.ordinary) == 2 - len(accepted)


def test_what_comes_for_a_closed_connection_takes_the_ordinary_path(world, end):
    """tcp.closed-data: at once, and not after the terminate."""
    end.forward(end.segment(0, flags=2))
    world.poll()
    frame = packet(end)
    deliver(world, frame)
    assert end.host.took("INDICATE_RETRIEVE") and end.host.ordinary == [frame]


@pytest.mark.parametrize("size", [0, 10, 33, 53])
def test_the_reader_refuses_what_is_cut_off(size, world):
    end = world.ends()[1]
    whole = packet(end)
    reader = FrameReader()
    assert reader.read(memoryview(whole)) and reader.key(Frame(memoryview(whole))) == flow_key(end.flow)
    assert not reader.read(memoryview(whole[:size]))
