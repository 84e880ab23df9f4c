"""What the host stack raises to the application."""

from __future__ import annotations


class ChimneyError(Exception):
    """Base of our own errors; errors of the connection itself are the OSErrors that a socket would raise."""


class NotOffloadable(ChimneyError):
    """The connection cannot be offloaded, and works on as it did. The message says why, and what to do."""


class UploadFailed(ChimneyError):
    """The kernel did not take the connection back; the message says at which step, and what to do."""
