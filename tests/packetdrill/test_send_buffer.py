"""Who is turned away when he writes: Linux counts the memory of buffers, and asks when one is begun."""

from chimney.packetdrill.engine_config import SocketOptions
from chimney.packetdrill.send_buffer import SendBuffer, full_buffer, train_length
from chimney.packetdrill.settings import Settings

MANY = 1 << 32
GOAL = 16_000


def buffer(sndbuf=21_000):
    return SendBuffer(Settings(), SocketOptions(sndbuf=sndbuf), 1000)


def fill(found, lowat=MANY):
    """What a writer that does not stop gets rid of."""
    written = 0
    while (room := found.room(GOAL, lowat)) > 0:
        found.appended(room)
        written += room
    return written


def test_a_write_goes_on_to_the_end_of_the_buffer_that_was_begun():
    found = buffer()
    assert found.limit() == 42_000
    assert fill(found) == 3 * GOAL
    assert found.memory() > 42_000


def test_what_is_acknowledged_makes_room():
    found = buffer()
    fill(found)
    found.moved(GOAL, GOAL, GOAL)
    assert fill(found) == GOAL
    assert found.memory() == 3 * GOAL + 3 * 1280


def test_what_is_cut_takes_more_memory():
    found = buffer()
    fill(found)
    before = found.memory()
    found.moved(2 * GOAL, 0, GOAL // 4)
    assert found.memory() == before + 6 * 1280


def test_a_buffer_that_was_sent_in_part_is_filled_up():
    found = buffer()
    found.appended(found.room(GOAL, MANY))
    found.moved(10_000, 0, 10_000)
    assert found.room(GOAL, MANY) == 10_000
    found.appended(10_000)
    assert found.unsent() == GOAL and found.is_full(GOAL)


def test_a_record_is_not_filled_up():
    found = buffer()
    found.room(GOAL, MANY)
    found.appended(100, end_of_record=True)
    assert found.room(GOAL, MANY) == GOAL


def test_too_much_that_is_not_sent_stops_a_writer():
    assert fill(buffer(1_000_000), lowat=20_000) == 2 * GOAL


def test_a_writer_goes_on_when_a_third_is_free():
    found = buffer()
    fill(found)
    assert not found.is_writable(MANY)
    found.moved(3 * GOAL, 3 * GOAL - 24_000, GOAL)
    assert found.is_writable(MANY)
    assert not buffer().is_writable(0)


def test_the_buffer_grows_with_the_window_if_nobody_has_chosen_its_size():
    tuned, chosen = SendBuffer(Settings(), SocketOptions(), 1000), buffer()
    for found in tuned, chosen:
        found.expand(40)
    assert tuned.limit() == 2 * 40 * (2048 + 256)
    assert chosen.limit() == 42_000


def test_full_buffers_and_trains():
    assert full_buffer(1000, 32_792) == 16_000
    assert full_buffer(1000, 300) == 1000
    assert full_buffer(1448, 1 << 30) == 65_215 // 1448 * 1448
    assert train_length(Settings(), 1000, 10_000, 100_000, True) == 2000
    assert train_length(Settings(min_tso_segs=10), 1000, 10_000, 100_000, True) == 10_000
    assert train_length(Settings(), 1000, 10_000, 100, True) == 65_000
