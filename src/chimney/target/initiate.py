"""Initiate: a tree of state becomes neighbor, path and connection objects (9.2, 9.3), as many as there is room for."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from chimney.link.base import Flow
from chimney.ndis.state import (
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
from chimney.ndis.status import OffloadStateType, Status
from chimney.target.conversion import engine_config, engine_tcb
from chimney.target.delivery import Delivery
from chimney.target.events import preferred_backlog, refuse_requests
from chimney.target.frames import HeaderTemplate, flow_key
from chimney.target.objects import NeighborObject, PathObject, TcpObject
from chimney.target.sending import Sending
from chimney.tcp.connection import Connection
from chimney.tcp.state import FIN_IS_QUEUED, FIN_WAS_ACKED, State

if TYPE_CHECKING:
    from chimney.target.soft import SoftTarget

_NEIGHBOR_TYPES = frozenset({OffloadStateType.NEIGHBOR})
_PATH_TYPES = frozenset({OffloadStateType.IP4, OffloadStateType.IP6})
_NO_MAC = bytes(6)
_NO_TEMPLATE = HeaderTemplate(_NO_MAC, _NO_MAC, bytes(4), bytes(4), 64, 0, 0, 0, 0)


class _Outcome(Enum):
    """What became of one block, for the status of the block below it."""

    ALL = 0
    SOME = 1
    NONE = 2
    EXEMPT = 3


def initiate(target: SoftTarget, root: MiniportOffloadBlockList) -> list[TcpObject]:
    """Offload what the tree describes, depth first, and write every block's status; returns the new connections.

    They are live, and quiet until the completion has returned (initiate.rx.no-early-indication).
    """
    new: list[TcpObject] = []
    if not root.placeholder and root.miniport_offload_context is None:
        outcome = _visit(target, root, None, new)
        if outcome is _Outcome.NONE:
            # The root failed: nothing else is tried (initiate.root-fail).
            if root.next_block is not None:
                _abandon(root.next_block)
            return new
        _row(target, root.next_block, None, new)
    else:
        _row(target, root, None, new)
    return new


def _row(
    target: SoftTarget, block: MiniportOffloadBlockList | None, parent: object, new: list[TcpObject]
) -> list[_Outcome]:
    outcomes = []
    while block is not None:
        outcomes.append(_visit(target, block, parent, new))
        block = block.next_block
    return outcomes


def _visit(target: SoftTarget, block: MiniportOffloadBlockList, parent: object, new: list[TcpObject]) -> _Outcome:
    """One block and its dependents: a placeholder, a linker, or new state (5.3)."""
    if block.placeholder:
        _row(target, block.dependent_block_list, None, new)
        block.status = Status.SUCCESS
        return _Outcome.EXEMPT
    if block.miniport_offload_context is not None:
        outcomes = _row(target, block.dependent_block_list, block.miniport_offload_context, new)
        outcome = _combine(outcomes)
        block.status = (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS, Status.FAILURE)[outcome.value]
        return outcome
    try:
        made: object = _offload(target, block, parent, new) if target.powered else Status.FAILURE
    except MemoryError:
        made = Status.RESOURCES
    if isinstance(made, Status):
        block.status = made
        _abandon(block.dependent_block_list)
        return _Outcome.NONE
    block.miniport_offload_context = made
    outcomes = _row(target, block.dependent_block_list, made, new)
    complete = all(outcome in (_Outcome.ALL, _Outcome.EXEMPT) for outcome in outcomes)
    block.status = Status.SUCCESS if complete else Status.OFFLOAD_PARTIAL_SUCCESS
    return _Outcome.ALL


def _combine(outcomes: list[_Outcome]) -> _Outcome:
    counted = [outcome for outcome in outcomes if outcome is not _Outcome.EXEMPT]
    if all(outcome is _Outcome.ALL for outcome in counted):
        return _Outcome.ALL
    if all(outcome is _Outcome.NONE for outcome in counted):
        return _Outcome.NONE
    return _Outcome.SOME


def _abandon(block: MiniportOffloadBlockList | None) -> None:
    """A row that is not tried: its parent failed, or the root did."""
    for node in walk(block):
        node.status = Status.SUCCESS if node.placeholder else Status.FAILURE


def _offload(
    target: SoftTarget, block: MiniportOffloadBlockList, parent: object, new: list[TcpObject]
) -> NeighborObject | PathObject | TcpObject | Status:
    """Make the object of one new block; a status says why that is not possible."""
    if block.type in _NEIGHBOR_TYPES:
        return _neighbor(target, block)
    if block.type in _PATH_TYPES:
        return _path(target, block, parent) if isinstance(parent, NeighborObject) else Status.FAILURE
    if block.type is OffloadStateType.TCP and isinstance(parent, PathObject):
        made = _connection(target, block, parent)
        if isinstance(made, TcpObject):
            new.append(made)
        return made
    return Status.FAILURE


def _neighbor(target: SoftTarget, block: MiniportOffloadBlockList) -> NeighborObject | Status:
    const, cached = block.const, block.cached
    if not isinstance(const, NeighborConst) or not isinstance(cached, NeighborCached):
        return Status.FAILURE
    config = target.config
    neighbors = target.neighbors
    if len(neighbors) >= config.neighbor_capacity:
        return Status.OFFLOAD_NEIGHBOR_ENTRIES
    source_mac = const.dl_source_address
    if source_mac in (b"", _NO_MAC, target.link.mac):
        source_mac = target.link.mac
    else:
        others = {n.source_mac for n in neighbors} - {target.link.mac}
        if source_mac not in others and len(others) >= config.hw_address_capacity:
            return Status.OFFLOAD_HW_ADDRESS_ENTRIES
    if const.vlan_id:
        vlans = {n.const.vlan_id for n in neighbors} - {0}
        if const.vlan_id not in vlans and len(vlans) >= config.vlan_capacity:
            return Status.OFFLOAD_VLAN_ENTRIES
        if config.interface_vlans and const.vlan_id not in config.interface_vlans:
            return Status.OFFLOAD_VLAN_MISMATCH
    if not _available(target, "neighbor"):
        return Status.RESOURCES
    assert block.ndis_offload_handle is not None
    now = target.clock()
    kept = NeighborConst(const.dl_source_address, const.vlan_id)
    neighbor = NeighborObject(block.ndis_offload_handle, kept, source_mac, cached.dl_destination_address, now)
    neighbor.host_reachable_at = now - config.microseconds(cached.host_reachability_delta)
    if isinstance(block.delegated, NeighborDelegated):
        neighbor.nic_reachable_at = now - config.microseconds(block.delegated.nic_reachability_delta)
    neighbors.add(neighbor)
    return neighbor


def _path(target: SoftTarget, block: MiniportOffloadBlockList, neighbor: NeighborObject) -> PathObject | Status:
    const, cached = block.const, block.cached
    if not isinstance(const, PathConst) or not isinstance(cached, PathCached):
        return Status.FAILURE
    config = target.config
    ipv6 = block.type is OffloadStateType.IP6
    if len(const.source_address) != (16 if ipv6 else 4) or not config.enables(ipv6):
        return Status.FAILURE
    if len(target.paths) >= config.path_capacity:
        return Status.OFFLOAD_PATH_ENTRIES
    addresses = target.source_addresses
    if const.source_address not in addresses and len(addresses) >= config.ip_address_capacity:
        return Status.OFFLOAD_IP_ADDRESS_ENTRIES
    if cached.path_mtu > largest_path_mtu(target):
        return Status.OFFLOAD_PATH_MTU
    if not _available(target, "path"):
        return Status.RESOURCES
    assert block.ndis_offload_handle is not None
    kept = PathConst(const.source_address, const.destination_address)
    path = PathObject(block.ndis_offload_handle, kept, cached.path_mtu, neighbor)
    neighbor.paths[path] = None
    target.paths.add(path)
    addresses[const.source_address] += 1
    return path


def largest_path_mtu(target: SoftTarget) -> int:
    """The largest path MTU, in bytes, that the target takes, in an initiate or an update."""
    return target.config.max_path_mtu or target.link.current_mtu()


def _available(target: SoftTarget, what: str) -> bool:
    return target.allocate is None or target.allocate(what)


def _connection(target: SoftTarget, block: MiniportOffloadBlockList, path: PathObject) -> TcpObject | Status:
    const, cached, delegated = block.const, block.cached, block.delegated
    if not isinstance(const, TcpConst) or not isinstance(cached, TcpCached) or not isinstance(delegated, TcpDelegated):
        return Status.FAILURE
    config = target.config
    addresses = path.const
    flow = Flow(addresses.source_address, const.local_port, addresses.destination_address, const.remote_port)
    key = flow_key(flow)
    if not delegated.state.offloadable or key in target.connections or not config.enables(path.ipv6):
        return Status.FAILURE
    if len(target.connections) >= config.tcp_capacity:
        return Status.OFFLOAD_TCP_ENTRIES
    if cached.initial_rcv_wnd > config.max_initial_rcv_wnd:
        return Status.OFFLOAD_TCP_RCV_WINDOW
    if not _available(target, "connection"):
        return Status.RESOURCES
    if not _available(target, "transmit buffer"):
        return Status.OFFLOAD_TCP_XMIT_BUFFER
    if not _available(target, "receive buffer"):
        return Status.OFFLOAD_TCP_RCV_BUFFER
    if delegated.buffered_data is not None and not _available(target, "buffered data"):
        # Not RESOURCES: initiate.buffered.no-memory.
        return Status.FAILURE
    assert block.ndis_offload_handle is not None
    delivery = Delivery(
        block.ndis_offload_handle,
        target.handle,
        target.lent,
        target.chimney_pool,
        config.microseconds(config.push_ticks),
        cached.rcv_indication_size,
    )
    delivery.quiet = True
    try:
        delivery.hand_over(delegated.buffered_data)
    except MemoryError:
        return Status.FAILURE
    engine = Connection(
        engine_config(const, cached, path.path_mtu, path.ipv6, config),
        engine_tcb(delegated, delivery.buffered_bytes, config),
        target.clock(),
    )
    sending = Sending(engine, target.handle)
    sending.post(block.net_buffer_list_chain)
    sending.closed = State(delegated.state) in FIN_IS_QUEUED | FIN_WAS_ACKED
    tcp = TcpObject(
        block.ndis_offload_handle,
        path,
        flow,
        key,
        replace(const),
        replace(cached),
        engine,
        delivery,
        sending,
        _NO_TEMPLATE,
        target.ipv6 if path.ipv6 else target.ipv4,
    )
    tcp.backlog = preferred_backlog(tcp)
    if target.uploading:
        refuse_requests(tcp)
    tcp.refresh()
    path.connections[tcp] = None
    target.attach(tcp)
    return tcp
