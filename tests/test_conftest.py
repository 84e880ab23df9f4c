"""The rule that a skip fails a run of continuous integration, seen from outside: pytest in a child process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

SKIPPED_TEST = "import pytest\ndef test(): pytest.skip('no such package')\n"
SKIPPED_FILE = "import pytest\npytest.importorskip('no_such_package_anywhere')\ndef test(): pass\n"
PASSED = "def test(seed): assert seed == 7\n"


def run(folder, test, ci, conftest=None):
    (folder / "conftest.py").write_text(conftest or CONFTEST.read_text())
    (folder / "test_it.py").write_text("def test_first(): pass\n")
    (folder / "test_other.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--seed=7", str(folder)],
        env={**os.environ, "CI": ci},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("test", [SKIPPED_TEST, SKIPPED_FILE])
def test_a_skip_fails_in_ci_only(tmp_path, test):
    refused = run(tmp_path, test, "true")
    assert refused.returncode == 1
    assert "nothing may be skipped: " in refused.stdout
    assert run(tmp_path, test, "").returncode == 0


def test_an_allowed_reason_passes(tmp_path):
    conftest = CONFTEST.read_text().replace(
        "ALLOWED_SKIPS: tuple[str, ...] = (", "ALLOWED_SKIPS: tuple[str, ...] = ('no such package', "
    )
    assert run(tmp_path, SKIPPED_TEST, "true", conftest).returncode == 0


def test_a_run_without_skips_passes_and_names_the_build(tmp_path):
    passed = run(tmp_path, PASSED, "true")
    assert passed.returncode == 0
    assert "2 passed" in passed.stdout
