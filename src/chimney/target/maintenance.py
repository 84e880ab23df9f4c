"""Query, update and invalidate: what the host may do to offloaded objects besides taking them back (9.4, 9.5, 9.7)."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from chimney.ndis.state import (
    BACKLOG_UNSUPPORTED,
    MiniportOffloadBlockList,
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    TcpCached,
    TcpConst,
    TcpDelegated,
    walk,
)
from chimney.ndis.status import Status, TcpCachedFlags, UploadReason
from chimney.target.conversion import keepalive_of, max_rt_us, write_delegated
from chimney.target.events import preferred_backlog, request_upload
from chimney.target.initiate import largest_path_mtu
from chimney.target.objects import NeighborObject, PathObject, TcpObject

if TYPE_CHECKING:
    from chimney.target.soft import SoftTarget


def query(target: SoftTarget, root: MiniportOffloadBlockList) -> None:
    """Write the current values into every state structure of the tree, and complete it."""
    broken = []
    for block in walk(root):
        item = None if block.placeholder else block.miniport_offload_context
        if isinstance(item, TcpObject) and item.broken:
            broken.append(item)
            block.status = Status.FAILURE
            continue
        known = block.placeholder or _query_block(target, block)
        block.status = Status.SUCCESS if known else Status.FAILURE
    target.handle.query_offload_state_complete(root)
    target.report_failures(broken)


def _query_block(target: SoftTarget, block: MiniportOffloadBlockList) -> bool:
    item = block.miniport_offload_context
    now = target.clock()
    config = target.config
    if isinstance(item, NeighborObject):
        if isinstance(block.const, NeighborConst):
            _copy(item.const, block.const)
        if isinstance(block.cached, NeighborCached):
            block.cached.dl_destination_address = item.destination_mac
            block.cached.host_reachability_delta = config.ticks(now - item.host_reachable_at) & 0xFFFFFFFF
        if isinstance(block.delegated, NeighborDelegated):
            block.delegated.nic_reachability_delta = config.ticks(now - item.nic_reachable_at) & 0xFFFFFFFF
        return True
    if isinstance(item, PathObject):
        if isinstance(block.const, PathConst):
            _copy(item.const, block.const)
        if isinstance(block.cached, PathCached):
            block.cached.path_mtu = item.path_mtu
        return True
    if isinstance(item, TcpObject):
        if isinstance(block.const, TcpConst):
            _copy(item.const, block.const)
        if isinstance(block.cached, TcpCached):
            _copy(item.cached, block.cached)
        if isinstance(block.delegated, TcpDelegated):
            write_delegated(block.delegated, item.engine.export(now), config)
            block.delegated.send_backlog_size = (
                preferred_backlog(item) if config.send_backlog else BACKLOG_UNSUPPORTED
            )
            block.delegated.receive_backlog_size = item.delivery.buffered_bytes
        return True
    return False


def update(target: SoftTarget, root: MiniportOffloadBlockList) -> None:
    """Take cached variables over, relink the paths that stand above a neighbor, and complete the tree."""
    _update_row(target, root, None)
    target.handle.update_offload_complete(root)


def _update_row(target: SoftTarget, block: MiniportOffloadBlockList | None, below: object) -> None:
    while block is not None:
        _update_subtree(target, block, below)
        block = block.next_block


def _update_subtree(target: SoftTarget, block: MiniportOffloadBlockList, below: object) -> None:
    item = None if block.placeholder else block.miniport_offload_context
    known = block.placeholder or isinstance(item, (NeighborObject, PathObject, TcpObject))
    if not known or _is_refused(target, block, item):
        block.status = Status.FAILURE
        _update_row(target, block.dependent_block_list, item)
        return
    if isinstance(item, NeighborObject) and isinstance(block.cached, NeighborCached):
        found = block.cached.host_reachability_delta == 0
        item.destination_mac = block.cached.dl_destination_address
        item.host_reachable_at = target.clock() - target.config.microseconds(block.cached.host_reachability_delta)
        for path in item.paths:
            _refresh(target, path)
            if found:
                _try_again(target, path)
    elif isinstance(item, PathObject):
        if isinstance(below, NeighborObject) and below is not item.neighbor:
            item.neighbor.paths.pop(item, None)
            below.paths[item] = None
            item.neighbor = below
            _refresh(target, item)
            _try_again(target, item)
        if isinstance(block.cached, PathCached):
            item.path_mtu = block.cached.path_mtu
            for tcp in item.connections:
                tcp.engine.update_path_mtu(item.path_mtu)
                target.touch(tcp)
    elif isinstance(item, TcpObject) and isinstance(block.cached, TcpCached):
        _update_connection(target, item, block.cached)
    block.status = Status.SUCCESS
    _update_row(target, block.dependent_block_list, item)


def _is_refused(target: SoftTarget, block: MiniportOffloadBlockList, item: object) -> bool:
    """Whether an object's new values are more than the target can do; it goes on with the old ones (update.failure)."""
    if isinstance(item, PathObject):
        return isinstance(block.cached, PathCached) and block.cached.path_mtu > largest_path_mtu(target)
    if isinstance(item, TcpObject):
        cached = block.cached
        too_large = isinstance(cached, TcpCached) and cached.initial_rcv_wnd > target.config.max_initial_rcv_wnd
        return too_large or target.update_fails(item)
    return False


def _update_connection(target: SoftTarget, tcp: TcpObject, cached: TcpCached) -> None:
    config = target.config
    before = keepalive_of(tcp.cached, config)
    _copy(cached, tcp.cached)
    # The other flags are orders, not state.
    tcp.cached.flags &= TcpCachedFlags.KEEP_ALIVE_ENABLED | TcpCachedFlags.NAGLING_ENABLED
    engine = tcp.engine
    engine.set_nagle(bool(cached.flags & TcpCachedFlags.NAGLING_ENABLED))
    keepalive = keepalive_of(cached, config)
    if keepalive != before or cached.flags & TcpCachedFlags.KEEP_ALIVE_RESTART:
        engine.set_keepalive(*keepalive, target.clock())
    engine.sender.timer.max_total = max_rt_us(cached.max_rt, config)
    if cached.flags & TcpCachedFlags.MAX_RT_RESTART:
        engine.sender.timer.total = 0
    if cached.flags & TcpCachedFlags.UPDATE_RCV_WND:
        engine.set_initial_rcv_wnd(cached.initial_rcv_wnd)
    tcp.delivery.indication_size = cached.rcv_indication_size
    tcp.refresh()
    target.touch(tcp)


def _refresh(target: SoftTarget, path: PathObject) -> None:
    """New headers for all connections of a path; one that is not silenced any more goes on."""
    for tcp in path.connections:
        was_silent = tcp.silent
        tcp.refresh()
        if was_silent and not tcp.silent:
            target.unsilence(tcp)


def _try_again(target: SoftTarget, path: PathObject) -> None:
    """The way of these connections is another one, or the host has found their neighbor just now: those that wait after
    a time-out wait no longer, and no longer after the next one than if this one had been in vain (in the spirit of
    RFC 6069, 4).
    """
    now = target.clock()
    for tcp in path.connections:
        timer = tcp.engine.sender.timer
        if timer.count and timer.is_running() and timer.deadline > now:
            timer.count -= 1
            timer.backoff = max(0, timer.backoff - 1)
            timer.deadline = now
            target.touch(tcp)


def invalidate(target: SoftTarget, root: MiniportOffloadBlockList) -> None:
    """Silence the tree's objects and all that depends on them, ask for the upload of the connections (A7), and
    complete it.
    """
    silenced: list[TcpObject] = []
    broken: list[TcpObject] = []
    for block in walk(root):
        block.status = Status.SUCCESS
        if block.placeholder:
            continue
        item = block.miniport_offload_context
        if isinstance(item, TcpObject) and item.broken:
            block.status = Status.FAILURE
            broken.append(item)
        elif isinstance(item, (NeighborObject, PathObject, TcpObject)):
            item.invalid = True
            silenced += _connections_of(item)
        else:
            block.status = Status.FAILURE
    for tcp in silenced:
        if not tcp.silent:
            tcp.refresh()
            request_upload(target, tcp, UploadReason.INVALID_STATE, False)
    target.handle.invalidate_offload_complete(root)
    target.report_failures(broken)


def _connections_of(item: NeighborObject | PathObject | TcpObject) -> list[TcpObject]:
    if isinstance(item, TcpObject):
        return [item]
    if isinstance(item, PathObject):
        return list(item.connections)
    return [tcp for path in item.paths for tcp in path.connections]


def _copy(source: Any, destination: Any) -> None:
    for field in fields(source):
        setattr(destination, field.name, getattr(source, field.name))
