"""A TCP for the simulator's kernels and peers, independent of the engine: see `chimney.sim.model.tcp`."""

from chimney.link.base import NEVER
from chimney.sim.model.segment import ACK, FIN, PSH, RST, SYN, URG, Segment, build, parse, reset_for
from chimney.sim.model.tcp import ModelTcp, Settings, Snapshot, offered

__all__ = [
    "ACK",
    "FIN",
    "NEVER",
    "PSH",
    "RST",
    "SYN",
    "URG",
    "ModelTcp",
    "Segment",
    "Settings",
    "Snapshot",
    "build",
    "offered",
    "parse",
    "reset_for",
]
