"""Intermediate drivers: each has miniport edges above and protocol edges below."""

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.edges import DISCONNECT, FORWARD, RECEIVE, SEND, LowerEdge, OffloadEntry, UpperEdge
from chimney.intermediate.faulty import Faults, FaultyDriver
from chimney.intermediate.multiplexer import Multiplexer, active_adapter, least_loaded, own_adapter
from chimney.intermediate.passthrough import PassThrough
from chimney.intermediate.team import Bind, IntermediateDrivers, Layers, Team

__all__ = [
    "Bind",
    "DISCONNECT",
    "FORWARD",
    "Faults",
    "FaultyDriver",
    "IntermediateDriver",
    "IntermediateDrivers",
    "Layers",
    "LowerEdge",
    "Multiplexer",
    "OffloadEntry",
    "PassThrough",
    "RECEIVE",
    "SEND",
    "Team",
    "UpperEdge",
    "active_adapter",
    "least_loaded",
    "own_adapter",
]
