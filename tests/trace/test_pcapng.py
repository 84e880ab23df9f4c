"""The file format, read back by a reader that is written from the format's description alone, and by tcpdump
where there is one.
"""

import io
import os
import shutil
import struct
import subprocess

import pytest

from chimney.conformance.handshake import IPV4, MACS
from chimney.conformance.wire import ETHER_IPV4, ethernet, ip_packet
from chimney.link.memory import Clock, MemoryNetwork
from chimney.sim.case import Case, Offload, Read, Send, Upload
from chimney.sim.run import run
from chimney.trace import Capture, PcapngWriter


def options_of(data):
    found = []
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert length == 0 and len(data) == 4, "nothing stands behind the end of the options"
            break
        found.append((code, data[4 : 4 + length]))
        data = data[4 + length + (-length) % 4 :]
    return found


def blocks_of(data):
    """(type, body) of every block; both lengths must agree, and be multiples of 4."""
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length >= 12 and length % 4 == 0 and length <= len(data)
        assert struct.unpack_from("<I", data, length - 4)[0] == length
        yield kind, data[8 : length - 4]
        data = data[length:]


def read(data):
    """(interfaces as options, packets as (interface, microseconds, frame, options))."""
    blocks = list(blocks_of(data))
    kind, section = blocks[0]
    assert kind == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", section) == (0x1A2B3C4D, 1, 0, -1)
    interfaces, packets = [], []
    for kind, body in blocks[1:]:
        if kind == 1:
            link_type, _, _ = struct.unpack_from("<HHI", body)
            assert link_type == 1
            interfaces.append(dict(options_of(body[8:])))
        else:
            assert kind == 6
            interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert captured == original and interface < len(interfaces)
            frame = body[20 : 20 + captured]
            packets.append((interface, high << 32 | low, frame, options_of(body[20 + captured + (-captured) % 4 :])))
    return interfaces, packets


@pytest.fixture
def written():
    file = io.BytesIO()
    return file, PcapngWriter(file, "a test")


@pytest.mark.parametrize("size", [60, 61, 62, 63, 1514])
def test_a_packet_comes_back(written, size):
    file, writer = written
    one, other = writer.interface("a", "the left one"), writer.interface("b")
    frame = bytes(range(256)) * 6
    writer.packet(other, 1_000_000_123, frame[:size], outbound=True, comments=["cut", "Überraschung"])
    writer.packet(one, 5 << 32, memoryview(frame)[:size], outbound=False)
    writer.packet(one, (5 << 32) + 1, bytearray(frame[:size]))
    interfaces, packets = read(file.getvalue())
    assert interfaces == [{2: b"a", 3: b"the left one", 9: b"\x06"}, {2: b"b", 9: b"\x06"}]
    comments = [(1, b"cut"), (1, "Überraschung".encode())]
    assert packets == [
        (1, 1_000_000_123, frame[:size], [*comments, (2, b"\2\0\0\0")]),
        (0, 5 << 32, frame[:size], [(2, b"\1\0\0\0")]),
        (0, (5 << 32) + 1, frame[:size], []),
    ]


def test_a_comment_that_is_too_long_is_cut_between_characters(written):
    file, writer = written
    writer.packet(writer.interface("a"), 1, b"frame", comments=["ü" * 40_000])
    _, ((_, _, _, ((_, comment),)),) = read(file.getvalue())
    assert comment.decode() == "ü" * 32_767


def test_an_interface_that_nobody_has_described(written):
    _, writer = written
    with pytest.raises(ValueError, match="interface 0"):
        writer.packet(0, 1, b"")


def captured():
    """Two packets, the second one of which is lost."""
    file, clock = io.BytesIO(), Clock(1_000_000_000)
    capture = Capture(file)
    lost = iter((False, True))
    network = MemoryNetwork(clock, delay_us=200, drop_if=lambda name, frame: next(lost), tap=capture.tap)
    links = [network.link(name, mac) for name, mac in zip("ab", MACS, strict=True)]
    links[1].set_filter(None)
    udp = struct.pack("!HHHH", 1000, 2000, 12, 0) + b"data"
    frame = ethernet(MACS[1], MACS[0], ETHER_IPV4, ip_packet(*IPV4, udp, protocol=17))
    capture.remark("the first one")
    for _ in range(2):
        links[0].send(frame, [], 0, 0, 0, False)
        clock.advance(500)
    links[1].receive(1)
    return file.getvalue(), frame


def test_a_network_is_captured_at_both_ends():
    data, frame = captured()
    interfaces, packets = read(data)
    assert [interface[2] for interface in interfaces] == [b"a", b"b"]
    assert [(interface, at, found, dict(options).get(1, b"")) for interface, at, found, options in packets] == [
        (0, 1_000_000_000, frame, b"the first one"),
        (0, 1_000_000_500, frame, b""),
        (1, 1_000_000_200, frame, b""),
    ]


def test_a_simulated_run_is_captured():
    """Every segment that leaves a machine, every one that reaches one, and what the log says in between."""
    file = io.BytesIO()
    capture = Capture(file)
    steps = (Read(at=0, side="b"), Send(at=0, side="a", size=5000), Offload(at=300), Upload(at=700))
    outcome = run(Case(steps=steps), log=capture.remark, tap=capture.tap)
    assert outcome.findings == []
    _, packets = read(file.getvalue())
    directions = [dict(options)[2] for *_, options in packets]
    assert directions.count(b"\2\0\0\0") == directions.count(b"\1\0\0\0") == outcome.segments
    assert [at for _, at, _, _ in packets] == sorted(at for _, at, _, _ in packets)
    remarks = [value.decode() for *_, options in packets for code, value in options if code == 1]
    assert any("the target has it" in remark for remark in remarks)


def test_tcpdump_reads_it(tmp_path):
    program = shutil.which("tcpdump") or shutil.which("tcpdump", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("tcpdump is not installed; the reader above has checked the file in any case")
    path = tmp_path / "run.pcapng"
    path.write_bytes(captured()[0])
    # Root's tcpdump would go on as a user of its own.
    tcpdump = ["-nn", *(["-Z", "root"] if os.geteuid() == 0 else []), "-r"]
    said = subprocess.run([program, *tcpdump, str(path)], capture_output=True, text=True, check=True).stdout
    assert said.count("2000") == 3
