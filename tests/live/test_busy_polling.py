"""Busy polling: a stack that may wait looks for more frames before it does (StackConfig.busy_poll_us)."""

import os
import select
import socket

import pytest

import chimney

HOUR = 3_600_000_000


@pytest.mark.parametrize(("busy_poll_us", "timeout", "seen"), [(HOUR, None, 2), (HOUR, 0, 1), (0, None, 1)])
def test_frames_that_come_while_it_looks(lab, busy_poll_us, timeout, seen):
    """The peer sends again when the stack looks once more: one call of `poll` sees both, or the next one does."""
    ours, theirs = lab.connect(socket.AF_INET)
    with chimney.Stack(config=chimney.StackConfig(busy_poll_us=busy_poll_us)) as stack:
        connection = stack.connection(ours)
        connection.offload()
        posted = [connection.post_receive(bytearray(4)) for _ in range(2)]
        has_work, clock, looks = connection.adapter.has_work, stack.clock, []

        def look(now):
            looks.append(None)
            if len(looks) == 1:
                theirs.send(b"more")
            if posted[1].done:
                stack.clock = lambda: clock() + 2 * HOUR
            return has_work(now)

        connection.adapter.has_work = look
        theirs.send(b"once")
        stack.poll(timeout)
        stack.clock = clock
        assert [request.done for request in posted] == [True, seen == 2]
        if not looks:
            theirs.send(b"more")
        while not posted[1].done:
            stack.poll()
        assert bytes(posted[0].view) + bytes(posted[1].view) == b"oncemore"


def test_after_many_frames_there_is_another_turn_before_it_waits(lab):
    """Meanwhile the link wakes nobody; when the stack waits again, it does."""
    ours, theirs = lab.connect(socket.AF_INET)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with chimney.Stack() as stack:
        waiting = select.poll()
        waiting.register(stack, select.POLLIN)
        connection = stack.connection(ours)
        connection.offload()
        posted = [connection.post_receive(bytearray(1)) for _ in range(11)]
        for _ in range(10):  # the first window
            theirs.send(b"x")
        while connection.adapter.link.pending() < 10:
            os.sched_yield()
        stack.poll()
        assert [request.done for request in posted] == 10 * [True] + [False]
        assert waiting.poll(0)
        stack.poll()
        assert not waiting.poll(0)
        theirs.send(b"y")
        assert waiting.poll(10_000)
        stack.poll()
        assert bytes(posted[10].view) == b"y"
