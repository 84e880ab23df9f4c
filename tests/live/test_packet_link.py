"""PacketLink on real interfaces: frames sent by one link arrive on another, or come from the kernel's own TCP."""

import errno
import gc
import importlib.util
import os
import select
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from chimney.host.linux.tcp_info import tcp_info
from chimney.lab.namespace import Namespace, can_make_namespaces
from chimney.lab.wire import set_offloads, veth_pair
from chimney.link.base import Flow, LinkError
from chimney.link.bpf import Precision
from chimney.link.packet import PacketLink

SECONDS = 10

# Test folders are no packages: the frames made by hand are fetched by path.
_spec = importlib.util.spec_from_file_location("link_conftest", Path(__file__).parents[1] / "link" / "conftest.py")
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
frames = _conftest.frames

pytestmark = pytest.mark.skipif(
    not can_make_namespaces(), reason="network namespaces need root; run `unshare -Urn` or be root"
)

V4 = {"source": "10.9.0.1", "destination": "10.9.0.2"}
V6 = {"source": "fd09::1", "destination": "fd09::2"}
both = pytest.mark.parametrize("addresses", [V4, V6], ids=["ipv4", "ipv6"])


class Wire:
    """A veth pair and a link on each end; the right one lets everything through."""

    def __init__(self, stack, frames, mtu=1500, offloads=True, send_buffer=1 << 20, **options):
        self.frames = frames
        self.a, self.b = (stack.enter_context(closing(Namespace())) for _ in range(2))
        self.end_a, self.end_b = veth_pair(self.a, self.b, mtu=mtu)
        if not offloads:
            set_offloads(self.a, self.end_a.name, False)
            set_offloads(self.b, self.end_b.name, False)
        with self.a:
            self.left = stack.enter_context(closing(PacketLink(self.end_a.name, slots=64, send_buffer=send_buffer)))
        with self.b:
            self.right = stack.enter_context(closing(PacketLink(self.end_b.name, **{"slots": 64, **options})))
        self.right.set_filter(None)

    def make(self, payload=b"x", **fields):
        return self.frames.build(payload, macs=(self.end_b.mac, self.end_a.mac), offload=True, **{**V4, **fields})

    def send(self, payload=b"x", *, gso_size=0, vlan=-1, pieces=1, **fields):
        made = self.make(payload, **fields)
        return transmit(self.left, made, gso_size, vlan, pieces)

    def packets(self, until, limit=64):
        """Copies of the TCP frames that arrive, up to and including the first for which until(frame) is true."""
        return collect(self.right, until, limit)


def transmit(link, made, gso_size=0, vlan=-1, pieces=1):
    view = memoryview(made.payload)
    step = max(1, -(-len(view) // pieces))
    parts = [view[i : i + step] for i in range(0, len(view), step)]
    return link.send(made.header, parts, made.csum_start, 16, gso_size, made.ipv6, vlan)


def wait(link, events=select.POLLIN):
    poll = select.poll()
    poll.register(link, events)
    assert poll.poll(SECONDS * 1000), "nothing happened"


def collect(link, until, limit=64):
    seen = []
    while True:
        wait(link)
        for frame in link.receive(limit):
            data = bytes(frame.data)
            if not is_tcp(data):
                continue
            seen.append(
                SimpleNamespace(data=data, vlan=frame.vlan, checksum_ok=frame.checksum_ok, gso_size=frame.gso_size)
            )
            if until(seen[-1]):
                link.release()
                return seen
        link.release()


def is_tcp(data):
    """The kernel may speak too, if only to find its neighbours."""
    return data[12:14] == b"\x08\x00" and data[23] == 6 or data[12:14] == b"\x86\xdd" and data[20] == 6


def ends_with(mark):
    return lambda frame: frame.data.endswith(mark)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def wire(stack, frames):
    return Wire(stack, frames)


@both
@pytest.mark.parametrize("offloads", [True, False], ids=["tso", "no-tso"])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_super_segments_arrive_whole(stack, frames, mtu, offloads, addresses):
    wire = Wire(stack, frames, mtu, offloads)
    mss = mtu - (72 if addresses is V6 else 52)
    data = bytes(i * 7 % 251 for i in range(60000)) + b"end"
    assert wire.send(data, gso_size=mss, pieces=7, flags=0x18, **addresses)
    seen = wire.packets(ends_with(b"end"))
    header = len(wire.make(**addresses).header)
    assert b"".join(f.data[header:] for f in seen) == data
    if offloads:
        (frame,) = seen
        assert (frame.gso_size, frame.checksum_ok, frame.vlan) == (mss, True, -1)
    else:
        assert [f.gso_size for f in seen] == [0] * -(-len(data) // mss)
        parsed = [frames.parse(f.data) for f in seen]
        assert [p.seq for p in parsed] == list(range(1, 1 + len(data), mss))
        assert [p.flags for p in parsed] == [0x10] * (len(parsed) - 1) + [0x18]


@both
@pytest.mark.parametrize("offloads", [True, False], ids=["tso", "no-tso"])
@pytest.mark.parametrize("gso_size", [0, 1000])
def test_vlan_tags_are_kept(stack, frames, addresses, offloads, gso_size):
    wire = Wire(stack, frames, offloads=offloads)
    data = bytes(4000 if gso_size else 1000) + b"end"
    assert wire.send(data, vlan=0x6005, gso_size=gso_size, **addresses)
    seen = wire.packets(ends_with(b"end"))
    assert {f.vlan for f in seen} == {0x6005}
    header = len(wire.make(**addresses).header)
    assert b"".join(f.data[header:] for f in seen) == data
    if not offloads:
        for f in seen:
            frames.parse(f.data)


@both
def test_more_pieces_than_a_system_call_takes(wire, frames, addresses):
    data = bytes(i % 251 for i in range(6000)) + b"end"
    assert wire.send(data, gso_size=1400, pieces=6003, **addresses)
    (frame,) = wire.packets(ends_with(b"end"))
    assert frame.data.endswith(data)


def test_a_complete_frame_is_sent_as_it_is(wire, frames):
    made = frames.build(b"end", macs=(wire.end_b.mac, wire.end_a.mac), **V4)
    assert wire.left.send(made.frame, [], 0, 0, 0, False)
    (frame,) = wire.packets(ends_with(b"end"))
    assert frame.data == made.frame
    assert not frame.checksum_ok
    frames.parse(frame.data)


def test_the_filter_begins_empty_and_is_exact(stack, frames):
    wire = Wire(stack, frames)
    with wire.b:
        link = stack.enter_context(closing(PacketLink(wire.end_b.name, slots=64)))
    flows = [
        Flow(socket.inet_pton(family, a["destination"]), 2000, socket.inet_pton(family, a["source"]), 1000)
        for family, a in ((socket.AF_INET, V4), (socket.AF_INET6, V6))
    ]
    wire.send(b"before")
    link.set_filter(flows)
    assert link.precision == Precision.FLOWS
    for addresses in (V4, V6):
        for ports in ((1001, 2000), (1000, 2001), (2000, 1000)):
            wire.send(b"others", ports=ports, **addresses)
    wire.send(b"fragment", fragment=0x2000)
    wire.send(b"v4", **V4)
    wire.send(b"v4 options", ip_options=b"\1" * 4)
    wire.send(b"v4 tagged", vlan=7)
    wire.send(b"v6", **V6)
    wire.send(b"v6 tagged", vlan=7, **V6)
    stranger = frames.build(b"stranger", macs=(b"\x02" * 6, wire.end_a.mac), **V4, offload=True)
    transmit(wire.left, stranger)
    wire.send(b"end")
    wanted = [b"fragment", b"v4", b"v4 options", b"v4 tagged", b"v6", b"v6 tagged", b"end"]
    seen = collect(link, ends_with(b"end"))
    assert len(seen) == len(wanted)
    assert all(f.data.endswith(payload) for f, payload in zip(seen, wanted, strict=True))
    link.set_filter([])
    wire.send(b"after")
    link.set_filter(flows)
    wire.send(b"end")
    assert len(collect(link, ends_with(b"end"))) == 1


def optmem(namespace, value):
    """Bounds the memory of a socket's filter. On kernels where no namespace has its own bound it is 20480 anyway."""
    try:
        namespace.sysctl("net.core.optmem_max", value)
    except FileNotFoundError:
        pass


def many_flows(count):
    """Of one remote address and the local ports 2000 and 2001, beginning with remote port 1000."""
    local, remote = socket.inet_aton("10.9.0.2"), socket.inet_aton("10.9.0.1")
    return [Flow(local, 2000 + port % 2, remote, port) for port in range(1000, 1000 + count)]


def test_the_kernel_takes_a_program_for_hundreds_of_flows(wire):
    optmem(wire.b, 20480)
    wire.right.set_filter(many_flows(500))
    assert wire.right.precision == Precision.FLOWS
    wire.send(b"first")
    wire.send(b"other", ports=(1000, 2001))
    wire.send(b"end", ports=(1499, 2001))
    assert len(wire.packets(ends_with(b"end"))) == 2


def test_a_program_that_the_kernel_has_no_memory_for_is_replaced_by_a_coarser_one(wire):
    optmem(wire.b, 20480)
    wire.right.set_filter(many_flows(2500))
    assert wire.right.precision == Precision.LOCAL_PORTS
    wire.send(b"other", ports=(1000, 1999))
    wire.send(b"passes, though not wanted", ports=(1000, 2001))
    wire.send(b"end", ports=(1001, 2001))
    assert len(wire.packets(ends_with(b"end"))) == 2


def test_a_frame_is_seen_once_on_lo(stack, frames):
    namespace = stack.enter_context(closing(Namespace()))
    with namespace:
        link = stack.enter_context(closing(PacketLink("lo", slots=64)))
    assert link.mac == bytes(6) and link.mtu == 65536
    link.set_filter([Flow(b"\x7f\0\0\1", 2000, b"\x7f\0\0\1", 1000)])
    for payload in (b"1", b"2", bytes(60000), b"end"):
        made = frames.build(
            payload, source="127.0.0.1", destination="127.0.0.1", macs=(bytes(6), bytes(6)), offload=True
        )
        assert transmit(link, made)
    seen = collect(link, ends_with(b"end"))
    assert [len(f.data) - 66 for f in seen] == [1, 1, 60000, 3]
    assert all(f.checksum_ok for f in seen)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["lo", "veth"])
def test_what_the_kernel_sends_is_read_once_and_whole(stack, frames, family, where):
    if where == "lo":
        ours = theirs = stack.enter_context(closing(Namespace()))
        name, address = "lo", "127.0.0.1" if family == socket.AF_INET else "::1"
    else:
        wire = Wire(stack, frames)
        ours, theirs, name, address = wire.b, wire.a, wire.end_b.name, wire.end_b.address(family)
    listener = stack.enter_context(ours.socket(family))
    listener.bind((address, 0))
    listener.listen()
    client = stack.enter_context(theirs.socket(family))
    with ours:
        link = stack.enter_context(closing(PacketLink(name)))
    client.connect(listener.getsockname()[:2])
    server = stack.enter_context(listener.accept()[0])
    local, remote = server.getsockname(), server.getpeername()
    link.set_filter(
        [Flow(socket.inet_pton(family, local[0]), local[1], socket.inet_pton(family, remote[0]), remote[1])]
    )
    data = os.urandom(300_000)
    client.setblocking(False)
    sent, received = 0, bytearray()
    while len(received) < len(data):
        if sent < len(data):
            try:
                sent += client.send(data[sent:])
            except BlockingIOError:
                pass
        received += server.recv(1 << 16)
    client.shutdown(socket.SHUT_WR)
    header = 66 if family == socket.AF_INET else 86
    seen = collect(link, lambda f: f.data[header - 32 + 13] & 1)
    payload = [f for f in seen if len(f.data) > header]
    # Nothing is missing or altered, and nothing is there twice that was sent once.
    numbers = [int.from_bytes(f.data[header - 28 : header - 24], "big") for f in payload]
    first = min(numbers, key=lambda seq: (seq - numbers[0] + 2**31) % 2**32)
    stream = bytearray(len(data))
    for seq, frame in zip(numbers, payload, strict=True):
        at = (seq - first) % 2**32
        stream[at : at + len(frame.data) - header] = frame.data[header:]
    assert stream == data
    assert sum(len(f.data) - header for f in payload) == len(data) + tcp_info(client)["tcpi_bytes_retrans"]
    assert all(f.checksum_ok for f in seen)
    assert any(f.gso_size for f in payload)
    assert link.statistics.received_drops == 0


def test_the_device_goes_down_and_comes_back_and_is_gone(wire):
    name = wire.end_b.name
    assert wire.right.receive(1) == []
    wire.b.run(["ip", "link", "set", name, "down"])
    with pytest.raises(LinkError, match=f"{name}: the network interface is down") as caught:
        wire.right.receive(1)
    assert caught.value.errno == errno.ENETDOWN
    with pytest.raises(LinkError, match="is down"):
        transmit(wire.right, wire.make())
    wire.b.run(["ip", "link", "set", name, "up"])
    wire.send(b"end")
    assert len(wire.packets(ends_with(b"end"))) == 1
    wire.b.run(["ip", "link", "del", name])
    with pytest.raises(LinkError, match="no such network interface"):
        wire.right.receive(1)
    with pytest.raises(LinkError, match="no such network interface"):
        transmit(wire.right, wire.make())


def test_a_full_device_refuses_and_wakes(stack, frames):
    wire = Wire(stack, frames, send_buffer=100_000)
    shape(wire, rate="20mbit", burst="64kb", limit="64mb")
    made = wire.make(bytes(1400))
    sent = 0
    while transmit(wire.left, made):
        sent += 1
        assert sent < 10_000
    assert not wire.left.writable()
    assert wire.left.statistics.refused == 1
    assert wire.left.statistics.sent_frames == sent
    wait(wire.left, select.POLLOUT)
    assert wire.left.writable()
    assert transmit(wire.left, made)


def shape(wire, **token_bucket):
    parameters = [word for pair in token_bucket.items() for word in pair]
    wire.a.run(["tc", "qdisc", "add", "dev", wire.end_a.name, "root", "tbf", *parameters])


def test_a_frame_that_the_queue_drops_was_not_sent(wire):
    shape(wire, rate="8kbit", burst="2kb", limit="3kb")
    results = [wire.send(bytes(1000)) for _ in range(10)]
    assert results[0] and not results[-1]
    assert wire.left.statistics.refused == results.count(False)
    assert wire.left.statistics.sent_frames == results.count(True)


def test_a_full_ring_drops_and_counts(stack, frames):
    wire = Wire(stack, frames, slots=4)
    wire.right.set_filter([Flow(b"\x0a\x09\0\2", 2000, b"\x0a\x09\0\1", 1000)])
    for i in range(10):
        wire.send(bytes([i]))
    wait(wire.right)
    seen = [bytes(f.data[-1:]) for f in wire.right.receive(3)]
    seen += [bytes(f.data[-1:]) for f in wire.right.receive(3)]
    assert seen == [bytes([i]) for i in range(4)]
    assert wire.right.statistics.received_drops == 6
    wire.send(b"end")
    assert len(wire.packets(ends_with(b"end"))) == 1
    assert wire.right.statistics.received_frames == 5


def test_a_frame_too_large_for_its_slot_is_dropped(stack, frames):
    wire = Wire(stack, frames, largest_frame=1000)
    wire.right.set_filter([Flow(b"\x0a\x09\0\2", 2000, b"\x0a\x09\0\1", 1000)])
    wire.send(bytes(1400))
    wire.send(b"end")
    assert len(wire.packets(ends_with(b"end"))) == 1
    assert wire.right.statistics.received_drops == 1


def test_the_ring_goes_round(stack, frames):
    wire = Wire(stack, frames, slots=5)
    for i in range(23):
        wire.send(b"frame %d" % i)
        (frame,) = wire.packets(ends_with(b"frame %d" % i), limit=1)


def test_readable_until_released(wire):
    wire.right.set_filter([Flow(b"\x0a\x09\0\2", 2000, b"\x0a\x09\0\1", 1000)])
    poll = select.poll()
    poll.register(wire.right, select.POLLIN)
    assert not poll.poll(0)
    wire.send(b"end")
    wait(wire.right)
    assert len(wire.right.receive(10)) == 1
    assert poll.poll(0)
    wire.right.release()
    assert not poll.poll(0)


def test_frames_outlive_the_link_unharmed(wire):
    wire.send(b"end")
    wait(wire.right)
    kept = [f.data for f in wire.right.receive(10) if is_tcp(bytes(f.data))]
    wire.right.close()
    wire.right.close()
    assert wire.right.fileno() == -1
    wire.send(b"more")
    gc.collect()
    assert bytes(kept[0]).endswith(b"end")
    for call in (lambda: wire.right.receive(1), lambda: transmit(wire.right, wire.make()), wire.right.writable):
        with pytest.raises(LinkError, match="closed"):
            call()
    with pytest.raises(LinkError, match="closed"):
        wire.right.set_filter([])
    assert wire.right.statistics.received_frames >= 1


def test_a_link_that_cannot_be_opened_leaves_no_descriptor(wire):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    gc.disable()
    try:
        before = descriptors()
        with wire.a, pytest.raises(LinkError, match="nowhere"):
            PacketLink("nowhere")
        assert descriptors() == before
    finally:
        gc.enable()


def test_misuse_is_told(stack, wire):
    with pytest.raises(LinkError, match="exceeds the MTU") as caught:
        wire.send(bytes(1460))
    assert caught.value.errno == errno.EMSGSIZE
    with wire.a:
        with pytest.raises(LinkError, match="nowhere: there is no such network interface"):
            PacketLink("nowhere")
    made = wire.make()
    with pytest.raises(LinkError, match="disagree"):
        wire.left.send(made.header, [], 9000, 16, 0, False)


def test_without_the_privilege_the_error_says_so():
    program = (
        "import os\n"
        "from chimney.link.packet import PacketLink\n"
        "os.getuid() or os.setresuid(65534, 65534, 65534)\n"
        "try: PacketLink('lo')\n"
        "except OSError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "lo: a packet socket needs CAP_NET_RAW" in said


def test_all_of_this_in_a_user_namespace():
    """Where SO_SNDBUFFORCE and its like are refused. Root is the only user there."""
    others = "not user_namespace and not privilege"
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", others, __file__]
    done = subprocess.run(
        [sys.executable, "-m", "chimney.lab.namespace", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
