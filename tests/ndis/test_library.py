"""The library between two drivers: who is called with what, and what a call before its time meets."""

import pytest

from chimney.ndis import (
    HandlerNotRegistered,
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
from chimney.ndis.handle import OFFLOADED
from chimney.ndis.state import walk

STATE_OPERATIONS = [
    ("initiate_offload", "initiate_offload", "initiate_offload_complete", "initiate_offload_complete"),
    ("terminate_offload", "terminate_offload", "terminate_offload_complete", "terminate_offload_complete"),
    ("update_offload", "update_offload", "update_offload_complete", "update_offload_complete"),
    ("invalidate_offload", "invalidate_offload", "invalidate_offload_complete", "invalidate_offload_complete"),
    ("query_offload_state", "query_offload", "query_offload_state_complete", "query_offload_complete"),
]
DATA_OPERATIONS = ["send", "receive", "disconnect", "forward"]


def recorder(base, **answers):
    """A driver's edge whose handlers write down how they were called."""
    calls = []

    def handler(name):
        def called(self, *args):
            calls.append((name, *args))
            return answers.get(name)

        return called

    own = {"base", "set_options", "initialize", "hardware_capabilities", "current_config", "halt"}
    names = [name for name in vars(base) if name not in own and name[0] != "_" and callable(getattr(base, name, None))]
    edge = type("Recorder", (base,), {name: handler(name) for name in names})("recorder")
    edge.calls = calls
    return edge


@pytest.fixture
def joined():
    """A protocol above a miniport, both recording, and the binding."""
    pending = {f"tcp_offload_{operation}": Status.PENDING for operation in DATA_OPERATIONS}
    miniport = recorder(Miniport, tcp_offload_receive_return=Status.SUCCESS, **pending)
    protocol = recorder(Protocol, tcp_offload_receive_indicate=(int(Status.SUCCESS), 5))
    return protocol, miniport, bind(protocol, miniport)


def tree():
    """neighbor -> path -> two connections, each with its handle; the path is a placeholder."""
    tcp = [ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=OffloadHandle(n)) for n in (1, 2)]
    tcp[0].next_block = tcp[1]
    path = ProtocolOffloadBlockList(type=OffloadStateType.IP4, dependent_block_list=tcp[0])
    return ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR, offload_handle=OffloadHandle(0), dependent_block_list=path
    )


def offloaded(root):
    """The tree's handles as they are after an initiate; returns them."""
    handles = [block.offload_handle for block in walk(root) if block.offload_handle is not None]
    for handle in handles:
        handle.miniport_offload_context, handle.phase = "lower", OFFLOADED
    return handles


@pytest.mark.parametrize(("down", "handler", "complete", "completed"), STATE_OPERATIONS)
def test_a_state_operation_comes_back_with_the_tree_that_went_down(joined, down, handler, complete, completed):
    protocol, miniport, binding = joined
    upper = tree()
    if down != "initiate_offload":
        offloaded(upper)
    getattr(binding, down)(upper)
    [(name, lower)] = miniport.calls
    assert name == handler
    assert [block.ndis_offload_handle for block in walk(lower)] == [block.offload_handle for block in walk(upper)]
    assert [block.placeholder for block in walk(lower)] == [False, True, False, False]
    chain = net_buffer_list(b"x")
    chain.level, chain.operation = miniport.level, 1
    for number, block in enumerate(walk(lower)):
        block.status = list(Status)[number]
        block.net_buffer_list_chain = chain if number == 3 else None
    getattr(miniport.handle, complete)(lower)
    assert protocol.calls == [(completed, upper)]
    assert [block.status for block in walk(upper)] == list(Status)[:4]
    assert [block.net_buffer_list_chain for block in walk(upper)] == [None, None, None, chain]


def test_traversal_is_depth_first_and_breadth_next():
    root = tree()
    assert [block.type for block in walk(root)] == [
        OffloadStateType.NEIGHBOR,
        OffloadStateType.IP4,
        OffloadStateType.TCP,
        OffloadStateType.TCP,
    ]


def test_the_lower_context_travels_in_the_cell(joined):
    _, miniport, binding = joined
    upper = tree()
    binding.initiate_offload(upper)
    lower = miniport.calls[0][1]
    with pytest.raises(ValueError, match="placeholder"):
        lower.dependent_block_list.miniport_offload_context = "path"
    lower.miniport_offload_context = "neighbor"
    assert upper.offload_handle.miniport_offload_context == "neighbor"


@pytest.mark.parametrize("operation", DATA_OPERATIONS)
def test_a_data_request_arrives_with_the_lower_drivers_context(joined, operation):
    protocol, miniport, binding = joined
    handle, nbl = OffloadHandle("upper"), net_buffer_list(b"x")
    flags = (1,) if operation == "disconnect" else ()
    call = getattr(binding, f"offload_tcp_{operation}")
    with pytest.raises(ValueError, match="not offloaded"):
        call(handle, nbl, *flags)
    handle.miniport_offload_context = "lower"
    assert call(handle, nbl, *flags) == Status.PENDING
    assert miniport.calls == [(f"tcp_offload_{operation}", "lower", nbl, *flags)]
    getattr(miniport.handle, f"tcp_offload_{operation}_complete")(nbl)
    assert protocol.calls == [(f"tcp_offload_{operation}_complete", nbl)]


def test_indications_arrive_with_the_upper_drivers_handle(joined):
    protocol, miniport, binding = joined
    handle, nbl = OffloadHandle("upper"), net_buffer_list(b"hello")
    assert miniport.handle.tcp_offload_receive_handler(handle, nbl, 0) == (Status.SUCCESS, 5)
    miniport.handle.tcp_offload_event_handler(handle, 3, 8)
    miniport.handle.indicate_status_ex(0x40020001)
    miniport.handle.indicate_receive_net_buffer_lists(nbl)
    assert binding.offload_tcp_receive_return(nbl) == Status.SUCCESS
    assert protocol.calls == [
        ("tcp_offload_receive_indicate", handle, nbl, 0),
        ("tcp_offload_event", handle, 3, 8),
        ("status_ex", 0x40020001, None),
        ("receive_net_buffer_lists", nbl),
    ]
    assert miniport.calls == [("tcp_offload_receive_return", nbl)]


def test_a_terminate_ends_the_validity_of_the_context(joined):
    _, miniport, binding = joined
    upper = tree()
    handles = offloaded(upper)
    binding.terminate_offload(upper)
    lower = miniport.calls[0][1]
    for block in walk(lower):
        block.status = Status.SUCCESS
    list(walk(lower))[-1].status = Status.FAILURE
    miniport.handle.terminate_offload_complete(lower)
    # A6: an object whose terminate failed stays until the second one.
    assert [handle.miniport_offload_context for handle in handles] == [None, None, "lower"]


def test_a_driver_is_bound_once(joined):
    protocol, miniport, _ = joined
    with pytest.raises(ValueError, match="bound already"):
        bind(protocol, Miniport("other"))
    with pytest.raises(ValueError, match="bound already"):
        bind(Protocol("other"), miniport)


def test_a_handler_that_is_not_there_says_so():
    protocol, miniport = Protocol("host"), Miniport("target")
    binding = bind(protocol, miniport)
    with pytest.raises(Misuse, match=r"not registered.*reg\.ndis\.block-unregistered"):
        binding.initiate_offload(tree())
    with pytest.raises(HandlerNotRegistered, match="tcp_offload_event"):
        miniport.handle.tcp_offload_event_handler(OffloadHandle("upper"), 3, 8)
