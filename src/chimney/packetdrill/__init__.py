"""An interpreter for the packetdrill language: scripts of packets and socket calls, run against the TCP engine.

The language is that of packetdrill (Cardwell et al., USENIX ATC 2013): a script says at which time which packet
arrives, which socket call is made, and which packet must leave. Here there is no kernel, no interface and no clock: the
engine (`chimney.tcp.Connection`) is driven in virtual time, so a script takes milliseconds and no privilege. Opening a
connection is not the engine's business: the interpreter does the handshake, and makes of it what a take-over yields.

docs/packetdrill.md tells how to use it, and what of the language is there.
"""

from chimney.packetdrill.errors import Mismatch, ScriptError, Unsupported
from chimney.packetdrill.parser import parse_script
from chimney.packetdrill.runner import Outcome, Result, run_file, run_text

__all__ = ["Mismatch", "Outcome", "Result", "ScriptError", "Unsupported", "parse_script", "run_file", "run_text"]
