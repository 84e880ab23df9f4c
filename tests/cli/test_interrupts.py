"""Signals as exceptions that can be held back; in a process of its own, for handlers are the process's."""

import subprocess
import sys

import pytest

BEGIN = """
import os, signal, sys
from chimney.cli.interrupts import Interrupts
interrupts = Interrupts()
"""


def run(program):
    return subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_is_an_exception_at_once_or_at_the_end_of_what_must_not_be_torn_apart(number):
    done = run(f"""
try:
    os.kill(os.getpid(), signal.{number})
    print("not reached")
except KeyboardInterrupt:
    print("at once")
try:
    with interrupts.held():
        with interrupts.held():
            os.kill(os.getpid(), signal.{number})
            print("held")
        print("still held")
    print("not reached")
except KeyboardInterrupt:
    print("in the end")
with interrupts.held():
    pass
print("once")
""")
    assert done.stdout.splitlines() == ["at once", "held", "still held", "in the end", "once"], done.stderr


def test_an_error_inside_is_not_hidden_by_a_signal():
    done = run("""
try:
    with interrupts.held():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("inside")
except ValueError as error:
    print(error)
""")
    assert done.stdout == "inside\n", done.stderr
