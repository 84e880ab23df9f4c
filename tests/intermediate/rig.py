"""Targets and hosts that write down what reaches them; a test completes by hand."""

from chimney.ndis import (
    DisconnectFlags,
    Miniport,
    OffloadHandle,
    OffloadStateType,
    Protocol,
    ProtocolOffloadBlockList,
    Status,
    bind,
    net_buffer_list,
)
from chimney.ndis.buffers import iterate, link
from chimney.ndis.capabilities import TcpConnectionOffload
from chimney.ndis.state import (
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    PathDelegated,
    TcpCached,
    TcpCachedFlags,
    TcpConst,
    TcpConstFlags,
    TcpDelegated,
    TimerRemainder,
    walk,
)
from chimney.ndis.status import TcpConnectionState

OPERATIONS = ("send", "receive", "disconnect", "forward")


class Target(Miniport):
    """``trees`` and ``requests`` wait to be completed, in the order in which they came; ``returned`` are lists given
    back.
    """

    def __init__(self, name="target", capabilities=None):
        super().__init__(name)
        self.capabilities = capabilities or TcpConnectionOffload()
        self.trees = []
        self.requests = []
        self.returned = []
        self.oids = []
        self.oid_status = Status.SUCCESS
        self.answer = None

    def hardware_capabilities(self):
        return self.capabilities

    def oid_request(self, request):
        self.oids.append(request)
        if self.oid_status == Status.SUCCESS and not request.set:
            request.information = self.answer
        return self.oid_status

    def initiate_offload(self, block_list):
        self.trees.append(("initiate", block_list))

    def terminate_offload(self, block_list):
        self.trees.append(("terminate", block_list))

    def update_offload(self, block_list):
        self.trees.append(("update", block_list))

    def invalidate_offload(self, block_list):
        self.trees.append(("invalidate", block_list))

    def query_offload(self, block_list):
        self.trees.append(("query", block_list))

    def _take(self, operation, context, head, *flags):
        for nbl in iterate(head):
            self.requests.append((operation, context, nbl, *flags))
        return Status.PENDING

    def tcp_offload_send(self, offload_context, net_buffer_list):
        return self._take("send", offload_context, net_buffer_list)

    def tcp_offload_receive(self, offload_context, net_buffer_list):
        return self._take("receive", offload_context, net_buffer_list)

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        return self._take("disconnect", offload_context, net_buffer_list, flags)

    def tcp_offload_forward(self, offload_context, net_buffer_list):
        return self._take("forward", offload_context, net_buffer_list)

    def tcp_offload_receive_return(self, net_buffer_list):
        self.returned += list(iterate(net_buffer_list))
        return Status.SUCCESS

    def complete_tree(self, fail=(), chains=()):
        """Complete the oldest tree: success for every block but those at the places ``fail`` (place: status). A new
        object's context is the block it came with.
        """
        operation, tree = self.trees.pop(0)
        fail = dict(fail)
        for place, block in enumerate(walk(tree)):
            block.status = fail.get(place, Status.SUCCESS)
            if operation == "initiate" and not block.placeholder and block.miniport_offload_context is None:
                if block.status in (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS):
                    block.miniport_offload_context = block
            if place in dict(chains):
                block.net_buffer_list_chain = dict(chains)[place]
        suffix = "_state" if operation == "query" else ""
        getattr(self.handle, f"{operation}_offload{suffix}_complete")(tree)
        return tree

    def complete(self, operation, *lists, status=Status.SUCCESS):
        """Complete requests, linked in this order."""
        for nbl in lists:
            nbl.status = status
        gone = set(map(id, lists))
        self.requests = [r for r in self.requests if id(r[2]) not in gone]
        getattr(self.handle, f"tcp_offload_{operation}_complete")(link(lists))

    def indicate(self, handle, nbl):
        return self.handle.tcp_offload_receive_handler(handle, nbl, Status.SUCCESS)


class Host(Protocol):
    """``log`` has (what, subject, ...) in order; ``completed`` the heads of completed lists with what was linked."""

    def __init__(self, name="host"):
        super().__init__(name)
        self.log = []
        self.completed = []
        self.verdict = (Status.SUCCESS, 0)
        self.on_completion = None

    def took(self, what):
        return [entry[1:] for entry in self.log if entry[0] == what]

    def _tree(self, what, block_list):
        self.log.append((what, block_list))

    def initiate_offload_complete(self, block_list):
        self._tree("initiate", block_list)

    def terminate_offload_complete(self, block_list):
        self._tree("terminate", block_list)

    def update_offload_complete(self, block_list):
        self._tree("update", block_list)

    def invalidate_offload_complete(self, block_list):
        self._tree("invalidate", block_list)

    def query_offload_complete(self, block_list):
        self._tree("query", block_list)

    def _lists(self, operation, head):
        lists = list(iterate(head))
        assert all(nbl.context is None for nbl in lists), "a record of a driver below has been left"
        self.completed.append((operation, lists))
        for nbl in lists:
            self.log.append((operation, nbl))
        if self.on_completion is not None:
            self.on_completion(operation, lists)

    def tcp_offload_send_complete(self, net_buffer_list):
        self._lists("send", net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list):
        self._lists("receive", net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list):
        self._lists("disconnect", net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list):
        self._lists("forward", net_buffer_list)

    def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
        self.log.append(("indicate", offload_context, net_buffer_list))
        return self.verdict

    def tcp_offload_event(self, offload_context, event_type, event_specific_information):
        self.log.append(("event", offload_context, event_type, event_specific_information))

    def indicate_offload_event(self, block_list, indication_code):
        self.log.append(("offload event", block_list and block_list.offload_handle, indication_code))
        if block_list is not None:
            block_list.cached.host_reachability_delta = 42

    def status_ex(self, status_code, status_buffer):
        self.log.append(("status", status_code, status_buffer))

    def oid_request_complete(self, request, status):
        self.log.append(("oid", request, status))

    def receive_net_buffer_lists(self, net_buffer_list):
        self.log.append(("frames", net_buffer_list))


class Rig:
    """Hosts over the upper edges of ``drivers`` (the last one on top), targets under the lower edges of the first."""

    def __init__(self, *drivers, targets=None):
        self.drivers = drivers
        self.driver = drivers[0]
        self.targets = targets or [Target(f"target {n}") for n in range(len(drivers[0].lowers))]
        self.target = self.targets[0]
        for lower, target in zip(drivers[0].lowers, self.targets, strict=True):
            bind(lower, target)
        for below, above in zip(drivers, drivers[1:], strict=False):
            for lower, upper in zip(above.lowers, below.uppers, strict=True):
                bind(lower, upper)
        self.hosts = [Host(f"host {n}") for n in range(len(drivers[-1].uppers))]
        for host, upper in zip(self.hosts, drivers[-1].uppers, strict=True):
            bind(host, upper)
        self.host = self.hosts[0]

    def offload(self, host=None, target=None, name=None):
        """One connection, with path and neighbor of its own: the host's handles of connection, path, neighbor."""
        host, target = host or self.host, target or self.target
        handles = [OffloadHandle(name) for _ in range(3)]
        host.binding.initiate_offload(tree(*reversed(handles)))
        target.complete_tree()
        host.log.clear()
        return handles

    def at_rest(self):
        """Whether no driver has a record or entry left."""
        return all((driver.call_entries, driver.offload_entries) == (0, 0) for driver in self.drivers)

    def post(self, operation, handle, *lists, host=None, flags=DisconnectFlags.GRACEFUL_CLOSE):
        """Post a data request by its name."""
        binding = (host or self.host).binding
        arguments = (flags,) if operation == "disconnect" else ()
        return getattr(binding, f"offload_tcp_{operation}")(handle, link(lists), *arguments)


def lists(count=1):
    return [net_buffer_list(b"x") for _ in range(count)]


def block(type_, handle=None, *dependents, state=True, **fields):
    """A block with state for a new object (unless ``state`` is False), and its dependents."""
    made = ProtocolOffloadBlockList(type=type_, offload_handle=handle, **fields)
    if handle is not None and state:
        made.const, made.cached, made.delegated = _STATE[type_]()
    for one, following in zip(dependents, dependents[1:], strict=False):
        one.next_block = following
    made.dependent_block_list = dependents[0] if dependents else None
    return made


def tree(neighbor, path, connection, **fields):
    """A neighbor with a path with a connection, all new."""
    tcp = block(OffloadStateType.TCP, connection, **fields)
    return block(OffloadStateType.NEIGHBOR, neighbor, block(OffloadStateType.IP4, path, tcp))


def references(connection, path, neighbor, **fields):
    """The three blocks that name offloaded objects, as one tree."""
    kinds = OffloadStateType
    tcp = block(kinds.TCP_DELEGATED, connection, state=False, delegated=delegated(), **fields)
    return block(kinds.NEIGHBOR, neighbor, block(kinds.IP4, path, tcp, state=False), state=False)


def delegated():
    numbers = dict.fromkeys(
        "rcv_nxt rcv_wnd snd_una snd_nxt snd_max snd_wnd max_snd_wnd send_wl1 c_wnd ss_thresh s_rtt rtt_var ts_recent "
        "ts_recent_age ts_time total_rt dup_ack_count snd_wnd_probe_count".split(),
        0,
    )
    return TcpDelegated(
        state=TcpConnectionState.ESTABLISHED, keep_alive=TimerRemainder(), retransmit=TimerRemainder(), **numbers
    )


_STATE = {
    OffloadStateType.NEIGHBOR: lambda: (NeighborConst(), NeighborCached(bytes(6)), NeighborDelegated()),
    OffloadStateType.IP4: lambda: (PathConst(bytes(4), bytes(4)), PathCached(1500), PathDelegated()),
    OffloadStateType.TCP: lambda: (
        TcpConst(TcpConstFlags(0), 1, 2, 0, 0, 1460),
        TcpCached(TcpCachedFlags(0), 65535),
        delegated(),
    ),
}
