"""Debts: nothing is told before its time, nor of a target that had no turn or no room."""

from chimney.verifier.overdue import NEVER, Debt, Debts
from chimney.verifier.packets import Packet


def _owed(due, patience=100_000):
    debts, debt = Debts(), Debt(None, None, patience)
    debts.owe(debt, "a", due)
    return debts, debt


def _poll(debts, *times, connections=1):
    return [debt for now in times for debt in debts.polled("a", now, connections)]


def test_a_debt_is_told_of_once_and_not_before_its_patience_is_over():
    debts, debt = _owed(1_000_000)
    assert _poll(debts, 900_000, 1_000_001, 1_090_000) == []
    assert _poll(debts, 1_200_000, 1_400_000) == [debt]
    assert debt.due == NEVER


def test_what_is_settled_or_put_off_is_not_told_of():
    debts, debt = _owed(1_000_000)
    _poll(debts, 1_000_001)
    debt.settle()
    assert _poll(debts, 2_000_000, 3_000_000) == []
    debts.owe(debt, "a", 4_000_000)
    debts.owe(debt, "a", 6_000_000)
    assert _poll(debts, 4_500_000, 5_500_000) == []
    assert _poll(debts, 6_500_000, 7_000_000) == [debt]


def test_a_debt_that_becomes_due_earlier_is_seen_earlier():
    debts, debt = _owed(9_000_000)
    debts.owe(debt, "a", 1_000_000)
    assert _poll(debts, 1_500_000, 2_000_000) == [debt]


def test_a_target_that_slept_is_given_its_turn_and_one_with_many_connections_several():
    debts, debt = _owed(1_000_000)
    assert _poll(debts, 50_000_000) == []
    assert _poll(debts, 50_000_001, 50_020_001) == [debt]
    debts, debt = _owed(1_000_000)
    times = [2_000_000 + 100_000 * n for n in range(10)]
    assert _poll(debts, *times, connections=1000) == []


def test_a_full_link_is_an_excuse():
    debts, debt = _owed(1_000_000)
    _poll(debts, 1_000_001)
    debts.passed(Packet(0, 1_150_000, "a", False, sent=False))
    assert _poll(debts, 1_200_000, 1_250_000) == []
    assert _poll(debts, 1_400_000, 1_450_000) == [debt]
