"""What every test shares: the build in the header, the seed, and the rule about skipping in continuous integration."""

import os
import re

import hypothesis
import pytest

from chimney import _build

# In continuous integration nothing may be skipped, except for reasons that match one of these.
ALLOWED_SKIPS: tuple[str, ...] = ()

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=1, help="the seed of every simulated run (default: 1)")


def pytest_configure(config):
    hypothesis.settings.load_profile("ci" if in_ci() else "local")


def pytest_report_header(config):
    return f"chimney: {_build.describe()}, seed {config.getoption('seed')}"


@pytest.fixture
def seed(request):
    """The seed of this run; a test that fails says it through the header of the run."""
    return request.config.getoption("seed")


def in_ci():
    return os.environ.get("CI", "").lower() in ("1", "true")


def forbidden_skips(reports):
    """The reasons of skipped reports that no entry of ALLOWED_SKIPS allows. An expected failure is not a skip."""
    reasons = [
        r.longrepr[2].removeprefix("Skipped: ") if isinstance(r.longrepr, tuple) else str(r.longrepr)
        for r in reports
        if not hasattr(r, "wasxfail")
    ]
    return sorted({r for r in reasons if not any(re.match(allowed, r) for allowed in ALLOWED_SKIPS)})


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or not in_ci():
        return
    reasons = forbidden_skips(terminal.stats.get("skipped", []))
    if reasons:
        terminal.write_line("")
        terminal.write_line("skipped in CI, where nothing may be skipped: " + "; ".join(reasons), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
