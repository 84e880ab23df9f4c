"""The memory that raw sockets receive into; what they hear is tested live."""

from chimney.link.raw import _CHUNK, _LARGEST_PACKET, _MOST_CHUNKS, _Memory


def packet(memory, filling, size=60_000):
    memory.room()[:size] = filling * size
    return memory.take(size)


def test_what_somebody_has_is_not_overwritten():
    memory = _Memory()
    first, others = packet(memory, b"1"), [packet(memory, b"2") for _ in range(100)]
    assert first == b"1" * 60_000 and all(other == b"2" * 60_000 for other in others)
    del others
    for _ in range(300):
        packet(memory, b"3")
    assert first == b"1" * 60_000


def test_memory_is_used_again():
    memory = _Memory()
    for _ in range(500):
        packet(memory, b"x")
    assert len(memory._chunks) == 1
    kept = [packet(memory, b"y") for _ in range(500)]
    assert len(memory._chunks) == _MOST_CHUNKS and len(kept) == 500
    del kept
    chunks = list(map(id, memory._chunks))
    for _ in range(500):
        packet(memory, b"z")
    assert list(map(id, memory._chunks)) == chunks


def test_there_is_always_room_for_the_largest_packet():
    memory = _Memory()
    for size in (1, _LARGEST_PACKET, 0, _CHUNK // 100, _LARGEST_PACKET) * 40:
        assert memory.room().nbytes == _LARGEST_PACKET
        assert memory.take(size).nbytes == size
