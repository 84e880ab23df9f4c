"""A path MTU that shrank without a word."""

from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp.black_hole import BlackHole


def test_full_segments_that_time_out_again_become_smaller_in_steps():
    hole = BlackHole(True, False)
    assert not hole.on_timeout(1460, 1460, 1)
    assert hole.mss(1460) == 1460
    assert hole.on_timeout(1460, 1460, 2) and hole.mss(1460) == 1024
    assert not hole.on_timeout(1024, 1024, 3)
    assert hole.on_timeout(1024, 1024, 4) and hole.mss(1460) == 536
    assert hole.mss(500) == 500


def test_ipv6_goes_to_the_least_mtu():
    hole = BlackHole(True, True)
    assert hole.on_timeout(1440, 1440, 2) and hole.mss(1440) == 1220
    assert not hole.on_timeout(1220, 1220, 3)


def test_what_did_not_help_was_not_the_cause():
    hole = BlackHole(True, False)
    for count in range(1, 5):
        hole.on_timeout(hole.mss(1460), hole.mss(1460), count)
    assert not hole.on_timeout(536, 536, 5)
    assert hole.on_timeout(536, 536, 6) and hole.mss(1460) == 1460


def test_small_segments_say_nothing():
    hole = BlackHole(True, False)
    assert not any(hole.on_timeout(100, 1460, count) for count in range(1, 15))
    assert hole.mss(1460) == 1460


def test_small_paths_have_no_smaller_step():
    hole = BlackHole(True, False)
    assert not any(hole.on_timeout(500, 500, count) for count in range(1, 15))
    between = BlackHole(True, False)
    assert between.on_timeout(1000, 1000, 2) and between.mss(1000) == 536


def test_a_large_segment_that_arrives_restores_the_size():
    hole = BlackHole(True, False)
    hole.on_timeout(1460, 1460, 2)
    assert not hole.on_acked(1024) and hole.mss(1460) == 1024
    assert hole.on_acked(1460) and hole.mss(1460) == 1460
    assert hole.on_timeout(1460, 1460, 2) and hole.mss(1460) == 1024


def test_an_acknowledgement_begins_the_count_anew():
    hole = BlackHole(True, False)
    hole.on_timeout(1460, 1460, 2)
    hole.on_acked(1024)
    assert not hole.on_timeout(1024, 1024, 1)
    assert hole.on_timeout(1024, 1024, 2) and hole.mss(1460) == 536


def test_news_of_the_path_begin_anew():
    hole = BlackHole(True, False)
    assert not hole.reset()
    hole.on_timeout(1460, 1460, 2)
    assert hole.reset() and hole.mss(1460) == 1460


def test_it_can_be_switched_off():
    hole = BlackHole(False, False)
    assert not any(hole.on_timeout(1460, 1460, count) for count in range(1, 15))


@given(
    st.booleans(),
    st.integers(48, 65_000),
    st.lists(st.one_of(st.integers(1, 20), st.just(0), st.just(-1)), max_size=60),
)
def test_the_size_stays_within_its_bounds(ipv6, base, steps):
    hole = BlackHole(True, ipv6)
    floor = min(base, 1220 if ipv6 else 536)
    for count in steps:
        before = hole.mss(base)
        if count > 0:
            changed = hole.on_timeout(before, before, count)
        else:
            changed = hole.on_acked(before) if count else hole.reset()
        assert floor <= hole.mss(base) <= base
        assert changed or hole.mss(base) == before
