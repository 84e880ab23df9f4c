"""The command line from outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chimney import __version__, _build

SCRIPT = str(Path(sys.executable).with_name("chimney"))


def run(*command, **environment):
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", [[SCRIPT], [sys.executable, "-m", "chimney.cli"]], ids=["script", "module"])
def test_the_version_says_the_build(command):
    assert run(*command, "--version").stdout == f"chimney {__version__} ({_build.describe()})\n"
    assert run(*command, "--version", CHIMNEY_PURE="1").stdout == f"chimney {__version__} (pure Python)\n"


def test_without_a_command_there_is_help():
    done = run(SCRIPT)
    assert "doctor" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_unknown_command_is_a_usage_error():
    done = run(SCRIPT, "no-such-command")
    assert done.returncode == 2
    assert "no-such-command" in done.stderr
