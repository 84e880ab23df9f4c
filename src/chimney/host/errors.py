"""What the host stack raises to the application."""

from __future__ import annotations


class ChimneyError(Exception):
    """Base of our own errors; errors of the connection itself are the OSErrors that a socket would raise."""


class NotOffloadable(ChimneyError):
    """The connection cannot be offloaded; its socket goes on working as it was. The message says why, and what to do."""


class UploadFailed(ChimneyError):
    """The kernel did not take the connection back; the connection is lost, and the message says at which step."""
