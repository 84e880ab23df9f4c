import pytest

from chimney.link.base import NEVER, Flow, LinkError
from chimney.link.memory import Clock, MemoryNetwork

A, B, C = (b"\x02\0\0\0\0" + bytes([i]) for i in (1, 2, 3))
MSS = 1448


@pytest.fixture
def clock():
    return Clock()


def send(frames, link, payload=b"x", *, to=B, gso_size=0, vlan=-1, **fields):
    made = frames.build(payload, macs=(to, link.mac), offload=True, **fields)
    parts = [memoryview(payload)] if payload else []
    return link.send(made.header, parts, made.csum_start, 16, gso_size, made.ipv6, vlan)


def two(clock, *args, **impairments):
    """A network with a sender and a receiver that lets everything through."""
    network = MemoryNetwork(clock, *args, **impairments)
    a, b = network.link("a", A), network.link("b", B)
    b.set_filter(None)
    return network, a, b


def drain(network, link, clock):
    """All that is under way, as (time, payload)."""
    seen = []
    while network.next_at() < NEVER:
        clock.advance_to(max(clock(), network.next_at()))
        seen += [(clock(), bytes(f.data)[66:]) for f in link.receive(64)]
    return seen


def numbered(frames, link, count):
    for i in range(count):
        assert send(frames, link, i.to_bytes(4, "big"), seq=4 * i)


def test_delay_and_next_at(frames, clock):
    network, a, b = two(clock, delay_us=250)
    assert network.next_at() == NEVER
    send(frames, a)
    assert network.next_at() == 250
    clock.advance_to(249)
    assert b.receive(10) == []
    clock.advance(1)
    (frame,) = b.receive(10)
    assert frame.checksum_ok and frame.gso_size == 0 and frame.vlan == -1
    assert frames.parse(frame.data).payload == b"x"
    assert network.next_at() == NEVER


def test_the_clock_does_not_go_back_and_never_comes_to_never(clock):
    clock.advance_to(5)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance_to(4)
    with pytest.raises(ValueError, match="nothing is going to happen"):
        clock.advance_to(NEVER)
    assert clock() == 5


def test_super_segments_are_lost_piece_by_piece(frames, clock):
    count = 0

    def every_third(_name, _frame):
        nonlocal count
        count += 1
        return count % 3 == 0

    network, a, b = two(clock, drop_if=every_third)
    payload = bytes(i % 251 for i in range(44 * MSS))
    send(frames, a, payload, gso_size=MSS)
    seen = [frames.parse(f.data) for f in b.receive(100)]
    assert [s.seq for s in seen] == [1 + MSS * i for i in range(44) if i % 3 != 2]
    assert all(s.payload == payload[s.seq - 1 : s.seq - 1 + MSS] for s in seen)
    assert network.lost == 14


def test_gro_merges_up_to_a_gap(frames, clock):
    _, a, b = two(clock, gro=True, drop_if=lambda _name, frame: frames.parse(frame).seq == 1 + 10 * MSS)
    payload = bytes(i % 251 for i in range(20 * MSS))
    send(frames, a, payload, gso_size=MSS)
    first, second = b.receive(100)
    assert bytes(first.data)[66:] == payload[: 10 * MSS]
    assert bytes(second.data)[66:] == payload[11 * MSS :]
    assert first.gso_size == second.gso_size == MSS
    assert first.checksum_ok


def test_limit_bounds_the_frames_and_keeps_the_rest(frames, clock):
    network, a, b = two(clock)
    numbered(frames, a, 5)
    assert [len(b.receive(2)) for _ in range(3)] == [2, 2, 1]
    assert network.next_at() == NEVER


def test_released_memory_is_overwritten(frames, clock):
    _, a, b = two(clock)
    numbered(frames, a, 3)
    kept = b.receive(1)[0].data[:]
    assert bytes(kept[66:]) == bytes(4)
    kept_next = b.receive(1)[0].data
    assert set(kept) == {0xDD}
    b.release()
    assert set(kept_next) == {0xDD}


@pytest.mark.parametrize("impairment", ["loss", "reorder", "duplicate", "corrupt"])
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_are_kept(frames, clock, impairment, seed):
    network, a, b = two(clock, seed, **{impairment: 0.2})
    numbered(frames, a, 2000)
    seen = drain(network, b, clock)
    counter = {"loss": "lost", "reorder": "reordered", "duplicate": "duplicated", "corrupt": "corrupted"}[impairment]
    happened = getattr(network, counter)
    assert 300 < happened < 500  # 400 expected; more than five standard deviations (18) each way
    assert len(seen) == 2000 - (impairment == "loss") * happened + (impairment == "duplicate") * happened
    order = [payload for _, payload in seen]
    if impairment != "corrupt":
        assert (order == sorted(order)) == (impairment != "reorder")
        assert len(set(order)) == 2000 - (impairment == "loss") * happened


def test_a_held_back_segment_is_late_by_no_more_than_said(frames, clock):
    network, a, b = two(clock, reorder=0.5, reorder_us=70, delay_us=30)
    numbered(frames, a, 500)
    times = [time for time, _ in drain(network, b, clock)]
    assert min(times) == 30 and 90 < max(times) <= 100


def test_jitter_delays_without_reordering(frames, clock):
    network, a, b = two(clock, delay_us=100, jitter_us=50)
    for i in range(200):
        send(frames, a, i.to_bytes(4, "big"))
        clock.advance(10)
    seen = drain(network, b, clock)
    assert [int.from_bytes(payload, "big") for _, payload in seen] == list(range(200))


def test_damage_is_told(frames, clock):
    _, a, b = two(clock, corrupt=1.0, gro=True)
    send(frames, a, bytes(2 * MSS), gso_size=MSS)
    damaged = b.receive(10)
    assert [f.checksum_ok for f in damaged] == [False, False]
    whole = [frames.build(bytes(MSS), macs=(B, A), seq=1 + i * MSS, identification=0x8000 + i).frame for i in range(2)]
    for frame, right in zip(damaged, whole, strict=True):
        difference = int.from_bytes(frame.data, "big") ^ int.from_bytes(right, "big")
        assert difference.bit_count() == 1
        assert bytes(frame.data[:14]) == right[:14]


def run(frames, seed):
    clock = Clock()
    trace = []
    network, a, b = two(
        clock,
        seed,
        loss=0.1,
        delay_us=90,
        jitter_us=40,
        reorder=0.1,
        reorder_us=200,
        duplicate=0.1,
        corrupt=0.1,
        bandwidth=10**8,
        gro=True,
        tap=lambda *event: trace.append(event),
    )
    for i in range(40):
        send(frames, a, bytes([i]) * 3000, gso_size=MSS, seq=3000 * i)
        clock.advance(100)
    while network.next_at() < NEVER:
        clock.advance_to(max(clock(), network.next_at()))
        trace.append([(bytes(f.data), f.gso_size, f.checksum_ok) for f in b.receive(3)])
    return trace


def test_a_run_is_decided_by_its_seed(frames):
    assert run(frames, 1) == run(frames, 1)
    assert run(frames, 1) != run(frames, 2)


def test_bandwidth_spaces_what_is_sent_at_once(frames, clock):
    network, a, b = two(clock, bandwidth=10**9, delay_us=10)
    send(frames, a, bytes(5 * MSS), gso_size=MSS)
    times = [time for time, _ in drain(network, b, clock)]
    # 1514 bytes and 24 of preamble, check sequence and gap take 12.304 us at 1 Gbit/s.
    assert times == [10 + 13, 10 + 25, 10 + 37, 10 + 50, 10 + 62]


def test_a_full_queue_drops_its_tail(frames, clock):
    network, a, b = two(clock, bandwidth=10**9, queue_bytes=10_000)
    send(frames, a, bytes(20 * MSS), gso_size=MSS)
    arrived = [frames.parse(f.data).seq for f in receive_later(b, clock, 10_000)]
    assert arrived == [1 + MSS * i for i in range(7)]
    assert network.lost == 13
    send(frames, a)
    assert len(receive_later(b, clock, 10_000)) == 1


def receive_later(link, clock, microseconds):
    clock.advance(microseconds)
    return link.receive(1000)


def test_a_full_send_buffer_refuses_and_says_when_there_is_room(frames, clock):
    network = MemoryNetwork(clock, bandwidth=10**9)
    a, b = network.link("a", A, send_buffer=4000), network.link("b", B)
    sent = 0
    while send(frames, a, bytes(MSS)):
        sent += 1
    assert sent == 3
    assert not a.writable()
    assert a.statistics.refused == 1
    at = network.next_at()
    clock.advance_to(at - 1)
    assert not a.writable()
    clock.advance_to(at)
    assert a.writable()
    assert send(frames, a, bytes(MSS))
    receive_later(b, clock, 1000)
    assert network.next_at() == NEVER


def test_the_filter_begins_empty_and_holds_for_what_arrives_from_then_on(frames, clock):
    network = MemoryNetwork(clock, delay_us=5)
    a, b = network.link("a", A), network.link("b", B)
    flow = Flow(bytes([10, 0, 0, 2]), 2000, bytes([10, 0, 0, 1]), 1000)

    def arrives(payload, **fields):
        send(frames, a, payload, **fields)
        clock.advance(5)

    arrives(b"0")
    b.set_filter([flow])
    arrives(b"1")
    arrives(b"2", ports=(1001, 2000))
    arrives(b"3", ports=(2000, 1000))
    arrives(b"4", source="10.0.0.9")
    arrives(b"5", fragment=0x2000)
    arrives(b"x", fragment=0x2000, source="10.0.0.9")
    b.set_filter([])
    arrives(b"6")
    b.set_filter([flow._replace(remote_port=1001), flow])
    arrives(b"7", ports=(1001, 2000))
    arrives(b"8", ip_options=b"\1\1\1\0")
    assert [bytes(f.data)[-1:] for f in b.receive(100)] == [b"1", b"5", b"7", b"8"]


def test_vlan_is_kept_and_seen_on_the_wire(frames, clock):
    seen = []
    network, a, b = two(clock, delay_us=3, tap=lambda *event: seen.append(event))
    send(frames, a, vlan=0x6005)
    clock.advance(10)
    (frame,) = b.receive(1)
    assert frame.vlan == 0x6005
    untagged = frames.build(b"x", macs=(B, A)).frame
    assert bytes(frame.data) == untagged
    tagged = untagged[:12] + b"\x81\x00\x60\x05" + untagged[12:]
    assert seen == [(0, "a", "out", tagged), (3, "b", "in", tagged)]


def test_addresses_decide_who_receives(frames, clock):
    network, a, b = two(clock)
    c = network.link("c", C)
    c.set_filter(None)
    send(frames, a, to=C)
    assert (len(b.receive(9)), len(c.receive(9))) == (0, 1)
    send(frames, a, to=b"\xff" * 6)
    assert (len(b.receive(9)), len(c.receive(9))) == (1, 1)
    c.close()
    send(frames, a, to=C)
    assert network.lost == 1
    with pytest.raises(ValueError, match="02:00:00:00:00:02"):
        network.link("again", B)


def test_misuse_is_told(frames, clock):
    _, a, b = two(clock)
    with pytest.raises(LinkError, match="1501 bytes exceeds the MTU of 1500"):
        send(frames, a, bytes(1449))
    b.close()
    b.close()
    for call in (lambda: b.receive(1), lambda: send(frames, b, to=A), b.writable):
        with pytest.raises(LinkError, match="closed"):
            call()


def test_statistics_count_super_segments_as_one(frames, clock):
    _, a, b = two(clock, gro=True)
    send(frames, a, bytes(10 * MSS), gso_size=MSS)
    b.receive(10)
    length = 66 + 10 * MSS
    assert (a.statistics.sent_frames, a.statistics.sent_bytes) == (1, length)
    assert (b.statistics.received_frames, b.statistics.received_bytes) == (1, length)


def test_an_interface_with_two_addresses():
    network = MemoryNetwork(Clock())
    a, b = network.link("a", b"\2\0\0\0\0\1"), network.link("b", b"\2\0\0\0\0\2")
    other, group = b"\2\0\0\0\0\x77", b"\xff" * 6
    network.alias(b, other)
    with pytest.raises(ValueError, match="share"):
        network.alias(a, other)
    b.set_filter(None)
    for destination in (b.mac, other, group):
        a.send(destination + a.mac + b"\x08\x06" + bytes(28), [], 0, 0, 0, False)
    assert [bytes(frame.data[:6]) for frame in b.receive(9)] == [b.mac, other, group]
    b.close()
    a.send(other + a.mac + b"\x08\x06" + bytes(28), [], 0, 0, 0, False)
    assert network.lost == 1


def test_a_frame_whose_checksums_nobody_has_verified():
    network = MemoryNetwork(Clock())
    a, b = network.link("a", b"\2\0\0\0\0\1"), network.link("b", b"\2\0\0\0\0\2")
    b.set_filter(None)
    for intact in (True, False):
        network.carry(a, bytearray(b.mac + a.mac + b"\x08\x00" + bytes(40)), -1, intact)
    assert [frame.checksum_ok for frame in b.receive(9)] == [True, False]


@pytest.mark.parametrize("seed", range(3))
def test_bursts_are_as_long_and_as_frequent_as_said(frames, clock, seed):
    network, a, b = two(clock, seed, burst=0.02, burst_length=5)
    numbered(frames, a, 20_000)
    arrived = {int.from_bytes(payload, "big") for _, payload in drain(network, b, clock)}
    bursts, length = 0, 0
    for i in range(20_000):
        if i not in arrived:
            bursts += i - 1 in arrived or i == 0
            length += 1
    assert network.lost == length
    # 364 bursts of 5.1 on average (one that begins where another ends looks like a longer one).
    assert 300 < bursts < 430 and 4.3 < length / bursts < 6


def test_a_burst_is_one_links_and_may_be_of_a_single_segment(frames, clock):
    network, a, b = two(clock, burst=1.0, burst_length=1)
    c = network.link("c", C)
    numbered(frames, a, 4)
    assert network.lost == 2  # every second one begins a burst
    send(frames, c)
    assert network.lost == 3


def test_a_partition_is_one_way_and_ends(frames, clock):
    network, a, b = two(clock)
    a.set_filter(None)
    network.partition(a, 100)
    network.partition(a, 50)  # does not end the longer one
    send(frames, a)
    send(frames, b, b"back", to=A)
    assert len(b.receive(9)) == 0 and len(a.receive(9)) == 1
    clock.advance_to(99)
    send(frames, a)
    assert network.lost == 2
    clock.advance_to(100)
    send(frames, a)
    assert len(b.receive(9)) == 1 and network.segments == 4
    network.partition(a, 200)
    network.heal()
    send(frames, a)
    assert len(b.receive(9)) == 1


def test_a_frame_can_arrive_from_nowhere(frames, clock):
    network, a, b = two(clock, loss=1.0, delay_us=500)
    frame = bytearray(frames.build(b"x", macs=(B, A)).frame)
    network.arrive(b, frame)
    assert network.next_at() == 0
    (seen,) = b.receive(9)
    assert bytes(seen.data) == frame and not seen.checksum_ok
    assert network.segments == 0


def test_what_arrives_twice_has_memory_of_its_own(frames, clock):
    _, a, b = two(clock, duplicate=1.0, corrupt=1.0)
    send(frames, a, bytes(1000))
    one, two_ = (bytes(frame.data) for frame in b.receive(9))
    assert one != two_
    send(frames, a, bytes(1000))
    assert len(b.receive(1)) == 1  # and is overwritten now
    (again,) = b.receive(1)
    assert set(bytes(again.data)) != {0xDD}


def test_a_link_without_room_has_some_when_the_bandwidth_has_no_limit_any_more(frames, clock):
    network = MemoryNetwork(clock, bandwidth=1000)
    a = network.link("a", A, send_buffer=100)
    network.link("b", B)
    while send(frames, a, bytes(100)):
        pass
    assert network.next_at() > clock()
    network.bandwidth = 0
    assert network.next_at() == clock() and a.writable()


def test_what_is_done_to_segments_is_told(frames, clock):
    network, a, b = two(clock)
    told = []
    network.happened = lambda name, what: told.append((name, what))
    send(frames, a)
    for impairment in ("loss", "reorder", "duplicate", "corrupt"):
        setattr(network, impairment, 1.0)
        send(frames, a)
        setattr(network, impairment, 0.0)
    send(frames, a, to=C)
    assert told == [("a", what) for what in ("lost", "late", "twice", "damaged", "lost")]
