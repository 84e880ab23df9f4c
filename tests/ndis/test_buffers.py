"""NetBufferLists, NetBuffers and MDLs: what describes bytes, and what records progress on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.ndis import Mdl, NetBuffer, NetBufferList, advance_net_buffer_data_start, net_buffer_list
from chimney.ndis.buffers import copy_into_net_buffer, iterate, link

pieces = st.lists(st.binary(max_size=5), max_size=5)


def net_buffer(parts, offset, length):
    first = last = None
    for part in parts:
        mdl = Mdl(memoryview(bytearray(part)))
        first, last = first or mdl, mdl if last is None else _chain(last, mdl)
    return NetBuffer(first, offset, length)


def _chain(last, mdl):
    last.next = mdl
    return mdl


def text(nb):
    return b"".join(nb.views())


@given(pieces, st.data())
def test_a_net_buffer_is_a_stretch_of_its_chain(parts, data):
    whole = b"".join(parts)
    offset = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - offset))
    nb = net_buffer(parts, offset, length)
    assert text(nb) == whole[offset : offset + length]
    assert (nb.data_offset, nb.data_length) == (offset, length)


@given(pieces, st.data())
def test_advancing_moves_the_start_and_nothing_else(parts, data):
    whole = b"".join(parts)
    nb = net_buffer(parts, 0, len(whole))
    chain, done = nb.mdl_chain, 0
    while done < len(whole):
        delta = data.draw(st.integers(0, len(whole) - done))
        advance_net_buffer_data_start(nb, delta)
        done += delta
        assert text(nb) == whole[done:] and nb.mdl_chain is chain
        assert (nb.data_offset, nb.data_length) == (done, len(whole) - done)
        if not delta:
            break


@pytest.mark.parametrize("delta", [-1, 6])
def test_advancing_out_of_the_data_is_an_error(delta):
    nbl = net_buffer_list(b"hello")
    with pytest.raises(ValueError, match="of 5 used bytes"):
        advance_net_buffer_data_start(nbl.first_net_buffer, delta)


@given(pieces, st.binary(max_size=30), st.data())
def test_copying_in_fills_the_used_part(parts, content, data):
    whole = b"".join(parts)
    start = data.draw(st.integers(0, len(whole)))
    nb = net_buffer(parts, start, len(whole) - start)
    offset = data.draw(st.integers(0, len(whole) - start))
    copied = copy_into_net_buffer(nb, offset, memoryview(content))
    assert copied == min(len(content), len(whole) - start - offset)
    at = start + offset
    assert text(nb) == (whole[:at] + content[:copied] + whole[at + copied :])[start:]


def test_the_length_of_a_list_is_that_of_all_its_net_buffers():
    nbl = net_buffer_list(b"abc", b"de")
    nbl.first_net_buffer.next = NetBuffer(Mdl(memoryview(b"fghi")), 1, 2)
    assert nbl.data_length() == 7


def test_lists_are_linked_and_taken_apart():
    lists = [net_buffer_list(), net_buffer_list(), net_buffer_list()]
    assert list(iterate(link(lists))) == lists
    assert list(iterate(link(lists[:2]))) == lists[:2], "linking ends the chain anew"
    assert link([]) is None and list(iterate(None)) == []
    for nbl in iterate(link(lists)):
        nbl.next = None
    assert lists[0].next is None


def test_contexts_are_a_stack():
    nbl = net_buffer_list(b"x")
    nbl.push_context("lower", 1)
    nbl.push_context("upper", 2)
    with pytest.raises(RuntimeError, match="'upper'"):
        nbl.pop_context("lower")
    assert nbl.pop_context("upper") == 2 and nbl.pop_context("lower") == 1
    with pytest.raises(RuntimeError, match="empty"):
        nbl.pop_context("lower")


def test_out_of_band_entries_begin_empty():
    nbl = NetBufferList(NetBuffer(None, 0, 0))
    assert (nbl.status, nbl.tcp_offload_bytes_transferred, nbl.tcp_receive_no_push) == (0, 0, False)
    assert nbl.data_length() == 0 and nbl.first_net_buffer.views() == []
