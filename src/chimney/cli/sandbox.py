"""Runs a function in a child process inside a network namespace of its own, so that nothing it does is left behind."""

import json
import os
import select
import signal
import time
from collections.abc import Callable

from chimney.lab.namespace import Namespace, can_make_namespaces, enter_user_namespace


class Refused(Exception):
    """What was tried in the sandbox did not work; the message says why."""


def attempt(function: Callable[[], str], seconds: float = 5) -> str:
    """The result of `function`, called in a fresh network namespace (as root, or in a fresh user namespace).

    Raises Refused with the error's words if it raised, ended without a word, or took longer than `seconds`.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    try:
        said = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if said is None:
        raise Refused(f"no answer within {seconds:g} s")
    if not said:
        raise Refused(f"the attempt ended without an answer (wait status {status})")
    outcome = json.loads(said)
    if "error" in outcome:
        raise Refused(outcome["error"])
    return str(outcome["result"])


def _answer(function: Callable[[], str], writer: int) -> None:
    """The child: enters its namespace, calls, writes one JSON object, and ends here, not in the parent's code."""
    try:
        try:
            if can_make_namespaces():
                Namespace().__enter__()
            else:
                enter_user_namespace()
            outcome = {"result": function()}
        except Exception as error:
            outcome = {"error": f"{error}" if isinstance(error, Refused) else f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(outcome).encode())
    finally:
        os._exit(0)


def _read(reader: int, deadline: float) -> bytes | None:
    """All that the child wrote until it closed its end, None at the deadline (seconds of the monotonic clock)."""
    said = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 65536)
        if not piece:
            return said
        said += piece
    return None
