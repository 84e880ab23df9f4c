"""The delivery algorithm (13.2), seen from the host: requests, indications, pushes, and the end of the stream."""

import random

import pytest

from chimney.ndis import Status, net_buffer_list
from chimney.ndis.buffers import iterate, link
from chimney.ndis.errors import Misuse
from chimney.ndis.library import MiniportHandle
from chimney.target import TargetConfig
from tests.target.machine import WINDOW, World

SUCCESS, INVALID_STATE = int(Status.SUCCESS), int(Status.INVALID_STATE)


@pytest.fixture
def world(seed):
    return World(seed=seed, delay_us=10)


@pytest.fixture
def ends(world):
    return world.connect()


def test_a_push_completes_a_partly_filled_request(world, ends):
    a, b = ends
    [(nbl, memory)] = b.receive(100)
    a.send(b"hello")
    world.run(until=lambda: b.host.took("receive"))
    assert b.host.took("receive") == [(nbl, SUCCESS, 5)]
    assert memory[:5] == b"hello" and nbl.data_length() == 95
    assert nbl.first_net_buffer.data_offset == 5


def test_a_full_request_completes_in_either_mode(world, ends):
    a, b = ends
    requests = b.receive(2, push=True) + b.receive(2, push=False)
    a.send(b"abcd")
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 2) for nbl, _ in requests]
    assert [bytes(memory) for _, memory in requests] == [b"ab", b"cd"]


def test_a_non_push_request_waits_until_it_is_full(world, ends):
    a, b = ends
    [(nbl, memory)] = b.receive(10, push=False)
    a.send(b"12345")
    world.run(duration=2_000_000)
    assert not b.host.took("receive")
    a.send(b"67890")
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 10)] and memory == b"1234567890"


def test_a_partly_valid_non_push_request_is_filled_from_where_it_is(world, ends):
    a, b = ends
    memory = bytearray(b"abc\0\0")
    nbl = net_buffer_list(memory)
    nbl.tcp_receive_no_push, nbl.tcp_offload_bytes_transferred = True, 3
    b.side.binding.offload_tcp_receive(b.handle, nbl)
    a.send(b"de")
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 5)] and memory == b"abcde"


def test_the_push_timer_completes_what_no_push_follows(world, ends):
    _, b = ends
    [(nbl, _)] = b.receive(100)
    b.forward(b.segment(0, b"1234", push=False))
    world.run(duration=499_999)
    assert not b.host.took("receive")
    world.run(duration=1)
    assert b.host.took("receive") == [(nbl, SUCCESS, 4)]


def test_data_restarts_the_push_timer(world, ends):
    _, b = ends
    [(nbl, _)] = b.receive(100)
    b.forward(b.segment(0, b"1234", push=False))
    world.run(duration=400_000)
    b.forward(b.segment(4, b"5678", push=False))
    world.run(duration=499_999)
    assert not b.host.took("receive"), "500 ms from the last arrival, not from the first"
    world.run(duration=1)
    assert b.host.took("receive") == [(nbl, SUCCESS, 8)]


def test_a_completion_stops_the_push_timer(world, ends):
    _, b = ends
    (first, _), (second, _) = b.receive(4, 100)
    b.forward(b.segment(0, b"12", push=False))
    world.run(duration=400_000)
    b.forward(b.segment(2, b"34", push=False))
    world.run(duration=400_000)
    b.forward(b.segment(4, b"5", push=False))
    world.run(duration=499_999)
    assert b.host.took("receive") == [(first, SUCCESS, 4)]
    world.run(duration=1)
    assert b.host.took("receive")[1:] == [(second, SUCCESS, 1)]


def test_a_push_interval_of_the_configuration(seed):
    world = World(config=TargetConfig(push_ticks=50), seed=seed)
    _, b = world.connect()
    b.receive(100)
    b.forward(b.segment(0, b"1234", push=False))
    world.run(until=lambda: b.host.took("receive"), limit=50_000)
    assert world.clock() == 1_050_000


def test_data_without_a_request_is_indicated_and_lent_until_it_is_returned(world, ends):
    a, b = ends
    b.host.answer = len
    a.send(b"hello", b"world")
    world.run()
    assert b.host.indicated == b"helloworld"
    target = b.side.target
    assert len(target.lent) == len(b.host.held) > 0
    b.side.binding.offload_tcp_receive_return(link(b.host.held))
    assert not target.lent
    with pytest.raises(ValueError, match="not lent"):
        b.side.binding.offload_tcp_receive_return(b.host.held[0])


def test_refused_data_is_not_indicated_again_until_a_request_is_posted(world, ends):
    a, b = ends
    a.send(b"hello")
    world.run()
    a.send(b"world")
    world.run(duration=5_000_000)
    assert [entry[2] for entry in b.host.took("indicate")] == [5]
    [(nbl, memory)] = b.receive(8)
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 8)] and memory == b"hellowor"
    # What does not fit is indicated at once.
    assert [entry[2] for entry in b.host.took("indicate")] == [5, 2]


def test_a_prefix_can_be_taken(world, ends):
    a, b = ends
    b.host.answer = lambda data: 3
    a.send(b"headpayload")
    world.run()
    assert b.host.indicated == b"hea"
    assert not b.side.target.lent, "a partly accepted list is the target's at once"
    [(nbl, memory)] = b.receive(8)
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 8)] and memory == b"dpayload"


def test_a_request_posted_from_within_a_refusal_gets_the_data(world, ends):
    """The header tells how much follows: a buffer for exactly that is posted before the handler returns."""
    a, b = ends
    posted = []

    def answer(data):
        posted.extend(b.receive(len(data) - 4))
        return 4

    b.host.answer = answer
    a.send(b"0008whatever")
    world.run()
    assert b.host.indicated == b"0008" and bytes(posted[0][1]) == b"whatever"
    assert [entry[0] for entry in b.host.log if entry[0] in ("indicate", "receive")] == ["indicate", "receive"]


def test_a_zero_length_request_takes_nothing_and_lets_the_target_indicate(world, ends):
    a, b = ends
    a.send(b"hello")
    world.run()
    b.host.answer = len
    [(nbl, _)] = b.receive(0)
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 0)]
    assert b.host.indicated == b"hello"


def test_a_zero_length_request_waits_for_data(world, ends):
    a, b = ends
    [(nbl, _)] = b.receive(0)
    world.run(duration=1_000_000)
    assert not b.host.took("receive")
    b.host.answer = len
    a.send(b"x")
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 0)] and b.host.indicated == b"x"


def test_requests_between_zero_length_ones_keep_their_order(world, ends):
    a, b = ends
    requests = b.receive(0, 2, 0, 3)
    a.send(b"abcde")
    world.run()
    assert [entry[0] for entry in b.host.took("receive")] == [nbl for nbl, _ in requests]
    assert [entry[2] for entry in b.host.took("receive")] == [0, 2, 0, 3]


def test_requests_reposted_from_within_their_completion(world, ends):
    """Posts from within a completion are served after it has returned: upcalls do not nest (the host checks that)."""
    a, b = ends
    buffers = b.receive(1)
    b.host.on["receive"] = lambda nbl: buffers.extend(b.receive(1)) if len(buffers) < 50 else None
    a.send(bytes(range(50)))
    world.run()
    assert [memory[0] for _, memory in buffers] == list(range(50))


def test_the_preferred_indication_size(world):
    a, b = world.ends()
    b.cached.rcv_indication_size = 100
    a.initiate(), b.initiate()
    b.host.answer = len
    a.send(bytes(250))
    world.run()
    assert [entry[2] for entry in b.host.took("indicate")] == [100, 100, 50]


def test_the_end_of_the_stream_comes_after_all_data(world, ends):
    a, b = ends
    a.disconnect(b"last words")
    world.run()
    assert b.host.took("INDICATE_DISCONNECT") == [], "the data before it has been refused"
    [(nbl, memory)] = b.receive(100)
    world.run()
    assert [entry[0] for entry in b.host.log] == ["initiate", "indicate", "receive", "INDICATE_DISCONNECT"]
    assert memory[:10] == b"last words"


def test_requests_at_the_end_of_the_stream(world, ends):
    """A10: what is partly filled ends with its count, empty ones with nothing; later ones are refused."""
    a, b = ends
    first, second = b.receive(100, push=False) + b.receive(100)
    a.disconnect(b"1234")
    world.run()
    assert b.host.took("receive") == [(first[0], SUCCESS, 4), (second[0], SUCCESS, 0)]
    assert b.host.log[-1][0] == "INDICATE_DISCONNECT"
    [(late, _)] = b.receive(10)
    world.run()
    assert b.host.took("receive")[-1] == (late, INVALID_STATE, 0)


def test_a_request_posted_from_within_the_last_completion_ends_too(world, ends):
    a, b = ends
    b.receive(10)
    posted = []
    b.host.on["receive"] = lambda nbl: posted.extend(b.receive(10)) if not posted else None
    a.disconnect()
    world.run()
    assert [entry[1:] for entry in b.host.took("receive")] == [(SUCCESS, 0), (SUCCESS, 0)]


def test_read_only_memory_cannot_be_filled(ends):
    _, b = ends
    with pytest.raises(Misuse, match="read-only"):
        b.side.binding.offload_tcp_receive(b.handle, net_buffer_list(b"constant"))


def test_a_request_that_claims_more_than_there_is_cannot_be_filled(ends):
    _, b = ends
    short = net_buffer_list(bytearray(10))
    short.first_net_buffer.data_length = 11
    with pytest.raises(Misuse, match="1 bytes more than its MDLs hold"):
        b.side.binding.offload_tcp_receive(b.handle, link([net_buffer_list(bytearray(5)), short]))
    assert not b.offloaded.delivery.requests, "all or none"


@pytest.mark.parametrize("answer", [(int(Status.FAILURE), 0), (int(Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED), 6)])
def test_an_answer_that_there_is_not(world, ends, answer):
    """It comes out of the poll; the list is the target's, and the data stays."""
    a, b = ends
    b.side.target.handle = Answering(b.side.target.handle, answer)
    b.offloaded.delivery.upcalls = b.side.target.handle
    a.send(b"hello")
    with pytest.raises(Misuse, match=r"\(indicate\."):
        world.run()
    assert not b.side.target.lent and not b.side.target.chimney_pool.outstanding


class Answering(MiniportHandle):
    """NDIS's handle, as if the driver above gave this answer to an indication."""

    def __init__(self, real, answer):
        super().__init__(real.miniport, real.protocol, real.binding)
        self.answer = answer

    def tcp_offload_receive_handler(self, ndis_offload_handle, net_buffer_list, status):
        return self.answer


def test_data_handed_over_waits_for_a_request_and_comes_first(world):
    a, b = world.ends()
    b.delegated.buffered_data = net_buffer_list(bytearray(b"from "), bytearray(b"the host, "))
    a.initiate(), b.initiate()
    a.send(b"from the wire")
    world.run(duration=1_000_000)
    assert not b.host.took("indicate"), "handed-over data is not indicated on the target's own initiative"
    [(nbl, memory)] = b.receive(100)
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 28)]
    assert memory[:28] == b"from the host, from the wire"


def test_data_handed_over_needs_no_push(world):
    a, b = world.ends()
    b.delegated.buffered_data = net_buffer_list(bytearray(b"left behind"))
    a.initiate(), b.initiate()
    b.receive(100)
    world.run(until=lambda: b.host.took("receive"), limit=1000)


def pieces(nbl):
    """The memory that a list holds: how many pieces, and how many bytes."""
    sizes = []
    mdl = nbl.first_net_buffer.mdl_chain
    while mdl is not None:
        sizes.append(mdl.byte_count)
        mdl = mdl.next
    return len(sizes), sum(sizes)


def watch(host, look):
    """Look at every list that is indicated to the host."""
    indicate = host.tcp_offload_receive_indicate

    def indicated(handle, nbl, status):
        look(nbl)
        return indicate(handle, nbl, status)

    host.tcp_offload_receive_indicate = indicated


def test_what_nobody_reads_takes_memory_by_its_bytes(ends):
    """A peer may send each byte in a segment of its own."""
    _, b = ends
    data = bytes(range(250)) * 12
    for at in range(len(data)):
        b.arrives(at, data[at : at + 1], push=False)
    seen = []
    watch(b.host, lambda nbl: seen.append((nbl.data_length(), *pieces(nbl))))
    b.receive(1)
    b.side.world.run()
    [(length, count, size)] = seen
    assert length == 2_999 and count < 20 and size < 2 * length
    b.receive(2_999)
    b.side.world.run()
    assert b.received == data


def test_a_read_costs_the_same_however_much_waits_behind_it(world, ends):
    """What is left is indicated after each read, all of it, and not described anew."""
    a, b = ends
    data = bytes(range(250)) * 800
    a.send(data)
    world.run(duration=1_000_000)
    seen = []
    watch(b.host, lambda nbl: seen.append(nbl.first_net_buffer))
    b.receive(1)
    world.run(duration=0)
    b.receive(1)
    world.run(duration=0)
    assert [nb.data_length for nb in seen] == [len(data) - 1, len(data) - 2]
    assert seen[0].mdl_chain is seen[1].mdl_chain


def test_a_refused_list_that_somebody_keeps_does_not_lead_to_what_comes_later(ends):
    _, b = ends
    kept = []
    watch(b.host, kept.append)
    for at in range(0, 3_000, 10):
        b.arrives(at, bytes(10), push=False)
        b.receive(5 if at < 100 else 10)
        b.side.world.run(duration=0)
    assert pieces(kept[0])[0] == 1


def test_nothing_that_is_lent_changes(world, seed):
    """Parts of what is buffered are indicated, taken, refused and read, and more is appended meanwhile."""
    rng = random.Random(seed)
    a, b = world.ends()
    b.cached.rcv_indication_size = 700
    a.initiate(), b.initiate()
    lent = []
    size = 0
    watch(b.host, lambda nbl: lent.append((nbl, b"".join(nbl.first_net_buffer.views()))))
    b.host.answer = lambda data: rng.choice((0, 0, len(data) // 2, len(data)))
    stream = b""
    for _ in range(300):
        data = rng.randbytes(rng.choice((1, 1, 7, 300, 1400)))
        b.arrives(len(stream), data)
        stream += data
        if rng.random() < 0.4:
            b.receive(rng.choice((0, 1, 50, 2000)))
            world.run(duration=0)
    assert b.host.held
    for nbl, data in lent:
        if nbl in b.host.held:
            size += len(data)
            assert b"".join(nbl.first_net_buffer.views()) == data
    assert 0 < size < len(stream)
    b.host.answer = len
    b.receive(0, *[2_000] * 100)
    world.run()
    assert b.received == stream


def test_no_upcall_from_within_a_downward_call(world, ends):
    a, b = ends
    a.send(b"hello")
    world.run()
    before = len(b.host.log)
    b.receive(5)
    assert len(b.host.log) == before
    assert b.side.target.poll_at() <= world.clock()


def test_the_window_closes_on_refused_data_and_opens_again(world, ends):
    a, b = ends
    data = bytes(600_000)
    a.send(data)
    world.run(duration=5_000_000)
    # The right edge may creep by less than one unit of the scaled window with an acknowledgement.
    assert b.offloaded.delivery.buffered_bytes < WINDOW + 4096
    requests = b.receive(*[100_000] * 6, push=False)
    world.run(until=lambda: len(b.host.took("receive")) == len(requests))
    world.run(until=lambda: a.host.took("send"))


def test_filled_requests_and_one_that_is_pushed_complete_in_one_call(world, ends):
    a, b = ends
    calls = []
    complete = b.host.tcp_offload_receive_complete
    b.host.tcp_offload_receive_complete = lambda head: (calls.append(len(list(iterate(head)))), complete(head))
    requests = b.receive(2, 2, 100)
    a.send(b"abcdef")
    world.run()
    assert b.host.took("receive") == [(nbl, SUCCESS, 2) for nbl, _ in requests] and calls == [3]


def test_a_push_does_not_count_for_the_bytes_behind_it(world, ends):
    _, b = ends
    b.receive(10, push=False)
    b.forward(b.segment(0, b"123456", push=True))
    world.run(duration=1000)
    [(second, _)] = b.receive(100)
    b.forward(b.segment(6, b"7890123", push=False))
    world.run(duration=400_000)
    assert len(b.host.took("receive")) == 1
    world.run(duration=200_000)
    assert b.host.took("receive")[1:] == [(second, SUCCESS, 3)]


def test_a_terminate_ends_what_a_push_would_have_completed(world, ends):
    a, b = ends
    a.send(b"hello")
    world.run()
    [(nbl, _)] = b.receive(100)
    b.terminate()
    assert b.host.took("receive") == [(nbl, int(Status.UPLOAD_IN_PROGRESS), 5)]
