"""What the demo asks of the kernel, tried for real and in small. `sandbox.attempt` calls every function here.

Each returns a few words about what worked, and raises OSError or Refused otherwise. The constants are those of
linux/tcp.h, linux/if_packet.h and linux/netfilter/nfnetlink_conntrack.h.
"""

import errno
import mmap
import select
import shutil
import socket
import struct
import subprocess

from pyroute2 import IPRoute

from chimney.cli.sandbox import Refused

SECONDS = 2.0

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS = 19, 20, 21, 22
TCP_TIMESTAMP, TCP_REPAIR_WINDOW = 24, 29
TCP_REPAIR_OFF_NO_WINDOW_PROBE = -1
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
OPTION_MSS, OPTION_WINDOW_SCALE, OPTION_TIMESTAMPS = 2, 3, 8
TCPI_OPT_TIMESTAMPS = 1

SOL_PACKET, PACKET_RX_RING, PACKET_VERSION, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 5, 10, 15, 23
TPACKET_V2 = 1
ETH_P_ALL = 3

NETLINK_NETFILTER, SUBSYSTEM_CONNTRACK = 12, 1
CT_NEW = 0
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_PROTOINFO, CTA_TIMEOUT = 1, 2, 4, 7
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST = 1, 2
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTOINFO_TCP = 1
CTA_PROTOINFO_TCP_STATE, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY = 1, 4, 5
TCP_CONNTRACK_ESTABLISHED, BE_LIBERAL = 3, 8
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400

RULES = """
table inet doctor {
    chain incoming {
        type filter hook input priority filter; policy drop;
        ct state invalid drop
        ct state established accept
        tcp dport 8000 accept
        numgen random mod 100 < 2 drop
    }
}
"""


def namespace() -> str:
    """Nothing more than to be here."""
    with open("/proc/self/uid_map") as mapping:
        whole = mapping.read().split() == ["0", "0", "4294967295"]
    return "network namespaces" if whole else "network namespaces, inside a user namespace"


def veth() -> str:
    """Makes a veth pair and brings it up."""
    with IPRoute() as routes:
        routes.link("add", ifname="doctor0", kind="veth", peer={"ifname": "doctor1"})
        for name in ("doctor0", "doctor1"):
            routes.link("set", index=routes.link_lookup(ifname=name)[0], state="up")
    return "a pair made and brought up"


def packet_socket() -> str:
    """Opens a packet socket with the virtio-net header and a mapped ring, and sees a datagram pass on loopback."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        tap.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        block, blocks, frame = 1 << 17, 2, 1 << 17
        tap.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("IIII", block, blocks, frame, blocks * block // frame))
        with mmap.mmap(tap.fileno(), block * blocks):
            tap.bind(("lo", ETH_P_ALL))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"doctor", ("127.0.0.1", 9))
            if not select.select([tap], [], [], SECONDS)[0]:
                raise Refused("a packet socket was opened, but it saw no packet on loopback")
    return "a packet seen in a mapped ring, with the virtio-net header"


def tcp_repair() -> str:
    """Takes a loopback connection out of one socket and puts it into another; it must carry bytes both ways after."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        old = socket.create_connection(listener.getsockname(), SECONDS)
        peer, _ = listener.accept()
    peer.settimeout(SECONDS)
    _exchange(old, peer)

    tcp = socket.IPPROTO_TCP
    old.setsockopt(tcp, TCP_REPAIR, 1)
    local, remote = old.getsockname(), old.getpeername()
    mss = old.getsockopt(tcp, socket.TCP_MAXSEG)
    information = old.getsockopt(tcp, socket.TCP_INFO, 8)
    negotiated, scales = information[5], information[6]
    clock = old.getsockopt(tcp, TCP_TIMESTAMP)
    window = old.getsockopt(tcp, TCP_REPAIR_WINDOW, 20)
    sequence = {}
    for queue in (RECEIVE_QUEUE, SEND_QUEUE):
        old.setsockopt(tcp, TCP_REPAIR_QUEUE, queue)
        sequence[queue] = old.getsockopt(tcp, TCP_QUEUE_SEQ, 4)
    old.close()

    with socket.socket() as new:
        new.settimeout(SECONDS)
        new.setsockopt(tcp, TCP_REPAIR, 1)
        new.bind(local)
        for queue, value in sequence.items():
            new.setsockopt(tcp, TCP_REPAIR_QUEUE, queue)
            new.setsockopt(tcp, TCP_QUEUE_SEQ, value)
        new.connect(remote)
        # tcpi_snd_wscale is the low half of the byte; the repair option wants it in the low 16 bits.
        options = [OPTION_MSS, mss, OPTION_WINDOW_SCALE, scales & 15 | scales >> 4 << 16]
        if negotiated & TCPI_OPT_TIMESTAMPS:
            options += [OPTION_TIMESTAMPS, 0]
            # Bit 0 is no time: it asks for a clock in microseconds.
            new.setsockopt(tcp, TCP_TIMESTAMP, clock & ~1)
        new.setsockopt(tcp, TCP_REPAIR_OPTIONS, struct.pack(f"{len(options)}I", *options))
        new.setsockopt(tcp, TCP_REPAIR_WINDOW, window)
        new.setsockopt(tcp, TCP_REPAIR, TCP_REPAIR_OFF_NO_WINDOW_PROBE)
        _exchange(new, peer)
        peer.close()
    return "a loopback connection taken out and put back"


def _exchange(one: socket.socket, other: socket.socket) -> None:
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(b"doctor")
        if receiver.recv(64) != b"doctor":
            raise Refused("a connection lost bytes")


def conntrack() -> str:
    """Makes a tracked connection over ctnetlink, and makes it liberal about sequence numbers."""
    client, server = ("10.255.0.1", 40000), ("10.255.0.2", 8000)
    flows = _flow(CTA_TUPLE_ORIG, client, server) + _flow(CTA_TUPLE_REPLY, server, client)
    state = _attribute(CTA_PROTOINFO_TCP_STATE, struct.pack("B", TCP_CONNTRACK_ESTABLISHED))
    liberal = b"".join(
        _attribute(kind, struct.pack("BB", BE_LIBERAL, BE_LIBERAL))
        for kind in (CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY)
    )
    _talk(flows + _tcp(state) + _attribute(CTA_TIMEOUT, struct.pack("!I", 60)), NLM_F_CREATE | NLM_F_EXCL)
    _talk(flows + _tcp(liberal), 0)
    return "a tracked connection made liberal"


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _nested(kind: int, *attributes: bytes) -> bytes:
    nla_f_nested = 0x8000
    return _attribute(kind | nla_f_nested, b"".join(attributes))


def _flow(kind: int, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    return _nested(
        kind,
        _nested(
            CTA_TUPLE_IP,
            _attribute(CTA_IP_V4_SRC, socket.inet_aton(source[0])),
            _attribute(CTA_IP_V4_DST, socket.inet_aton(destination[0])),
        ),
        _nested(
            CTA_TUPLE_PROTO,
            _attribute(CTA_PROTO_NUM, struct.pack("B", socket.IPPROTO_TCP)),
            _attribute(CTA_PROTO_SRC_PORT, struct.pack("!H", source[1])),
            _attribute(CTA_PROTO_DST_PORT, struct.pack("!H", destination[1])),
        ),
    )


def _tcp(attributes: bytes) -> bytes:
    return _nested(CTA_PROTOINFO, _nested(CTA_PROTOINFO_TCP, attributes))


def _talk(attributes: bytes, flags: int) -> None:
    """Sends one CT_NEW request; raises OSError with the kernel's answer."""
    body = struct.pack("!BBH", socket.AF_INET, 0, 0) + attributes
    kind = SUBSYSTEM_CONNTRACK << 8 | CT_NEW
    header = struct.pack("IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(SECONDS)
        netlink.send(header + body)
        (answer,) = struct.unpack_from("i", netlink.recv(4096), 16)
    if answer == -errno.EINVAL:
        raise OSError(errno.EINVAL, "the kernel refused ctnetlink (is nf_conntrack_netlink there?)")
    if answer:
        raise OSError(-answer, "the kernel refused ctnetlink")


def nftables() -> str:
    """Loads the kind of rules that the demo's firewall consists of."""
    nft = shutil.which("nft")
    if nft is None:
        raise Refused("the program nft is not installed")
    done = subprocess.run([nft, "-f", "-"], input=RULES, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise Refused("nft: " + done.stderr.strip().splitlines()[0])
    return "a stateful firewall and random loss loaded"
