"""The filter programs, run by an interpreter, against what flow_of and part_of say of the same frames."""

import struct
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.link import bpf
from chimney.link.base import Flow
from chimney.link.flows import EXTENSIONS, flow_of, part_of

TO_US, OTHERHOST = 0, 3


def run(program, frame, packet_type=TO_US, network=0):
    """What a program returns; checks what the kernel's verifier checks. Loads behind the end return 0.

    `network`: how far before the frame's beginning the network header is (SKF_NET_OFF).
    """
    code = program.instructions
    assert 0 < len(code) <= bpf.MAX_INSTRUCTIONS
    a = x = pc = 0
    while True:
        op, yes, no, k = code[pc]
        assert 0 <= yes <= 255 and 0 <= no <= 255 and 0 <= k < 2**32
        pc += 1
        if op == 0x06:
            return k
        if op == 0x05:
            pc += k
        elif op & 7 == 5:
            pc += yes if {0x15: a == k, 0x35: a >= k, 0x45: bool(a & k)}[op] else no
        elif op == 0x30 and k == 2**32 - 0x1000 + 4:
            a = packet_type
        else:
            at = network + k + (x if op in (0x40, 0x48) else 0)
            if k >= 2**32 - 0x100000:
                at = k - (2**32 - 0x100000)
            size = {0x20: 4, 0x40: 4, 0x28: 2, 0x48: 2, 0x30: 1, 0xB1: 1}[op]
            if at + size > len(frame):
                return 0
            value = int.from_bytes(frame[at : at + size], "big")
            if op == 0xB1:
                x = 4 * (value & 15)
            else:
                a = value


def flow(local, local_port, remote, remote_port):
    return Flow(ip_address(local).packed, local_port, ip_address(remote).packed, remote_port)


def frame_of(frames, f, **fields):
    """A received frame of the flow."""
    return frames.build(
        source=str(ip_address(f.remote_address)),
        destination=str(ip_address(f.local_address)),
        ports=(f.remote_port, f.local_port),
        **fields,
    ).frame


def some_flows(seed, count, *, remotes, ipv6=0.5):
    """Flows of a server: few local addresses and ports, `remotes` remote addresses."""
    random = Random(seed)
    flows = set()
    while len(flows) < count:
        if random.random() < ipv6:
            local = ip_address("fd00::1")
            remote = ip_address((0xFD << 120) + random.randrange(remotes) * 0x1_0000_0001_0000_0001)
        else:
            local = ip_address("10.0.0.1")
            remote = ip_address(0x0B000000 + random.randrange(remotes))
        flows.add(Flow(local.packed, random.choice((80, 443)), remote.packed, random.randrange(1024, 65536)))
    return sorted(flows)


def neighbours(f):
    """Flows that differ in one field, by the least."""
    one_off = f.remote_address[:-1] + bytes([f.remote_address[-1] ^ 1])
    return [
        f._replace(local_port=f.local_port ^ 1),
        f._replace(remote_port=f.remote_port ^ 1),
        f._replace(remote_address=one_off),
        f._replace(remote_address=bytes([f.remote_address[0] ^ 0x80]) + f.remote_address[1:]),
        f._replace(local_address=f.local_address[:-1] + bytes([f.local_address[-1] ^ 1])),
        Flow(f.remote_address, f.remote_port, f.local_address, f.local_port),
    ]


def test_no_flows_let_nothing_through(frames):
    program = bpf.compile_filter([])
    assert run(program, frames.build().frame) == 0
    assert program.precision == bpf.Precision.FLOWS


def test_all_may_pass(frames):
    assert run(bpf.accept_all(), b"", OTHERHOST) > 70000


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17, 100, 400])
@pytest.mark.parametrize("remotes", [1, 4, 100000])
@pytest.mark.parametrize("ipv6", [0, 0.5, 1])
def test_exactly_the_flows_pass(frames, count, remotes, ipv6):
    if count == 400 and remotes == 100000 and ipv6:
        count = 150  # that many IPv6 addresses without anything in common are too many for a program
    flows = some_flows(count, count, remotes=remotes, ipv6=ipv6)
    program = bpf.compile_filter(flows)
    assert program.precision == bpf.Precision.FLOWS
    wanted = set(flows)
    for f in Random(1).sample(flows, min(count, 50)):
        assert run(program, frame_of(frames, f)) > 70000
        for other in neighbours(f):
            assert (run(program, frame_of(frames, other)) > 0) == (other in wanted)


FLOWS = [flow("10.0.0.1", 80, "10.0.0.2", 5000), flow("fd00::1", 80, "fd00::2", 5000)]


@pytest.mark.parametrize("f", FLOWS, ids=["ipv4", "ipv6"])
def test_a_program_for_one_family_rejects_the_other(frames, f):
    program = bpf.compile_filter([f])
    assert [run(program, frame_of(frames, g)) > 0 for g in FLOWS] == [g == f for g in FLOWS]


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"ip_options": b"\1" * 4}, True),
        ({"ip_options": b"\1" * 40}, True),
        ({"tcp_options": b""}, True),
        ({"fragment": 0}, True),
        ({"fragment": 0x2000}, True),
        ({"fragment": 1}, True),
        ({"fragment": 1, "protocol": 17}, False),
        ({"protocol": 17}, False),
    ],
    ids=str,
)
def test_ipv4_forms(frames, fields, passes):
    frame = frame_of(frames, FLOWS[0], **fields)
    assert (run(bpf.compile_filter(FLOWS), frame) > 0) == passes == wanted(frame, FLOWS)


def wanted(frame, flows):
    """Whether it is of a flow, or may be part of one."""
    pairs = [(f.local_address, f.remote_address) for f in flows]
    return flow_of(frame) in flows or part_of(frame) in pairs


@pytest.mark.parametrize("next_header", [*EXTENSIONS, 17, 50, 51, 58, 59, 135])
def test_ipv6_extension_headers(frames, next_header):
    program = bpf.compile_filter(FLOWS)
    for f in (FLOWS[1], *neighbours(FLOWS[1])):
        frame = bytearray(frame_of(frames, f))
        frame[20] = next_header
        same = f._replace(local_port=80, remote_port=5000) == FLOWS[1]
        assert (run(program, frame) > 0) == (same and next_header in EXTENSIONS) == wanted(frame, FLOWS)


@pytest.mark.parametrize("f", FLOWS, ids=["ipv4", "ipv6"])
def test_frames_for_another_station_are_not_for_us(frames, f):
    assert run(bpf.compile_filter(FLOWS), frame_of(frames, f), OTHERHOST) == 0


@pytest.mark.parametrize("f", FLOWS, ids=["ipv4", "ipv6"])
def test_truncated_frames_are_rejected(frames, f):
    program = bpf.compile_filter(FLOWS)
    frame = frame_of(frames, f)
    ports_end = (34 if f is FLOWS[0] else 54) + 4
    assert not any(run(program, frame[:n]) for n in range(ports_end))
    assert run(program, frame[:ports_end])


@given(data=st.data())
def test_damaged_frames_fare_as_flow_of_and_part_of_say(frames, data):
    program = bpf.compile_filter(FLOWS)
    frame = bytearray(frame_of(frames, data.draw(st.sampled_from(FLOWS))))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, 57))] = data.draw(st.integers(0, 255))
    assert (run(program, frame) > 0) == wanted(frame, FLOWS)


def test_fragments_of_very_many_flows_come_from_anywhere(frames):
    """Rather than that the flows are not told apart."""
    many = some_flows(1, 900, remotes=2**24, ipv6=0)
    program = bpf.compile_filter(many)
    assert program.precision == bpf.Precision.FLOWS
    assert run(program, frame_of(frames, FLOWS[0], fragment=1)) and not run(program, frame_of(frames, FLOWS[0]))


@pytest.mark.parametrize("ipv6", [0, 1])
@pytest.mark.parametrize("count", [1, 40])
def test_raw_sockets_get_exactly_the_flows(frames, count, ipv6):
    flows = some_flows(count, count, remotes=4, ipv6=ipv6)
    program = bpf.compile_raw_filter(flows)
    assert program.precision == bpf.Precision.FLOWS
    wanted = set(flows)
    for f in flows:
        assert heard(program, frames, f) > 70000
        if not ipv6:
            assert heard(program, frames, f, ip_options=b"\1" * 12) > 70000
        for other in neighbours(f):
            assert (heard(program, frames, other) > 0) == (other in wanted)


def test_raw_sockets_tell_very_many_flows_apart_by_local_port(frames):
    flows = some_flows(1, 5000, remotes=5000, ipv6=1)
    program = bpf.compile_raw_filter(flows)
    assert program.precision == bpf.Precision.LOCAL_PORTS
    assert heard(program, frames, flows[0]._replace(remote_port=1))
    assert not heard(program, frames, flows[0]._replace(local_port=81))


def heard(program, frames, f, **fields):
    """What a program returns for a packet as a raw socket's filter sees it."""
    return run(program, frame_of(frames, f, **fields)[14:], network=40 if len(f.local_address) == 16 else 0)


def test_how_many_flows_a_program_holds():
    """So that a change that makes programs longer is noticed. Remotes: one with many connections, or each with one."""
    for count, remotes, ipv6 in ((3000, 1, 0), (2950, 1, 1), (900, 2**24, 0), (300, 2**24, 1)):
        program = bpf.compile_filter(some_flows(1, count, remotes=remotes, ipv6=ipv6))
        assert program.precision == bpf.Precision.FLOWS, (count, remotes, ipv6, len(program.instructions))


def test_too_many_flows_are_told_apart_by_local_port(frames):
    flows = some_flows(1, 5000, remotes=5000)
    program = bpf.compile_filter(flows)
    assert program.precision == bpf.Precision.LOCAL_PORTS
    for f in (flows[0], flows[-1]):
        assert run(program, frame_of(frames, f))
        assert run(
            program, frame_of(frames, f, ip_options=b"\1" * 8) if len(f.local_address) == 4 else frame_of(frames, f)
        )
        assert run(program, frame_of(frames, f._replace(remote_port=1)))
        assert not run(program, frame_of(frames, f._replace(local_port=81)))


def test_too_many_local_ports_leave_tcp_of_the_families_in_use(frames):
    flows = [flow("10.0.0.1", port, "10.0.0.2", port) for port in range(1, 9000)]
    program = bpf.compile_filter(flows)
    assert program.precision == bpf.Precision.ANY_TCP
    assert run(program, frame_of(frames, flows[0]._replace(local_port=10000)))
    assert not run(program, frame_of(frames, FLOWS[1]))
    assert not run(program, frame_of(frames, flows[0], protocol=17))
    assert not run(program, frame_of(frames, flows[0]), OTHERHOST)


def test_a_coarser_program_can_be_asked_for(frames):
    program = bpf.compile_filter(FLOWS, at_most=bpf.Precision.LOCAL_PORTS)
    assert program.precision == bpf.Precision.LOCAL_PORTS
    assert run(program, frame_of(frames, FLOWS[0]._replace(remote_port=1)))


def test_packed_as_the_kernel_reads_it():
    program = bpf.Program([(0x15, 1, 2, 0xFFFFFFFF), (0x06, 0, 0, 7)], bpf.Precision.FLOWS)
    assert program.pack() == struct.pack("=HBBIHBBI", 0x15, 1, 2, 0xFFFFFFFF, 0x06, 0, 0, 7)
