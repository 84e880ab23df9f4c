"""Intermediate drivers: each has miniport edges above and protocol edges below."""

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.edges import DISCONNECT, FORWARD, RECEIVE, SEND, LowerEdge, OffloadEntry, UpperEdge
from chimney.intermediate.faulty import Faults, FaultyDriver
from chimney.intermediate.multiplexer import Multiplexer, active_adapter, least_loaded
from chimney.intermediate.passthrough import PassThrough

__all__ = [
    "DISCONNECT",
    "FORWARD",
    "Faults",
    "FaultyDriver",
    "IntermediateDriver",
    "LowerEdge",
    "Multiplexer",
    "OffloadEntry",
    "PassThrough",
    "RECEIVE",
    "SEND",
    "UpperEdge",
    "active_adapter",
    "least_loaded",
]
