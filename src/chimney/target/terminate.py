"""Terminate: connections, paths and neighbors go back to the host, with everything they hold (9.6)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from chimney.ndis.buffers import NetBufferList, iterate
from chimney.ndis.errors import Misuse
from chimney.ndis.state import MiniportOffloadBlockList, NeighborDelegated, TcpDelegated, walk
from chimney.ndis.status import Status, TcpConnectionState
from chimney.target.conversion import write_delegated
from chimney.target.events import complete_forwards, peer_reset
from chimney.target.objects import NeighborObject, PathObject, TcpObject
from chimney.tcp.config import NEVER
from chimney.tcp.events import Event
from chimney.tcp.segment import RST
from chimney.tcp.seq import add, latest, lt

if TYPE_CHECKING:
    from chimney.target.soft import SoftTarget

_ROUNDS = 1000
_CALL = "MiniportTerminateOffload"


def announce_terminate(root: MiniportOffloadBlockList) -> None:
    """What a terminate does at once: its connections process nothing any more that arrives (terminate.segments).

    Raises Misuse if a path or neighbor would leave while others depend on it (terminate.host.refcount), and if a
    connection's block has no room for its state (terminate.delegated).
    """
    blocks = [block for block in walk(root) if not block.placeholder]
    objects = [block.miniport_offload_context for block in blocks]
    for block, item in zip(blocks, objects, strict=True):
        if isinstance(item, TcpObject) and not isinstance(block.delegated, TcpDelegated):
            raise Misuse(
                _CALL,
                "a connection without a structure for its delegated state, which says where its data goes on",
                "attach a TcpDelegated to the block",
                "terminate.delegated",
            )
    leaving = set(objects)
    for item in objects:
        if isinstance(item, PathObject) and not item.connections.keys() <= leaving:
            _refuse_use(f"a path that {len(item.connections.keys() - leaving)} offloaded connections still use")
        if isinstance(item, NeighborObject) and not item.paths.keys() <= leaving:
            _refuse_use(f"a neighbor that {len(item.paths.keys() - leaving)} offloaded paths still use")
    for item in objects:
        if isinstance(item, TcpObject):
            item.terminating = True


def _refuse_use(what: str) -> None:
    raise Misuse(_CALL, what, "terminate them before, or in the same tree", "terminate.host.refcount")


def terminate(target: SoftTarget, root: MiniportOffloadBlockList) -> None:
    """Acknowledge what is owed, and then give the tree's objects back; if the link has no room for the
    acknowledgements, it has a second to make some (terminate.flush-ack).
    """
    for block in walk(root):
        item = block.miniport_offload_context
        if isinstance(item, TcpObject) and not item.broken:
            _last_words(target, item)
    if target.full and _waits(target, root):
        target.defer(partial(_give_all_back, target, root))
    else:
        _give_all_back(target, root)


def _waits(target: SoftTarget, root: MiniportOffloadBlockList) -> bool:
    """Whether an acknowledgement of these connections waits for the link."""
    owners = {block.miniport_offload_context for block in walk(root)}
    return any(refused.tcp in owners for refused in target.refused())


def _last_words(target: SoftTarget, tcp: TcpObject) -> None:
    """The RST of an abortive disconnect, or the acknowledgement that is owed, goes out."""
    if Event.RESET in tcp.engine.events:
        # It came before the terminate, which has been called before the host could be told.
        tcp.engine.events.clear()
        peer_reset(target, tcp)
    now = target.clock()
    engine = tcp.engine
    withdrawn = target.withdraw(tcp)
    if tcp.abort_request is not None:
        tcp.sending.fail(int(Status.REQUEST_ABORTED))
        if tcp.silent:
            return
        before = engine.state
        is_reset = withdrawn is not None and withdrawn.flags & RST
        reset = withdrawn if is_reset else engine.dispatch(now)
        target.note_end(tcp, before)
        if reset is None:
            # RFC 9293, 3.10.5: both sides have closed already.
            target.complete_abort(tcp, int(Status.REQUEST_ABORTED))
        else:
            target.emit(tcp, reset)
        return
    if not tcp.silent:
        owed = engine.flush_ack(now)
        if owed is not None and not target.emit(tcp, owed):
            target.refuse(tcp, owed)


def _give_all_back(target: SoftTarget, root: MiniportOffloadBlockList) -> None:
    """Give the tree's objects back, complete it, and then pass up the frames that were kept for the host."""
    frames: list[bytes] = []
    below: list[tuple[MiniportOffloadBlockList, PathObject | NeighborObject]] = []
    broken: list[TcpObject] = []
    for block in walk(root):
        block.status = Status.SUCCESS
        if block.placeholder:
            continue
        item = block.miniport_offload_context
        if isinstance(item, TcpObject):
            if item.broken and not item.failed:
                # It keeps its requests until the host terminates it once more (9.8, A6).
                block.status = Status.FAILURE
                item.terminating = False
                broken.append(item)
                continue
            _give_back(target, item, block)
            frames += item.frames
        elif isinstance(item, PathObject | NeighborObject):
            below.append((block, item))
        else:
            block.status = Status.FAILURE
    _give_below_back(target, below)
    target.update_filter()
    target.handle.terminate_offload_complete(root)
    target.report_failures(broken)
    for frame in frames:
        target.indicate_frame(memoryview(frame))
    target.finish_power_request()


def _give_below_back(
    target: SoftTarget, below: list[tuple[MiniportOffloadBlockList, PathObject | NeighborObject]]
) -> None:
    """Paths first, then neighbors. What a connection that has failed still depends on stays, too."""
    for block, item in below:
        if isinstance(item, PathObject):
            if item.connections:
                block.status = Status.FAILURE
            else:
                target.forget_path(item)
    for block, item in below:
        if isinstance(item, NeighborObject):
            if isinstance(block.delegated, NeighborDelegated):
                since = target.clock() - item.nic_reachable_at
                block.delegated.nic_reachability_delta = target.config.ticks(since) & 0xFFFFFFFF
            if item.paths:
                block.status = Status.FAILURE
            else:
                target.neighbors.discard(item)


def _give_back(target: SoftTarget, tcp: TcpObject, block: MiniportOffloadBlockList) -> None:
    """One connection, in the documents' order."""
    now = target.clock()
    aborted = int(Status.REQUEST_ABORTED)
    engine, delivery, sending = tcp.engine, tcp.delivery, tcp.sending
    target.withdraw(tcp)
    if tcp.failed:
        sending.refusal = delivery.refusal = aborted
    else:
        # What is acknowledged or delivered already ends as it would have ended without the terminate.
        delivery.settle()
        sending.complete()
    status = aborted if sending.refusal == aborted else int(Status.UPLOAD_IN_PROGRESS)
    _fail_receives(tcp, status)
    undelivered = delivery.take_buffered()
    chain = _unfinished_sends(target, tcp, status)
    sending.fail_disconnects(status)
    # The link had no room for the RST (chapter 15): resetting the connection is up to the host.
    target.complete_abort(tcp, aborted if tcp.failed else int(Status.UPLOAD_IN_PROGRESS))
    complete_forwards(target, tcp, status)
    if delivery.consumed:
        engine.consume(delivery.consumed)
        delivery.consumed = 0
    delivery.push_at = NEVER
    tcb = engine.export(now)
    withdrawn = tcp.withdrawn
    # A retransmission may have been acknowledged after all.
    if withdrawn is not None and lt(tcb.snd_una, add(withdrawn.seq, withdrawn.length())):
        # This and what follows is in no queue of ours any more: it goes first (SndNxt below SndMax).
        tcb.snd_nxt = latest(withdrawn.seq, tcb.snd_una)
    delegated = block.delegated
    assert isinstance(delegated, TcpDelegated)
    write_delegated(delegated, tcb, target.config)
    if tcp.failed:
        delegated.state = TcpConnectionState.CLOSED
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
    raise Misuse(
        "MiniportTcpOffloadReceive",
        "the host answers every receive that ends with UPLOAD_IN_PROGRESS with another one",
        "after a terminate has been called, post nothing until it has completed",
        "terminate.host.no-new-io",
    )


def _unfinished_sends(target: SoftTarget, tcp: TcpObject, status: int) -> NetBufferList | None:
    """The sends for the chain, linked (A38). Those of an aborted connection end here: nobody sends them any more."""
    unfinished = tcp.sending.take_unfinished(status)
    if unfinished is not None and status == Status.REQUEST_ABORTED:
        target.handle.tcp_offload_send_complete(unfinished)
        return None
    return unfinished
