"""Copies of state structures."""

from dataclasses import fields

import pytest

from chimney.ndis.state import (
    NeighborConst,
    PathConst,
    PathDelegated,
    TcpCached,
    TcpConst,
    TcpDelegated,
    TimerRemainder,
    copy_of,
)
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState, TcpConstFlags


class Special(NeighborConst):
    """A subclass with a word of its own."""


@pytest.mark.parametrize(
    "state",
    [
        NeighborConst(bytes(6), 7),
        PathConst(b"abcd", b"efgh"),
        PathDelegated(),
        TcpConst(TcpConstFlags.SACK_ENABLED, 1, 2, 3, 4, 5),
        TcpCached(TcpCachedFlags.NAGLING_ENABLED, 1000, user_priority=3),
        TcpDelegated(TcpConnectionState.ESTABLISHED, *range(18), TimerRemainder(1, 2), TimerRemainder(), flags=9),
        Special(bytes(6), 7),
    ],
    ids=lambda state: type(state).__name__,
)
def test_a_copy_is_equal_and_another(state):
    copied = copy_of(state)
    assert copied == state and copied is not state and type(copied) is type(state)
    for field in fields(state):
        setattr(copied, field.name, None)
        assert getattr(state, field.name) is not None or field.default is None


def test_what_a_subclass_adds_is_copied():
    state = Special(b"", 7)
    state.note = "kept"
    assert copy_of(state).note == "kept"


def test_there_is_no_copy_of_nothing():
    assert copy_of(None) is None
