"""The TCP engine: a connection from ESTABLISHED on, without I/O, without a clock, knowing nothing of the rest."""

from chimney.tcp.config import NEVER, UNLIMITED, UNSET_SSTHRESH, Config, Tcb
from chimney.tcp.connection import Connection
from chimney.tcp.events import Event
from chimney.tcp.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Segment, parse_segment
from chimney.tcp.state import OFFLOADABLE, State
from chimney.tcp.statistics import Statistics

__all__ = [
    "ACK",
    "CWR",
    "ECE",
    "FIN",
    "NEVER",
    "OFFLOADABLE",
    "PSH",
    "RST",
    "SYN",
    "UNLIMITED",
    "UNSET_SSTHRESH",
    "URG",
    "Config",
    "Connection",
    "Event",
    "Segment",
    "State",
    "Statistics",
    "Tcb",
    "parse_segment",
]
