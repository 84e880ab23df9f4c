"""A timer with a descriptor: asyncio's own timers and epoll's time-outs count milliseconds, TCP's do not."""

from __future__ import annotations

import ctypes
import os
import time

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = 0o4000
_TFD_CLOEXEC = 0o2000000
_TFD_TIMER_ABSTIME = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


def monotonic_us() -> int:
    """Now, in microseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns() // 1000


class Timer:
    """One timerfd on CLOCK_MONOTONIC; readable from its deadline on."""

    def __init__(self) -> None:
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _TimerSpec()
        self._armed: int | None = None

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return int(self._fd)

    def arm(self, deadline_us: int) -> None:
        """Become readable at ``deadline_us`` at the latest; an earlier deadline that is still to come stays."""
        if self._armed is not None and self._armed <= deadline_us:
            return
        self._spec.value.seconds, rest = divmod(max(deadline_us, 1), 1_000_000)
        self._spec.value.nanoseconds = rest * 1000
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        self._armed = deadline_us

    def expired(self) -> None:
        """The descriptor was readable: be ready to be armed again."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._armed = None

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
