"""The software offload target's edge: what NDIS calls, and what the host's owner calls beside it.

Downward calls only record: what they ask for is done, and completed, by `poll` and `flush` (D2; initiate.async,
terminate.async).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from chimney.link.base import Flow, Link
from chimney.ndis.buffers import NetBufferList
from chimney.ndis.driver import OffloadContext
from chimney.ndis.errors import Misuse
from chimney.ndis.state import MiniportOffloadBlockList
from chimney.ndis.status import DisconnectFlags, Status, UploadReason
from chimney.target.adapter import Adapter
from chimney.target.config import TargetConfig
from chimney.target.events import accept_requests, can_go_on
from chimney.target.frames import flow_key
from chimney.target.initiate import initiate
from chimney.target.maintenance import invalidate, query, update
from chimney.target.objects import PathObject, TcpObject
from chimney.target.sending import SendEntry
from chimney.target.terminate import announce_terminate, terminate

_PENDING = int(Status.PENDING)
_SUCCESS = int(Status.SUCCESS)
_REQUEST_ABORTED = int(Status.REQUEST_ABORTED)
_INVALID_STATE_REASON = int(UploadReason.INVALID_STATE)
_GRACEFUL = int(DisconnectFlags.GRACEFUL_CLOSE)
_ABORTIVE = int(DisconnectFlags.ABORTIVE_CLOSE)


class SoftTarget(Adapter):
    """An offload target in software: TCP engines over one link.

    name   of the adapter.
    link   carries its frames; the target owns the link's filter.
    clock  tells the time in microseconds.
    config what it can do, and the parameters that hold until the host sets others.
    """

    def __init__(self, name: str, link: Link, clock: Callable[[], int], config: TargetConfig | None = None) -> None:
        super().__init__(name, link, clock, config or TargetConfig())
        self._watched: dict[bytes, Flow] = {}
        self._kept_out: set[bytes] = set()
        self._let_in: frozenset[bytes] = frozenset()

    # Beside NDIS: the host's owner on the same machine

    def watch(self, flow: Flow) -> None:
        """Let the flow's frames in, offloaded or not, until `unwatch`: those of no offloaded connection go up the
        ordinary path. Raises LinkError, with nothing changed.
        """
        self._watched[flow_key(flow)] = flow
        try:
            self.update_filter()
        except OSError:
            del self._watched[flow_key(flow)]
            raise

    def unwatch(self, flow: Flow) -> None:
        """Let the flow's frames in only while it is offloaded."""
        self._watched.pop(flow_key(flow), None)
        self.update_filter()

    def keep_out(self, flow: Flow, out: bool) -> None:
        """Let the flow's frames in no longer, although it is offloaded; or let them in again."""
        if out:
            self._kept_out.add(flow_key(flow))
        else:
            self._kept_out.discard(flow_key(flow))
        self.update_filter()

    def find(self, flow: Flow) -> TcpObject | None:
        """The offloaded connection of this flow, with its counters; None if there is none."""
        return self.connections.get(flow_key(flow))

    def attach(self, tcp: TcpObject) -> None:
        """A connection has been offloaded; `update_filter` lets its frames in."""
        self.connections[tcp.key] = tcp
        self.plan_look()

    def detach(self, tcp: TcpObject) -> None:
        """A connection has been given back; `update_filter` keeps its frames out."""
        del self.connections[tcp.key]
        self._kept_out.discard(tcp.key)
        tcp.path.connections.pop(tcp, None)
        tcp.gone = True
        self.schedule.forget(tcp)

    def update_filter(self) -> None:
        """Let the frames of all offloaded and all watched flows in, and no others."""
        flows = dict(self._watched)
        for key, tcp in self.connections.items():
            flows[key] = tcp.flow
        for key in self._kept_out:
            flows.pop(key, None)
        if flows.keys() != self._let_in:
            self.link.set_filter(flows.values())
            self._let_in = frozenset(flows)

    def forget_path(self, path: PathObject) -> None:
        """A path has been given back."""
        self.paths.discard(path)
        path.neighbor.paths.pop(path, None)
        address = path.const.source_address
        self.source_addresses[address] -= 1
        if not self.source_addresses[address]:
            del self.source_addresses[address]

    def unsilence(self, tcp: TcpObject) -> None:
        """A connection is not silenced any more: its path has got a valid neighbor."""
        if tcp.upload_reason != _INVALID_STATE_REASON or not can_go_on(tcp):
            return
        tcp.upload_reason = 0
        tcp.withdrawn = None
        if not self.uploading:
            accept_requests(tcp)
        self.touch(tcp)

    # State operations

    def initiate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.operations.append(partial(self._initiate, block_list))

    def _initiate(self, block_list: MiniportOffloadBlockList) -> None:
        if self.hold_initiate(partial(self._initiate, block_list)):
            return
        new = initiate(self, block_list)
        self.update_filter()
        self.handle.initiate_offload_complete(block_list)
        for tcp in new:
            tcp.delivery.quiet = False
            self.touch(tcp)
        self.finish_power_request()

    def terminate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        announce_terminate(block_list)
        self.operations.append(partial(terminate, self, block_list))

    def update_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.operations.append(partial(update, self, block_list))

    def invalidate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.operations.append(partial(invalidate, self, block_list))

    def query_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.operations.append(partial(query, self, block_list))

    # Data operations

    def tcp_offload_send(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        tcp: TcpObject = offload_context
        tcp.sending.post(net_buffer_list)
        self.touch(tcp)
        return _PENDING

    def tcp_offload_receive(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        tcp: TcpObject = offload_context
        tcp.delivery.post(net_buffer_list)
        self.touch(tcp)
        return _PENDING

    def tcp_offload_disconnect(
        self, offload_context: OffloadContext, net_buffer_list: NetBufferList, flags: int
    ) -> int:
        tcp: TcpObject = offload_context
        if flags not in (_GRACEFUL, _ABORTIVE):
            raise Misuse(
                "MiniportTcpOffloadDisconnect",
                f"flags {flags:#x}",
                "give exactly one of GRACEFUL_CLOSE and ABORTIVE_CLOSE",
                "disconnect.single-nbl",
            )
        # One abort is enough; what has failed takes requests until the host terminates it.
        refused = tcp.sending.refusal and not tcp.failed
        if flags == _ABORTIVE and refused and tcp.abort_request is None:
            # Behind everything: it comes back with the refusal, whatever the peer has acknowledged.
            end = tcp.sending.end
            tcp.sending.disconnects.append(SendEntry(net_buffer_list, end, end + 1))
            tcp.sending.bounce = True
        elif flags == _GRACEFUL or tcp.abort_request is not None:
            tcp.sending.disconnect(net_buffer_list)
        else:
            self._abort(tcp, net_buffer_list)
        self.touch(tcp)
        return _PENDING

    def _abort(self, tcp: TcpObject, request: NetBufferList) -> None:
        """Receiving ends now; the turn ends the requests and sends the RST (10.6)."""
        if request.data_length():
            raise Misuse(
                "MiniportTcpOffloadDisconnect",
                f"an abortive disconnect with {request.data_length()} bytes",
                "it carries no data: send it before, or disconnect gracefully",
                "disconnect.abort.no-data",
            )
        # What waits for the link acknowledges too late, and its data is the application's again.
        unsaid = self.withdraw(tcp) is not None
        tcp.engine.abort(self.clock(), unsaid)
        tcp.engine_done = True
        tcp.abort_request = request
        tcp.sending.refusal = tcp.delivery.refusal = _REQUEST_ABORTED
        tcp.sending.bounce = tcp.delivery.bounce = True

    def tcp_offload_forward(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        tcp: TcpObject = offload_context
        nbl: NetBufferList | None = net_buffer_list
        while nbl is not None:
            following = nbl.next
            nbl.next = None
            tcp.forwards.append(nbl)
            nbl = following
        self.touch(tcp)
        return _PENDING

    def tcp_offload_receive_return(self, net_buffer_list: NetBufferList) -> int:
        nbl: NetBufferList | None = net_buffer_list
        while nbl is not None:
            following = nbl.next
            if nbl not in self.lent:
                raise Misuse(
                    "MiniportTcpOffloadReceiveReturn",
                    "a NetBufferList that this target has not lent",
                    "return accepted indications and BufferedData, each once",
                    "general.complete-exactly-once",
                )
            self.lent.remove(nbl)
            self.chimney_pool.free(nbl)
            nbl = following
        return _SUCCESS
