"""Steps that many scenarios take."""

from __future__ import annotations

from random import Random

from chimney.conformance.end import End
from chimney.ndis.buffers import NetBufferList


def pattern(end: End, size: int) -> bytes:
    """The next ``size`` bytes of what this end's application sends: no two places look alike."""
    return Random(f"{end.side.number} {end.flow.local_port} {len(end.application)}").randbytes(size)


def send(end: End, *sizes: int) -> list[NetBufferList]:
    """Post sends of these sizes, in one list."""
    parts = []
    data = pattern(end, sum(sizes))
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return end.send(*parts)


def arrived(*ends: End) -> bool:
    """Whether all that their peers have sent has been received by these."""
    return all(end.received == end.peer.application for end in ends)


def exchange(one: End, other: End, size: int = 4000) -> None:
    """So many bytes each way, with both applications reading, until all has arrived and all sends are completed."""
    for end in (one, other):
        end.reading = size
    lists = [*send(one, size), *send(other, size)]
    one.side.world.run(until=lambda: arrived(one, other) and completed(one, other, lists))


def completed(one: End, other: End, lists: list[NetBufferList]) -> bool:
    """Whether all of these sends of the two hosts have been completed."""
    done = {id(nbl) for end in (one, other) for nbl, *_ in end.host.took("send")}
    return all(id(nbl) in done for nbl in lists)


def hand_over(*ends: End) -> None:
    """Take each back into its host, and offload it again."""
    for end in ends:
        end.terminate()
        end.initiate()
