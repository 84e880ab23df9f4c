"""Whether a connection can be taken out of the kernel; nothing is touched, and a refusal says what to do.

Sources: tcp(7), socket(7), ip(7), ipv6(7), packet(7), capabilities(7).
"""

from __future__ import annotations

import errno
import select
import socket

from chimney.host.errors import NotOffloadable
from chimney.host.kernel import Flow, Plan
from chimney.host.linux import conntrack, diagnosis, route
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import FINS, Endpoint, TcpState, endpoint_of, read_info
from chimney.ndis.state import NeighborConst, PathConst

# Seconds that an offload waits for the next hop's hardware address.
_PATIENCE = 3.0
_HAND_OVER = set(FINS) - {TcpState.TIME_WAIT, TcpState.CLOSE}
_WHAT_NOW = {
    TcpState.SYN_SENT: "it is still being opened: wait until connect has succeeded",
    TcpState.SYN_RECV: "it is still being opened: wait until the handshake is over",
    TcpState.LISTEN: "it listens: pass the sockets that it accepts",
    TcpState.CLOSE: "it is not connected, or its connection has ended",
    TcpState.TIME_WAIT: "it has ended",
}
_IPV6_EXTENSIONS = {54: "hop-by-hop options", 55: "routing header options", 57: "a routing header", 59: "options"}


def plan(sock: socket.socket, patient: bool = True) -> Plan:
    """`check`, then where the packets go; connection tracking is told to be liberal. Raises NotOffloadable.

    If ``patient``, it waits for an unknown next hop to tell its hardware address.
    """
    try:
        check(sock)
        bound = sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX)
    except OSError as error:
        raise _untold(sock, error) from error
    local, remote, mark = _routed_by(sock)
    try:
        tracked = conntrack.lookup(local, remote)
        _check_tracking(local, remote, tracked)
        path = route.lookup(local, remote, mark, bound, timeout=_PATIENCE if patient else 0.0)
        if tracked is not None:
            conntrack.make_liberal(local, remote)
    except OSError as error:
        raise _refusal(local, remote, f"the kernel does not tell where its packets go: {error}") from error
    return _plan(local, remote, path, bound)


def where(sock: socket.socket, bound: int | None = None) -> Plan:
    """Where the packets of a connection go; ``bound`` is the index of the device that the application has bound it to
    (0: none), if the socket itself does not tell. Never waits; ``neighbor_mac`` is empty where the kernel does not know
    it. Raises NotOffloadable.
    """
    local, remote, mark = _routed_by(sock)
    if bound is None:
        bound = sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX)
    try:
        path = route.look(local, remote, mark, bound)
    except OSError as error:
        raise _refusal(local, remote, f"the kernel does not tell where its packets go: {error}") from error
    return _plan(local, remote, path, bound)


def _routed_by(sock: socket.socket) -> tuple[Endpoint, Endpoint, int]:
    """Both ends of a connection, and its mark. Raises NotOffloadable if it has ended."""
    try:
        mark = sock.getsockopt(so.SOL_SOCKET, so.SO_MARK) & 0xFFFFFFFF
        return endpoint_of(sock.getsockname()), endpoint_of(sock.getpeername()), mark
    except OSError as error:
        raise _untold(sock, error) from error


def _untold(sock: socket.socket, error: OSError) -> NotOffloadable:
    return NotOffloadable(f"{sock!r} cannot be offloaded: the kernel does not tell about it (any more): {error}")


def _plan(local: Endpoint, remote: Endpoint, path: route.Path, bound: int) -> Plan:
    return Plan(
        flow=Flow(local.address, local.port, remote.address, remote.port),
        device=path.device,
        arrives_on=path.arrives_on,
        neighbor=NeighborConst(),
        neighbor_mac=path.neighbor_mac,
        path=PathConst(local.address, remote.address),
        path_mtu=path.mtu,
        next_hop=path.next_hop,
        device_index=path.device_index,
        device_mac=path.device_mac,
        path_mtu_until=path.mtu_until,
        elsewhere=not bound and not path.loopback,
    )


def check(sock: socket.socket) -> None:
    """Raises NotOffloadable if the connection of `sock` cannot be taken; the socket is left as it is in any case."""
    _check_kind(sock)
    state = TcpState(read_info(sock).state)
    if state not in _HAND_OVER:
        raise NotOffloadable(f"{sock!r} cannot be offloaded: {_WHAT_NOW.get(state, f'it is in state {state.name}')}")
    local, remote = endpoint_of(sock.getsockname()), endpoint_of(sock.getpeername())
    _check_privileges(sock, local, remote)
    _check_addresses(local, remote)
    _check_stream(sock, local, remote)
    _check_options(sock, local, remote)
    _check_outside(sock, local, remote)


def _refusal(local: Endpoint, remote: Endpoint, reason: str) -> NotOffloadable:
    return NotOffloadable(f"{local} -> {remote} cannot be offloaded: {reason}")


def _check_kind(sock: socket.socket) -> None:
    if sock.fileno() < 0:
        raise NotOffloadable(f"{sock!r} cannot be offloaded: it is closed")
    kind = sock.getsockopt(so.SOL_SOCKET, socket.SO_TYPE)
    protocol = sock.getsockopt(so.SOL_SOCKET, so.SO_PROTOCOL)
    if protocol == so.IPPROTO_MPTCP:
        raise NotOffloadable(f"{sock!r} cannot be offloaded: it speaks Multipath TCP; make it with IPPROTO_TCP instead")
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or kind != socket.SOCK_STREAM or protocol != so.IPPROTO_TCP:
        raise NotOffloadable(f"{sock!r} cannot be offloaded: it is no TCP socket")


def _check_privileges(sock: socket.socket, local: Endpoint, remote: Endpoint) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as scratch:
        here = scratch.getsockopt(so.SOL_SOCKET, so.SO_NETNS_COOKIE, 8)
        if sock.getsockopt(so.SOL_SOCKET, so.SO_NETNS_COOKIE, 8) != here:
            raise _refusal(
                local, remote, "its socket belongs to another network namespace than this thread; enter that one first"
            )
        try:
            scratch.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR, so.REPAIR_ON)
        except PermissionError as error:
            raise _refusal(
                local,
                remote,
                "this process may not use TCP_REPAIR; it needs the capability CAP_NET_ADMIN over the network namespace",
            ) from error
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except PermissionError as error:
        raise _refusal(
            local, remote, "this process may not open raw sockets; it needs the capability CAP_NET_RAW"
        ) from error


def _check_addresses(local: Endpoint, remote: Endpoint) -> None:
    if local.scope or remote.scope:
        raise _refusal(
            local,
            remote,
            "its addresses are link-local, which ties sockets to a device; use global or unique local addresses",
        )
    if (local.address, local.port) == (remote.address, remote.port):
        raise _refusal(local, remote, "it is connected to itself")


def _check_stream(sock: socket.socket, local: Endpoint, remote: Endpoint) -> None:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLPRI)
    events = sum(event for _, event in poll.poll(0))
    if events & select.POLLPRI:
        raise _refusal(local, remote, "urgent data is pending; read it first (MSG_OOB)")
    if events & select.POLLERR:
        raise _refusal(
            local, remote, "an error or notification is pending; read SO_ERROR and the error queue (MSG_ERRQUEUE) first"
        )
    if sock.getsockopt(so.IPPROTO_TCP, so.TCP_REPAIR):
        raise _refusal(local, remote, "it is in repair mode: it is offloaded already, or another program works on it")
    if sock.getsockopt(so.SOL_SOCKET, so.SO_ZEROCOPY) and so.queue_length(sock.fileno(), so.SIOCOUTQ):
        raise _refusal(
            local, remote, "it sends without copying (SO_ZEROCOPY) and not all is acknowledged; wait, or switch it off"
        )


def _check_options(sock: socket.socket, local: Endpoint, remote: Endpoint) -> None:
    upper = _option(sock, so.IPPROTO_TCP, so.TCP_ULP, 16).rstrip(b"\0").decode(errors="replace")
    if upper:
        raise _refusal(local, remote, f"the kernel processes its stream ('{upper}', for example kernel TLS)")
    if _option(sock, so.IPPROTO_TCP, so.TCP_AO_INFO, 56):
        raise _refusal(local, remote, "its segments are signed (TCP-AO), and the keys are the kernel's")
    if sock.getsockopt(so.IPPROTO_TCP, so.TCP_TIMESTAMP) & 1:
        raise _refusal(
            local,
            remote,
            "its timestamps count microseconds, the documents' clock counts milliseconds; take the feature tcp_usec_ts "
            "off the route before the connection is opened",
        )
    if sock.family == socket.AF_INET and _option(sock, socket.IPPROTO_IP, socket.IP_OPTIONS, 40):
        raise _refusal(local, remote, "its packets carry IP options; remove them (IP_OPTIONS)")
    if sock.family == socket.AF_INET6:
        for option, name in _IPV6_EXTENSIONS.items():
            if _option(sock, socket.IPPROTO_IPV6, option, 256):
                raise _refusal(local, remote, f"its packets carry IPv6 extension headers ({name}); remove them")
    if _flag(sock, so.SO_PEEK_OFF, -1) >= 0:
        raise _refusal(local, remote, "a peek offset is set; set SO_PEEK_OFF to -1 first")
    if sock.getsockopt(so.SOL_SOCKET, so.SO_LOCK_FILTER):
        raise _refusal(local, remote, "its socket filter is locked (SO_LOCK_FILTER) and cannot be exchanged")
    try:
        so.read_filter(sock.fileno())
    except OSError as error:
        raise _refusal(
            local, remote, f"its socket filter cannot be read, and so not be restored ({error}); use a classic filter"
        ) from error


def _check_outside(sock: socket.socket, local: Endpoint, remote: Endpoint) -> None:
    try:
        if diagnosis.has_md5(local, remote, sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX)):
            raise _refusal(local, remote, "its segments are signed (TCP_MD5SIG), and the keys are the kernel's")
        if diagnosis.has_ipsec(local, remote):
            raise _refusal(local, remote, "an IPsec policy applies to its packets")
    except OSError as error:
        raise _refusal(local, remote, f"the kernel does not tell about signatures and IPsec: {error}") from error


def _check_tracking(local: Endpoint, remote: Endpoint, entry: conntrack.Entry | None) -> None:
    """What the kernel does to the packets of a tracked connection is not done to the target's."""
    if entry is None:
        return
    if (entry.wire_local, entry.wire_remote) != (local, remote):
        raise _refusal(
            local,
            remote,
            f"this host translates its addresses (NAT): its packets go from {entry.wire_local} to {entry.wire_remote};"
            " exempt it from the translation before it is opened",
        )
    if entry.sequence_adjusted:
        raise _refusal(
            local, remote, "this host changes its sequence numbers (SYNPROXY, or a helper of connection tracking)"
        )
    if entry.helper:
        raise _refusal(
            local, remote, f"a helper of connection tracking reads its stream ('{entry.helper}'), and would not see all"
        )


def _option(sock: socket.socket, level: int, option: int, size: int) -> bytes:
    """An option's value; empty where the kernel does not know it, or has none."""
    try:
        return sock.getsockopt(level, option, size)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            return b""
        raise


def _flag(sock: socket.socket, option: int, default: int) -> int:
    try:
        return sock.getsockopt(so.SOL_SOCKET, option)
    except OSError:
        return default
