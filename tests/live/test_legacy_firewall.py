"""The legacy iptables, whose rules tell no news; they are set here as the command of that name does."""

import ctypes
import socket
import struct
import time

import pytest

import chimney
from chimney.host.connection import Owner
from chimney.host.linux.netfilter import LinuxFirewall

V4, V6 = socket.AF_INET, socket.AF_INET6
INPUT, OUTPUT = 1, 3
ACCEPT, DROP = -2, -1
_GET_INFO, _GET_ENTRIES, _REPLACE = 64, 65, 64
_INFO = struct.Struct("=32sI5I5III")
# The size of a rule without target, and of the target that is nothing but a verdict, up to that verdict.
_RULE = {V4: 112, V6: 168}
_TARGET = 32
_libc = ctypes.CDLL(None, use_errno=True)


def ask(sock, level, option, request):
    buffer = ctypes.create_string_buffer(request, len(request))
    size = ctypes.c_uint32(len(request))
    assert not _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(size)), ctypes.get_errno()
    return buffer.raw


def policy(lab, family, hook, verdict):
    """`iptables -P INPUT DROP`, and its like."""
    level = socket.IPPROTO_IP if family == V4 else socket.IPPROTO_IPV6
    name = b"filter".ljust(32, b"\0")
    with lab.host.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        _, hooks, *tables, count, size = _INFO.unpack(ask(sock, level, _GET_INFO, name.ljust(_INFO.size, b"\0")))
        request = (name + struct.pack("=I", size)).ljust(40 + size, b"\0")
        entries = bytearray(ask(sock, level, _GET_ENTRIES, request)[40:])
        underflow = tables[5 + hook]
        struct.pack_into("=i", entries, underflow + _RULE[family] + _TARGET, verdict)
        counters = ctypes.create_string_buffer(16 * count)
        replace = name + struct.pack("@14IP", hooks, count, size, *tables, count, ctypes.addressof(counters))
        sock.setsockopt(level, _REPLACE, replace + bytes(entries))


@pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
def test_a_change_is_noticed(lab, family):
    policy(lab, family, OUTPUT, ACCEPT)
    rules = LinuxFirewall()
    try:
        with lab.host.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"counted", (lab.peer_end.address(family), 9))
        assert not rules.look()
        policy(lab, family, OUTPUT, DROP)
        assert rules.look()
        policy(lab, family, OUTPUT, DROP)
        assert not rules.look()
    finally:
        rules.close()


@pytest.mark.parametrize(("family", "hook"), [(V4, OUTPUT), (V6, INPUT)], ids=["output v4", "input v6"])
def test_what_is_dropped(lab, helpers, family, hook):
    policy(lab, family, hook, ACCEPT)
    ours, theirs = lab.connect(family)
    with chimney.Stack() as stack:
        connection = stack.connection(ours)
        connection.offload()
        connection.sendall(b"let out")
        assert helpers.receive(theirs, 7) == b"let out"
        policy(lab, family, hook, DROP)
        theirs.sendall(b"!")
        end = time.monotonic() + 10
        while connection.owner is not Owner.KERNEL:
            assert time.monotonic() < end
            stack.poll(0.05)
        policy(lab, family, hook, ACCEPT)
