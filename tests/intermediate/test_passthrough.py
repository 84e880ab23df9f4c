"""The pass-through driver: everything goes through unchanged, except for the handles, which are each layer's own."""

import gc
import weakref

import pytest

from chimney.intermediate import PassThrough
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
from chimney.ndis.errors import Misuse
from chimney.ndis.state import MiniportOffloadBlockList, NeighborCached, walk


class Target(Miniport):
    """Writes down what arrives; a test completes by hand."""

    def __init__(self):
        super().__init__("target")
        self.calls = []

    def initiate_offload(self, block_list):
        self.calls.append(block_list)

    terminate_offload = update_offload = invalidate_offload = query_offload = initiate_offload

    def tcp_offload_send(self, offload_context, net_buffer_list):
        self.calls.append((offload_context, net_buffer_list))
        return Status.PENDING

    tcp_offload_receive = tcp_offload_forward = tcp_offload_send

    def tcp_offload_disconnect(self, offload_context, net_buffer_list, flags):
        self.calls.append((offload_context, net_buffer_list, flags))
        return Status.PENDING

    def tcp_offload_receive_return(self, net_buffer_list):
        self.calls.append(net_buffer_list)
        return Status.SUCCESS


class Host(Protocol):
    """Writes down what comes back."""

    def __init__(self):
        super().__init__("host")
        self.calls = []

    def initiate_offload_complete(self, block_list):
        self.calls.append(block_list)

    terminate_offload_complete = update_offload_complete = initiate_offload_complete
    invalidate_offload_complete = query_offload_complete = initiate_offload_complete

    def tcp_offload_send_complete(self, net_buffer_list):
        self.calls.append(net_buffer_list)

    tcp_offload_receive_complete = tcp_offload_disconnect_complete = tcp_offload_send_complete
    tcp_offload_forward_complete = receive_net_buffer_lists = tcp_offload_send_complete

    def tcp_offload_receive_indicate(self, offload_context, net_buffer_list, status):
        self.calls.append((offload_context, net_buffer_list, status))
        return Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED, 3

    def tcp_offload_event(self, offload_context, event_type, event_specific_information):
        self.calls.append((offload_context, event_type, event_specific_information))

    def indicate_offload_event(self, block_list, indication_code):
        self.calls.append((block_list and block_list.offload_handle, indication_code))
        if block_list is not None:
            block_list.cached.host_reachability_delta = 42

    def status_ex(self, status_code, status_buffer):
        self.calls.append(status_code)


class Stack:
    def __init__(self, drivers):
        self.host, self.target = Host(), Target()
        below = self.target
        for number in range(drivers):
            driver = PassThrough(f"driver {number}")
            bind(driver.lower, below)
            below = driver.upper
        self.binding = bind(self.host, below)

    def offload(self, status=Status.SUCCESS):
        """A connection under a placeholder; (host's handle, the handle that the target saw)."""
        handle = OffloadHandle("host's own")
        tcp = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=handle)
        tree = ProtocolOffloadBlockList(type=OffloadStateType.IP4, dependent_block_list=tcp)
        self.binding.initiate_offload(tree)
        lower = self.target.calls.pop()
        lower.status = Status.SUCCESS
        lower.dependent_block_list.status = status
        if status == Status.SUCCESS:
            lower.dependent_block_list.miniport_offload_context = "target's own"
        self.target.handle.initiate_offload_complete(lower)
        assert self.host.calls.pop() is tree and tcp.status == status
        return handle, lower.dependent_block_list.ndis_offload_handle


@pytest.fixture(params=[1, 3])
def stack(request):
    return Stack(request.param)


def test_every_boundary_has_a_handle_of_its_own(stack):
    handle, seen = stack.offload()
    assert seen is not handle
    assert handle.miniport_offload_context not in (None, "target's own"), "the driver's own context, not the target's"
    assert seen.miniport_offload_context == "target's own"


@pytest.mark.parametrize("operation", ["terminate", "update", "invalidate", "query"])
def test_state_operations_reach_the_object_and_come_back(stack, operation):
    handle, seen = stack.offload()
    tree = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP, offload_handle=handle, im_reserved="host's", protocol_reserved="own"
    )
    suffix = "_state" if operation == "query" else ""
    getattr(stack.binding, f"{operation}_offload{suffix}")(tree)
    lower = stack.target.calls.pop()
    assert lower.ndis_offload_handle is seen and lower.miniport_offload_context == "target's own"
    assert lower.protocol_reserved == "own"
    lower.status = Status.SUCCESS
    lower.net_buffer_list_chain = chain = net_buffer_list(b"x")
    chain.level, chain.operation = 0, 1
    getattr(stack.target.handle, f"{operation}_offload{suffix}_complete")(lower)
    assert stack.host.calls.pop() is tree
    assert (tree.status, tree.net_buffer_list_chain) == (Status.SUCCESS, chain)
    assert (tree.im_reserved, tree.protocol_reserved) == ("host's", "own")
    if operation == "terminate":
        assert handle.miniport_offload_context is None and seen.miniport_offload_context is None


def test_a_state_operation_leaves_nothing_behind(stack):
    """A call entry lives as long as its operation (im.state.complete); BufferedData and its memory with it."""
    handle, _ = stack.offload()
    tree = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=handle)
    stack.binding.query_offload_state(tree)
    lower = stack.target.calls.pop()
    lower.net_buffer_list_chain = net_buffer_list(b"x")
    kept = weakref.ref(lower.net_buffer_list_chain)
    gc.disable()
    try:
        stack.target.handle.query_offload_state_complete(lower)
        with pytest.raises(Misuse, match="complete each tree once"):
            stack.target.handle.query_offload_state_complete(lower)
        del lower, tree
        stack.host.calls.clear()
        assert kept() is None
    finally:
        gc.enable()


def test_a_failed_initiate_leaves_no_context(stack):
    handle, _ = stack.offload(Status.OFFLOAD_TCP_ENTRIES)
    assert handle.miniport_offload_context is None
    # The same handle may try again.
    tree = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=handle)
    stack.binding.initiate_offload(tree)
    assert stack.target.calls.pop().miniport_offload_context is None


def test_a_handle_can_be_offloaded_again(stack):
    handle, seen = stack.offload()
    tree = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=handle)
    stack.binding.terminate_offload(tree)
    lower = stack.target.calls.pop()
    lower.status = Status.SUCCESS
    stack.target.handle.terminate_offload_complete(lower)
    again = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=handle)
    stack.binding.initiate_offload(again)
    lower = stack.target.calls.pop()
    assert lower.miniport_offload_context is None and not lower.placeholder


def test_the_shape_of_a_tree_is_kept(stack):
    def block(type_, *dependents):
        for one, following in zip(dependents, dependents[1:], strict=False):
            one.next_block = following
        return ProtocolOffloadBlockList(
            type=type_, offload_handle=OffloadHandle(None), dependent_block_list=dependents[0] if dependents else None
        )

    leaf, row, root = OffloadStateType.TCP, OffloadStateType.IP6, OffloadStateType.NEIGHBOR
    tree = block(root, block(row, block(leaf), block(leaf)), block(row, block(leaf)))
    stack.binding.initiate_offload(tree)
    assert [b.type for b in walk(stack.target.calls.pop())] == [root, row, leaf, leaf, row, leaf]


@pytest.mark.parametrize("operation", ["send", "receive", "forward", "disconnect"])
def test_data_requests_keep_their_lists(stack, operation):
    handle, _ = stack.offload()
    nbl = net_buffer_list(b"x")
    nbl.next = net_buffer_list(b"y") if operation != "disconnect" else None
    flags = (DisconnectFlags.ABORTIVE_CLOSE,) if operation == "disconnect" else ()
    assert getattr(stack.binding, f"offload_tcp_{operation}")(handle, nbl, *flags) == Status.PENDING
    assert stack.target.calls.pop() == ("target's own", nbl, *flags)
    getattr(stack.target.handle, f"tcp_offload_{operation}_complete")(nbl)
    assert stack.host.calls.pop() is nbl
    assert nbl.context is None


def test_indications_and_their_answers(stack):
    handle, seen = stack.offload()
    nbl = net_buffer_list(b"hello")
    verdict = stack.target.handle.tcp_offload_receive_handler(seen, nbl, 0)
    assert verdict == (Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED, 3)
    assert stack.host.calls.pop() == (handle, nbl, 0)
    stack.target.handle.tcp_offload_event_handler(seen, 3, 10)
    assert stack.host.calls.pop() == (handle, 3, 10)
    stack.target.handle.indicate_status_ex(0x40020002)
    assert stack.host.calls.pop() == 0x40020002
    stack.target.handle.indicate_receive_net_buffer_lists(nbl)
    assert stack.host.calls.pop() is nbl
    stack.binding.offload_tcp_receive_return(nbl)
    assert stack.target.calls.pop() is nbl


def test_the_question_about_a_neighbor_and_its_answer(stack):
    handle, seen = stack.offload()
    cached = NeighborCached(bytes(6))
    block = MiniportOffloadBlockList(type=OffloadStateType.NEIGHBOR, cached=cached, ndis_offload_handle=seen)
    stack.target.handle.offload_event_indicate(block, 2)
    assert stack.host.calls.pop() == (handle, 2)
    assert cached.host_reachability_delta == 42
    stack.target.handle.offload_event_indicate(None, 1)
    assert stack.host.calls.pop() == (None, 1)
