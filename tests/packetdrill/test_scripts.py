"""Our own scripts, each a test."""

from pathlib import Path

import pytest

from chimney.packetdrill import Outcome, run_file

SCRIPTS = Path(__file__).parent / "scripts"
FOUND = sorted(SCRIPTS.rglob("*.pkt"))


def test_there_are_scripts():
    assert len(FOUND) >= 60


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(SCRIPTS).with_suffix("")))
def test_script(path):
    result = run_file(path)
    log = "\n".join(result.log)
    assert result.outcome is Outcome.PASSED, f"{path.name}:{result.line}: {result.reason}\n{log}"
    assert result.relaxed == ()


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(SCRIPTS).with_suffix("")))
def test_every_script_says_what_it_is_about(path):
    """The first line names the matter, the second its source."""
    first, second, *_ = path.read_text().splitlines()
    assert first.startswith("// ")
    assert "RFC" in second or "Linux" in second
