"""Streams through two targets: what is sent is what arrives, and every request completes once."""

import random

import pytest

from chimney.ndis import Status
from tests.target.machine import World


def pump(world, sender, receiver, data, chunk, buffer):
    """Send ``data`` in pieces, a few at a time, into reposted buffers; returns what arrived."""
    arrived = bytearray()
    buffers = {}

    def post(count):
        for nbl, memory in receiver.receive(*[buffer] * count):
            buffers[nbl] = memory

    def filled(nbl):
        arrived.extend(buffers.pop(nbl)[: nbl.tcp_offload_bytes_transferred])
        post(1)

    receiver.host.on["receive"] = filled
    post(4)
    sent = [nbl for at in range(0, len(data), chunk) for nbl in sender.send(data[at : at + chunk])]
    world.run(until=lambda: len(arrived) >= len(data) and len(sender.host.took("send")) == len(sent))
    assert [entry[0] for entry in sender.host.took("send")] == sent
    assert {entry[1] for entry in sender.host.took("send")} == {Status.SUCCESS}
    return bytes(arrived)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("drivers", [0, 1, 3])
def test_a_stream_arrives_as_it_was_sent(seed, drivers, ipv6):
    world = World(drivers, seed=seed, delay_us=100)
    a, b = world.connect(ipv6=ipv6)
    data = random.Random(seed).randbytes(1_000_000)
    assert pump(world, a, b, data, 64_000, 100_000) == data


@pytest.mark.parametrize("gro", [False, True])
def test_a_stream_survives_a_bad_network(seed, gro):
    world = World(
        seed=seed, delay_us=2000, loss=0.02, jitter_us=500, reorder=0.02, duplicate=0.01, corrupt=0.005, gro=gro
    )
    a, b = world.connect()
    data = random.Random(seed).randbytes(500_000)
    assert pump(world, a, b, data, 30_000, 7_001) == data
    assert a.offloaded.retransmitted_segments > 0


def test_small_sends_complete_in_order(seed):
    world = World(seed=seed, delay_us=50)
    a, b = world.connect()
    data = random.Random(seed).randbytes(20_000)
    assert pump(world, a, b, data, 10, 64) == data
