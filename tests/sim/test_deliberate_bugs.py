"""Each deliberate bug is found: by a run that finds something which the same case does not show without it.

Here are those that take few runs. How many each of all of them takes, ``python -m tests.sim.bug_hunt`` tells. They run
in the pure half of `make test` alone (conftest.py): compiled classes cannot be patched.
"""

from __future__ import annotations

import pytest

import tests.sim.deliberate_bugs  # noqa: F401
from chimney.host.chimney_path import ChimneyPath
from tests.sim.bug_hunt import BUGS, ENOUGH, Patch, hunt, submit, workers

QUICK = (
    "acknowledgements_compared_as_numbers",
    "any_reset_in_the_window",
    "believes_the_dump",
    "comes_back_uninvited",
    "compares_with_snd_nxt",
    "completes_sends_out_of_order",
    "completes_twice",
    "completes_what_is_sent",
    "deadlines_never_come_earlier",
    "empties_the_partly_filled_receive",
    "ends_before_what_is_unread",
    "forgets_buffered_data_at_the_end_of_the_stream",
    "forgets_the_next_hops_address",
    "forgets_the_path_mtu",
    "forgets_the_peers_fin_when_both_cross",
    "forgets_the_second_receive",
    "forgets_unread_data_behind_a_fin",
    "forgets_what_came_during_the_upload",
    "forgets_what_was_posted_in_silence",
    "goes_on_after_the_terminate",
    "hears_the_first_news_only",
    "keeps_the_buffered_data",
    "loses_a_receive_posted_meanwhile",
    "loses_the_last_of_merged_lists",
    "never_comes_back",
    "never_probes",
    "no_timer_after_the_initiate",
    "old_neighbors_stay",
    "owes_the_delayed_acknowledgement",
    "path_mtus_only_shrink",
    "placeholder_answers",
    "reads_the_state_too_early",
    "relinks_to_the_wrong_neighbor",
    "sends_on_without_a_route",
    "sends_the_half_sent_again",
    "stays_silent",
    "stops_listening_too_early",
    "takes_another_gateway_for_another_address",
    "terminates_while_an_update_is_open",
    "timer_stops_at_the_tail",
    "timestamp_a_tick_back",
    "timestamp_rounded_down",
    "window_leaks",
    "window_moves_back",
)


@pytest.fixture(scope="module")
def hunts(request):
    """The hunt of each bug that a test asks for, all under way on two processes."""
    wanted = [BUGS[item.callspec.params["bug"]] for item in request.session.items if "hunts" in item.fixturenames]
    pool = workers(2)
    try:
        yield {bug.name: submit(pool, bug, 0, bug.near) for bug in wanted}
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("bug", QUICK)
def test_the_bug_is_found(bug, hunts):
    found = hunts[bug].result()
    assert 0 < found.runs <= ENOUGH


def test_there_are_enough_of_them():
    assert len(BUGS) >= 24
    assert all(len(bug.mistake) > 40 for bug in BUGS.values())


def test_what_is_no_bug_is_not_found():
    """A patch that changes nothing."""

    def put(patch: Patch) -> None:
        @patch(ChimneyPath, "forward")
        def forward(original, *arguments):
            return original(*arguments)

    nothing = type(next(iter(BUGS.values())))("nothing", "", 0, put)
    assert hunt(nothing, 0, 0, limit=30).runs == 0
