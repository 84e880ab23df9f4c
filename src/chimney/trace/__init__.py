"""Recordings of what happens: packets, as other tools read them."""

from chimney.trace.pcapng import Capture, PcapngWriter

__all__ = ["Capture", "PcapngWriter"]
