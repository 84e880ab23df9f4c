"""Misuse of the interface: refused at once, with the call, the rule and the remedy; and nothing changes hands by it."""

import pytest

from chimney.ndis import (
    Miniport,
    Misuse,
    NetBuffer,
    OffloadHandle,
    OffloadStateType,
    Protocol,
    ProtocolOffloadBlockList,
    Status,
    bind,
    net_buffer_list,
)
from chimney.ndis.buffers import NetBufferListPool, iterate, link
from chimney.ndis.crossing import Observer

KINDS = ["send", "receive", "disconnect", "forward"]


class Target(Miniport):
    """Takes everything, or refuses it by an exception, and keeps what it has taken."""

    def __init__(self):
        super().__init__("target")
        self.taken = []
        self.trees = []
        self.refuse = None

    def _take(self, nbl):
        if self.refuse is not None:
            raise self.refuse
        self.taken += list(iterate(nbl))
        return Status.PENDING

    def tcp_offload_send(self, offload_context, net_buffer_list):
        return self._take(net_buffer_list)

    tcp_offload_receive = tcp_offload_forward = tcp_offload_send

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        return self._take(net_buffer_list)

    def tcp_offload_receive_return(self, net_buffer_list):
        return Status.SUCCESS

    def initiate_offload(self, block_list):
        if self.refuse is not None:
            raise self.refuse
        self.trees.append(block_list)

    terminate_offload = update_offload = invalidate_offload = query_offload = initiate_offload


class Host(Protocol):
    """Counts what comes back."""

    def __init__(self):
        super().__init__("host")
        self.back = []

    def tcp_offload_send_complete(self, net_buffer_list):
        self.back += list(iterate(net_buffer_list))

    tcp_offload_receive_complete = tcp_offload_disconnect_complete = tcp_offload_send_complete
    tcp_offload_forward_complete = tcp_offload_send_complete

    def initiate_offload_complete(self, block_list):
        self.back.append(block_list)

    terminate_offload_complete = update_offload_complete = initiate_offload_complete
    invalidate_offload_complete = query_offload_complete = initiate_offload_complete

    def tcp_offload_event(self, offload_context, event_type, event_specific_information):
        pass

    def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
        return Status.OFFLOAD_DATA_NOT_ACCEPTED, 0

    def indicate_offload_event(self, block_list, indication_code):
        pass


class Pair:
    """A host above a target, with one offloaded connection."""

    def __init__(self, host=None, target=None):
        self.host, self.target = host or Host(), target or Target()
        self.binding = bind(self.host, self.target)
        self.handle = OffloadHandle("host's")
        self.binding.initiate_offload(self.tree())
        self.complete("initiate_offload", context="target's")
        self.host.back.clear()

    def tree(self, handle=None):
        return ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=handle or self.handle)

    def complete(self, operation, status=Status.SUCCESS, context=None):
        tree = self.target.trees.pop(0)
        tree.status = status
        if context is not None:
            tree.miniport_offload_context = context
        getattr(self.target.handle, f"{operation}_complete")(tree)
        return tree

    def post(self, kind, nbl):
        flags = (1,) if kind == "disconnect" else ()
        return getattr(self.binding, f"offload_tcp_{kind}")(self.handle, nbl, *flags)

    def back(self, kind, nbl):
        getattr(self.target.handle, f"tcp_offload_{kind}_complete")(nbl)


@pytest.fixture
def pair():
    return Pair()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pending_request_cannot_be_posted_again(pair, kind):
    nbl = net_buffer_list(b"x")
    pair.post(kind, nbl)
    with pytest.raises(Misuse, match=r"with the driver below.*general\.ownership\.while-pending"):
        pair.post(kind, nbl)
    assert pair.target.taken == [nbl]
    pair.back(kind, nbl)
    assert pair.host.back == [nbl]
    pair.post(kind, nbl)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_comes_back_once(pair, kind):
    nbl = net_buffer_list(b"x")
    pair.post(kind, nbl)
    pair.back(kind, nbl)
    with pytest.raises(Misuse, match=r"completed already.*general\.complete-exactly-once"):
        pair.back(kind, nbl)
    with pytest.raises(Misuse, match="never posted"):
        pair.back(kind, net_buffer_list(b"y"))
    assert pair.host.back == [nbl]


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_bites_its_own_tail(pair, kind):
    first, last = net_buffer_list(b"x"), net_buffer_list(b"y")
    first.next, last.next = last, first
    with pytest.raises(Misuse, match="stands twice"):
        pair.post(kind, first)
    last.next = None
    pair.post(kind, first)
    last.next = first
    with pytest.raises(Misuse):
        pair.back(kind, first)
    last.next = None
    pair.back(kind, first)
    assert pair.host.back == [first, last]


def test_a_request_comes_back_by_its_own_function(pair):
    nbl = net_buffer_list(b"x")
    pair.post("send", nbl)
    with pytest.raises(Misuse, match=r"is a send request.*io\.complete\.functions"):
        pair.back("receive", nbl)
    pair.back("send", nbl)
    assert pair.host.back == [nbl]


def test_one_bad_list_among_good_ones_changes_nothing(pair):
    pending, good = net_buffer_list(b"x"), net_buffer_list(b"y")
    pair.post("send", pending)
    with pytest.raises(Misuse):
        pair.post("send", link([good, pending]))
    good.next = None
    pair.post("send", good)
    assert pair.target.taken == [pending, good]
    with pytest.raises(Misuse):
        pair.back("send", link([good, net_buffer_list(b"z")]))
    good.next = None
    pair.back("send", good)
    assert pair.host.back == [good]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_refuses_stays_with_its_owner(pair, kind):
    nbl = net_buffer_list(b"x")
    pair.target.refuse = ValueError("not like this")
    with pytest.raises(ValueError, match="not like this"):
        pair.post(kind, nbl)
    pair.target.refuse = None
    pair.post(kind, nbl)
    assert pair.target.taken == [nbl]


@pytest.mark.parametrize("kind", KINDS)
def test_requests_wait_for_the_initiate(pair, kind):
    handle, nbl = OffloadHandle("second"), net_buffer_list(b"x")
    pair.binding.initiate_offload(pair.tree(handle))
    pair.target.trees[0].miniport_offload_context = "early"
    first, pair.handle = pair.handle, handle
    with pytest.raises(Misuse, match=r"being offloaded.*initiate\.host\.quiet"):
        pair.post(kind, nbl)
    pair.complete("initiate_offload")
    pair.post(kind, nbl)
    pair.handle = first
    assert pair.target.taken == [nbl]


@pytest.mark.parametrize(
    "operation", ["initiate_offload", "terminate_offload", "update_offload", "query_offload_state"]
)
def test_state_operations_wait_for_the_one_under_way(pair, operation):
    pair.binding.terminate_offload(pair.tree())
    with pytest.raises(Misuse, match="being uploaded"):
        getattr(pair.binding, operation)(pair.tree())
    pair.complete("terminate_offload", Status.FAILURE)
    pair.binding.terminate_offload(pair.tree())
    pair.complete("terminate_offload")
    if operation != "initiate_offload":
        with pytest.raises(Misuse, match="not offloaded"):
            getattr(pair.binding, operation)(pair.tree())


def test_a_tree_comes_back_once(pair):
    pair.binding.query_offload_state(pair.tree())
    tree = pair.complete("query_offload_state")
    with pytest.raises(Misuse, match="complete each tree once"):
        pair.target.handle.query_offload_state_complete(tree)


def test_an_initiate_that_is_refused_leaves_the_object_alone(pair):
    handle, chained = OffloadHandle("second"), net_buffer_list(b"x")
    tree = pair.tree(handle)
    tree.net_buffer_list_chain = chained
    pair.target.refuse = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        pair.binding.initiate_offload(tree)
    pair.target.refuse = None
    pair.post("send", chained)
    pair.back("send", chained)
    pair.binding.initiate_offload(tree)
    pair.complete("initiate_offload", context="target's")
    assert handle.miniport_offload_context == "target's"


def test_send_data_of_a_failed_initiate_is_the_hosts_again(pair):
    chained = net_buffer_list(b"x")
    tree = pair.tree(OffloadHandle("second"))
    tree.net_buffer_list_chain = chained
    pair.binding.initiate_offload(tree)
    with pytest.raises(Misuse):
        pair.post("send", chained)
    pair.complete("initiate_offload", Status.FAILURE)
    pair.post("send", chained)
    assert pair.target.taken == [chained]


def test_a_list_is_freed_once_and_into_its_own_pool():
    pool, other = NetBufferListPool("indications"), NetBufferListPool("frames")
    nbl = pool.allocate(NetBuffer(None, 0, 0))
    with pytest.raises(Misuse, match="not allocated from pool 'frames'"):
        other.free(nbl)
    assert (pool.outstanding, other.outstanding) == (1, 0)
    pool.free(nbl)
    with pytest.raises(Misuse, match="free already"):
        pool.free(nbl)
    assert pool.outstanding == 0


def test_an_edge_without_all_its_handlers_is_not_offloaded_through():
    class Deaf(Miniport):
        def initiate_offload(self, block_list):
            raise AssertionError("called")

    host = Host()
    binding = bind(host, Deaf("deaf"))
    tree = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=OffloadHandle("host's"))
    with pytest.raises(Misuse, match=r"deaf or host has not registered.*reg\.ndis\.block-unregistered"):
        binding.initiate_offload(tree)


class Between:
    """An intermediate driver that passes down and up only what a test tells it to; ``low`` is bound over a target."""

    def __init__(self):
        self.low, self.high = Host(), Target()
        self.low.driver = self.high.driver = self
        self.high.level = 1


@pytest.fixture
def stack():
    """(the pair of host and driver, the driver, the pair of driver and target), one connection offloaded in both."""
    between = Between()
    lower = Pair(host=between.low)
    upper = Pair(target=between.high)
    return upper, between, lower


def test_a_driver_cannot_complete_what_is_still_below_it(stack):
    upper, _, lower = stack
    nbl = net_buffer_list(b"x")
    upper.post("send", nbl)
    lower.post("send", nbl)
    with pytest.raises(Misuse, match=r"further down.*general\.ownership\.while-pending"):
        upper.back("send", nbl)
    lower.back("send", nbl)
    upper.back("send", nbl)
    assert upper.host.back == [nbl]


def test_a_driver_can_complete_what_it_has_not_passed_down(stack):
    upper, _, _ = stack
    nbl = net_buffer_list(b"x")
    upper.post("send", nbl)
    upper.back("send", nbl)
    assert upper.host.back == [nbl]


def test_a_driver_can_pass_down_again_what_has_come_back_to_it(stack):
    upper, _, lower = stack
    nbl = net_buffer_list(b"x")
    upper.post("send", nbl)
    for _ in range(2):
        lower.post("send", nbl)
        lower.back("send", nbl)
    upper.back("send", nbl)
    assert upper.host.back == [nbl]


@pytest.mark.parametrize("own_first", [True, False])
def test_what_is_refused_of_a_driver_with_a_list_of_its_own_beside_can_still_be_completed(stack, own_first):
    upper, _, lower = stack
    pool = NetBufferListPool("driver's")
    nbl, own = net_buffer_list(b"x"), pool.allocate(NetBuffer(None, 0, 0))
    upper.post("send", nbl)
    lower.target.refuse = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        lower.post("send", link([own, nbl] if own_first else [nbl, own]))
    nbl.next = own.next = None
    upper.back("send", nbl)
    pool.free(own)
    assert upper.host.back == [nbl]


def test_a_list_is_not_freed_while_it_is_pending(stack):
    _, _, lower = stack
    pool = NetBufferListPool("driver's")
    nbl = pool.allocate(NetBuffer(None, 0, 0))
    lower.post("send", nbl)
    with pytest.raises(Misuse, match=r"pending.*general\.ownership\.while-pending"):
        pool.free(nbl)
    assert pool.outstanding == 1
    lower.back("send", nbl)
    pool.free(nbl)
    assert pool.outstanding == 0


def test_a_freed_list_is_neither_posted_nor_completed(pair):
    pool = NetBufferListPool("host's")
    nbl = pool.allocate(NetBuffer(None, 0, 0))
    pool.free(nbl)
    with pytest.raises(Misuse, match="has been freed"):
        pair.post("send", nbl)
    with pytest.raises(Misuse, match="never posted"):
        pair.back("send", nbl)
    assert pair.target.taken == []


@pytest.mark.parametrize("observer", [None, Observer(lambda: 0)], ids=["plain", "observed"])
def test_a_binding_is_closed_once_and_not_used_afterwards(observer):
    host, target = Host(), Target()
    binding = bind(host, target, observer=observer)
    binding.close()
    successor = bind(Host(), target)
    with pytest.raises(Misuse, match="closed already"):
        binding.close()
    with pytest.raises(Misuse, match="is closed"):
        binding.initiate_offload(
            ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=OffloadHandle("host's"))
        )
    assert successor.protocol.binding is successor and target.trees == []
