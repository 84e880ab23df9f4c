"""A stack in memory, hosts and peers that can be told what to do, and scenarios that exercise every rule."""

from chimney.conformance.run import run_scenarios

__all__ = ["run_scenarios"]
