"""Terminate: connections, paths and neighbors go back to the host, with everything they hold (9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.buffers import NetBufferList, iterate
from chimney.ndis.state import MiniportOffloadBlockList, NeighborDelegated, TcpDelegated, walk
from chimney.ndis.status import Status
from chimney.target.conversion import write_delegated
from chimney.target.objects import NeighborObject, PathObject, TcpObject
from chimney.tcp.segment import RST

if TYPE_CHECKING:
    from chimney.target.soft import SoftTarget

_ROUNDS = 1000


def announce_terminate(root: MiniportOffloadBlockList) -> None:
    """What a terminate does at once: its connections process nothing any more that arrives (terminate.segments).

    Raises ValueError if a path or neighbor would leave while others depend on it (terminate.host.refcount), and if a
    connection's block has no room for its state (terminate.delegated).
    """
    blocks = [block for block in walk(root) if not block.placeholder]
    objects = [block.miniport_offload_context for block in blocks]
    for block, item in zip(blocks, objects, strict=True):
        if isinstance(item, TcpObject) and not isinstance(block.delegated, TcpDelegated):
            raise ValueError(
                "terminate of a connection without a structure for its delegated state, which says where its data "
                "goes on: attach a TcpDelegated to the block (terminate.delegated)"
            )
    leaving = set(objects)
    for item in objects:
        if isinstance(item, PathObject) and not item.connections <= leaving:
            raise ValueError(
                f"terminate of a path that {len(item.connections - leaving)} offloaded connections still use: "
                "terminate them before, or in the same tree (terminate.host.refcount)"
            )
        if isinstance(item, NeighborObject) and not item.paths <= leaving:
            raise ValueError(
                f"terminate of a neighbor that {len(item.paths - leaving)} offloaded paths still use: "
                "terminate them before, or in the same tree (terminate.host.refcount)"
            )
    for item in objects:
        if isinstance(item, TcpObject):
            item.terminating = True


def terminate(target: SoftTarget, root: MiniportOffloadBlockList) -> None:
    """Give the tree's objects back, complete it, and then pass up the frames that were kept for the host."""
    frames: list[bytes] = []
    below: list[PathObject | NeighborObject] = []
    for block in walk(root):
        block.status = Status.SUCCESS
        if block.placeholder:
            continue
        item = block.miniport_offload_context
        if isinstance(item, TcpObject):
            _give_back(target, item, block)
            frames += item.frames
        elif isinstance(item, PathObject):
            below.append(item)
        elif isinstance(item, NeighborObject):
            if isinstance(block.delegated, NeighborDelegated):
                since = target.clock() - item.nic_reachable_at
                block.delegated.nic_reachability_delta = target.config.ticks(since) & 0xFFFFFFFF
            below.append(item)
        else:
            block.status = Status.FAILURE
    for item in below:
        if isinstance(item, PathObject):
            target.forget_path(item)
    for item in below:
        if isinstance(item, NeighborObject):
            target.neighbors.discard(item)
    target.update_filter()
    target.handle.terminate_offload_complete(root)
    for frame in frames:
        target.indicate_frame(memoryview(frame))


def _give_back(target: SoftTarget, tcp: TcpObject, block: MiniportOffloadBlockList) -> None:
    """One connection, in the documents' order."""
    now = target.clock()
    aborted = int(Status.REQUEST_ABORTED)
    engine, delivery, sending = tcp.engine, tcp.delivery, tcp.sending
    withdrawn = target.withdraw(tcp)
    if tcp.abort_request is not None:
        sending.fail(aborted)
        is_reset = withdrawn is not None and withdrawn.flags & RST
        reset = withdrawn if is_reset else engine.dispatch(now)
        if reset is None:
            # RFC 9293, 3.10.5: both sides have closed already.
            target.complete_abort(tcp, aborted)
        else:
            target.emit(tcp, reset)
    elif not tcp.silent:
        owed = engine.flush_ack(now)
        if owed is not None:
            target.emit(tcp, owed)
    # What is acknowledged or delivered already ends as it would have ended without the terminate.
    delivery.run(now)
    sending.complete()
    status = aborted if sending.refusal == aborted else int(Status.UPLOAD_IN_PROGRESS)
    _fail_receives(tcp, status)
    undelivered = delivery.take_buffered()
    chain = _unfinished_sends(target, tcp, status)
    sending.fail_disconnects(status)
    # The link had no room for the RST (chapter 15): resetting the connection is up to the host.
    target.complete_abort(tcp, int(Status.UPLOAD_IN_PROGRESS))
    target.complete_forwards(tcp, status)
    if delivery.consumed:
        engine.consume(delivery.consumed)
        delivery.consumed = 0
    tcb = engine.export(now)
    if withdrawn is not None and withdrawn.payload_length:
        # This and what follows is in no queue of ours any more: it goes first (SndNxt below SndMax).
        tcb.snd_nxt = withdrawn.seq
    delegated = block.delegated
    assert isinstance(delegated, TcpDelegated)
    write_delegated(delegated, tcb, target.config)
    delegated.buffered_data = undelivered
    block.net_buffer_list_chain = chain
    delegated.send_data_head = chain
    delegated.send_data_tail = None
    for nbl in iterate(chain):
        delegated.send_data_tail = nbl
    target.detach(tcp)


def _fail_receives(tcp: TcpObject, status: int) -> None:
    """End the receive requests, those included that the host posts from within their completions."""
    for _ in range(_ROUNDS):
        if not tcp.delivery.requests:
            return
        tcp.delivery.fail(status)
    raise RuntimeError(
        "the host answers every receive that ends with UPLOAD_IN_PROGRESS with another one: after a terminate has been "
        "called nothing may be posted until it has completed (terminate.host.no-new-io)"
    )


def _unfinished_sends(target: SoftTarget, tcp: TcpObject, status: int) -> NetBufferList | None:
    """The sends for the chain, linked (A38). Those of an aborted connection end here: nobody sends them any more."""
    unfinished = tcp.sending.take_unfinished(status)
    if unfinished is not None and status == Status.REQUEST_ABORTED:
        target.handle.tcp_offload_send_complete(unfinished)
        return None
    return unfinished
