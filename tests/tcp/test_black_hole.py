"""The path MTU where nobody tells it: black holes, and probes for what the path carries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp.black_hole import BlackHole

MINUTE = 60_000_000


def shrunk(base=1460, options=0):
    """After two time-outs of full-sized segments."""
    hole = BlackHole(True, False, options)
    hole.mss(base)
    assert not hole.on_timeout(base - options, base - options, 1)
    assert hole.on_timeout(base - options, base - options, 2)
    return hole


def probe(hole, passes, now=0):
    """The candidate is sent, and arrives or is repaired in smaller pieces; its size."""
    size = hole.candidate - hole.options
    hole.probe_end = 10_000
    least = min(size, hole.mss(1460) - hole.options)
    changed = hole.on_acked(size if passes else least, 10_000, now)
    assert changed == passes and hole.probe_end == -1
    return size


def test_full_segments_that_time_out_again_become_smaller_in_steps():
    hole = shrunk()
    assert hole.mss(1460) == 1024
    assert not hole.on_timeout(1024, 1024, 3)
    assert hole.on_timeout(1024, 1024, 4) and hole.mss(1460) == 536
    assert hole.mss(500) == 500


def test_options_count():
    hole = shrunk(options=12)
    assert hole.mss(1460) == 1024
    assert not hole.on_timeout(1012, 1012, 3)
    assert hole.on_timeout(1012, 1012, 4) and hole.mss(1460) == 536


def test_ipv6_goes_to_the_least_mtu():
    hole = BlackHole(True, True, 0)
    assert hole.on_timeout(1440, 1440, 2) and hole.mss(1440) == 1220
    assert not hole.on_timeout(1220, 1220, 3)


def test_what_did_not_help_was_not_the_cause():
    hole = shrunk()
    hole.on_timeout(1024, 1024, 4)
    assert not hole.on_timeout(536, 536, 5)
    assert hole.on_timeout(536, 536, 6) and hole.mss(1460) == 1460


def test_small_segments_say_nothing():
    hole = BlackHole(True, False, 0)
    assert not any(hole.on_timeout(100, 1460, count) for count in range(1, 15))
    assert hole.mss(1460) == 1460


def test_small_paths_have_no_smaller_step():
    hole = BlackHole(True, False, 0)
    assert not any(hole.on_timeout(500, 500, count) for count in range(1, 15))
    between = BlackHole(True, False, 0)
    assert between.on_timeout(1000, 1000, 2) and between.mss(1000) == 536


def test_a_large_segment_that_arrives_restores_the_size():
    hole = shrunk()
    assert not hole.on_acked(1024, 1024, 0) and hole.mss(1460) == 1024
    assert hole.on_acked(1460, 3000, 0) and hole.mss(1460) == 1460
    assert hole.on_timeout(1460, 1460, 2) and hole.mss(1460) == 1024


def test_an_acknowledgement_begins_the_count_anew():
    hole = shrunk()
    hole.on_acked(1024, 1024, 0)
    assert not hole.on_timeout(1024, 1024, 1)
    assert hole.on_timeout(1024, 1024, 2) and hole.mss(1460) == 536


def test_it_can_be_switched_off():
    hole = BlackHole(False, False, 0)
    assert not any(hole.on_timeout(1460, 1460, count) for count in range(1, 15))


# Probing.


def test_nothing_is_probed_for_before_something_arrives():
    hole = shrunk()
    assert hole.candidate == 0
    hole.on_acked(1024, 1024, 0)
    assert hole.candidate == 1460


@pytest.mark.parametrize("options", [0, 12])
def test_what_was_an_outage_is_over_with_the_first_probe(options):
    hole = shrunk(options=options)
    hole.on_acked(1024 - options, 1024, 0)
    assert probe(hole, True) == 1460 - options
    assert hole.mss(1460) == 1460 and hole.candidate == 0


def test_the_size_that_passes_is_found_to_a_few_bytes():
    for passes in (1024, 1025, 1100, 1280, 1400, 1452, 1459):
        hole = shrunk()
        hole.on_acked(1024, 1024, 0)
        probes = 0
        while hole.candidate:
            probe(hole, hole.candidate <= passes)
            probes += 1
        assert passes - 8 <= hole.mss(1460) <= passes
        assert probes <= 3 * 8
        # Known well enough: ten minutes later the path may be another one.
        hole.on_acked(1000, 20_000, 10 * MINUTE - 1)
        assert hole.candidate == 0
        hole.on_acked(1000, 20_000, 10 * MINUTE)
        assert probe(hole, True) == 1460 and hole.mss(1460) == 1460


def test_a_probe_is_tried_three_times():
    hole = shrunk()
    hole.on_acked(1024, 1024, 0)
    assert [probe(hole, False) for _ in range(4)] == [1460, 1460, 1460, (1024 + 1459) // 2]
    # A random loss does not end the search.
    assert probe(hole, True) == (1024 + 1459) // 2


def test_a_probe_is_outstanding_until_its_end_is_acknowledged():
    hole = shrunk()
    hole.on_acked(1024, 1024, 0)
    hole.probe_end = 10_000
    assert not hole.on_acked(1024, 9_999, 0)
    assert hole.probe_end == 10_000
    assert not hole.is_due(1024, 10**6, 0, 10**6, 10**6)


def test_a_probe_needs_company_and_room():
    hole = shrunk()
    hole.on_acked(1024, 1024, 0)
    needed = 1460 + 4 * 1024
    enough = {"mss": 1024, "cwnd": 11 * 1024, "in_flight": 0, "data": needed, "window": needed}
    assert hole.is_due(*enough.values())
    for name in ("cwnd", "data", "window"):
        assert not hole.is_due(*{**enough, name: enough[name] - 1}.values())
    assert not hole.is_due(*{**enough, "in_flight": 11 * 1024 - 1460 - 1024 + 1}.values())


def test_a_larger_path_is_believed_or_probed_for():
    believed = shrunk()
    assert believed.on_path_mtu(1024, 1460, 0) and believed.mss(1460) == 1460
    assert not believed.on_path_mtu(1460, 1460, 0)
    asked = BlackHole(True, False, 0)
    assert asked.mss(600) == 600
    assert asked.on_path_mtu(600, 1460, 512) and asked.mss(1460) == 600
    assert probe(asked, True) == 986 and asked.mss(1460) == 986
    assert asked.candidate == (986 + 1460) // 2


def test_sizes_that_are_in_use_are_not_probed_for():
    hole = BlackHole(True, False, 0)
    assert hole.mss(1024) == 1024 and hole.on_path_mtu(1024, 1200, 512)
    assert hole.candidate == (1024 + 1200) // 2


def test_a_smaller_path_is_believed_at_once():
    hole = BlackHole(True, False, 0)
    hole.mss(1460)
    assert not hole.on_path_mtu(1460, 1200, 512)
    assert hole.mss(1200) == 1200 and hole.candidate == 0


@given(
    st.booleans(),
    st.integers(48, 65_000),
    st.lists(
        st.tuples(st.sampled_from(["timeout", "acked", "probe", "path", "reset"]), st.integers(0, 20), st.integers(0)),
        max_size=60,
    ),
)
def test_the_size_stays_within_its_bounds(ipv6, base, steps):
    hole = BlackHole(True, ipv6, 0)
    hole.mss(base)
    floor = min(base, 1220 if ipv6 else 536)
    for kind, count, now in steps:
        now %= 2**60
        before = hole.mss(base)
        if kind == "timeout":
            changed = hole.on_timeout(before, before, count)
        elif kind == "acked":
            changed = hole.on_acked(before, count, now)
        elif kind == "probe":
            hole.probe_end = 5
            changed = hole.on_acked(hole.candidate if count > 10 else before, count, now)
        elif kind == "path":
            changed = hole.on_path_mtu(before, base, 512 if count > 10 else 0)
        else:
            changed = hole.reset()
        assert floor <= hole.mss(base) <= base
        assert changed or hole.mss(base) == before
        assert hole.candidate == 0 or hole.limit < hole.candidate <= base
