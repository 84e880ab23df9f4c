"""`chimney doctor` on this machine, as it is and with things taken away from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chimney import _build
from chimney.cli import attempts, doctor
from chimney.cli.sandbox import Refused

CHIMNEY = [sys.executable, "-m", "chimney.cli"]
# Root without capabilities must take the ordinary user's way, through a user namespace. CAP_SETFCAP is what the kernel
# asks of root, and of nobody else, for mapping its own id (user_namespaces(7)).
UNPRIVILEGED = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"] if os.geteuid() == 0 else []
# A program that forbids further network namespaces to those below it, and then runs the rest of its command line.
FORBIDDEN = """
import os, sys
from chimney.lab.namespace import enter_user_namespace
enter_user_namespace()
for kind in "net", "user":
    with open(f"/proc/sys/user/max_{kind}_namespaces", "w") as setting:
        setting.write("0")
os.execv(sys.argv[1], sys.argv[1:])
"""


def run(*command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return done


def report(*command, **environment):
    done = run(*command, "doctor", "--json", **environment)
    found = json.loads(done.stdout)
    return done.returncode, found["can_run"], {check["check"]: check for check in found["checks"]}


def states(checks):
    return {name: check["state"] for name, check in checks.items()}


@pytest.mark.parametrize("prefix", [[], UNPRIVILEGED], ids=["as we are", "without capabilities"])
def test_the_demo_can_run_here(prefix):
    status, can_run, checks = report(*prefix, *CHIMNEY)
    assert (status, can_run) == (0, True), checks
    required = ["namespaces", "veth", "AF_PACKET", "TCP_REPAIR", "ctnetlink"]
    assert [states(checks)[name] for name in required] == ["ok"] * len(required), checks


def test_the_build_is_named():
    _, _, checks = report(*CHIMNEY)
    assert checks["build"]["detail"] == doctor.build().detail
    _, can_run, pure = report(*CHIMNEY, CHIMNEY_PURE="1")
    assert can_run
    assert pure["build"]["state"] == "warning"
    assert "CHIMNEY_PURE" in pure["build"]["remedy"]


def test_without_namespaces_the_demo_cannot_run():
    status, can_run, checks = report(*UNPRIVILEGED, sys.executable, "-c", FORBIDDEN, *CHIMNEY)
    assert (status, can_run) == (1, False)
    assert checks["namespaces"]["state"] == "failed"
    assert "sysctl -w user.max_user_namespaces=" in checks["namespaces"]["remedy"]
    assert "veth" not in checks


def test_a_person_gets_a_table():
    done = run(*CHIMNEY, "doctor", COLUMNS="200")
    assert "what to do" in done.stdout
    assert "The demo can run here." in done.stdout


def test_without_curl_and_nft_there_are_warnings_only(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.check: finding for finding in doctor.examine()}
    assert found["curl"].state == found["nftables"].state == "warning"
    assert "apt-get install curl" in found["curl"].remedy
    assert "apt-get install nftables" in found["nftables"].remedy
    assert "failed" not in {finding.state for finding in found.values()}


def test_a_broken_curl_is_a_warning(monkeypatch, tmp_path):
    broken = tmp_path / "curl"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor.curl().state == "warning"


def test_what_the_kernel_refuses_is_a_failure_with_a_remedy(monkeypatch):
    def refuse():
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(attempts, "tcp_repair", refuse)
    found = {finding.check: finding for finding in doctor.examine()}
    assert found["TCP_REPAIR"].state == "failed"
    assert "Operation not permitted" in found["TCP_REPAIR"].detail
    assert "CONFIG_CHECKPOINT_RESTORE" in found["TCP_REPAIR"].remedy


def test_a_refusal_of_nft_is_told_in_its_words(monkeypatch, tmp_path):
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\necho 'Error: no such thing' >&2\nexit 1\n")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Refused, match="nft: Error: no such thing"):
        attempts.nftables()


def test_an_old_extension_is_a_warning(monkeypatch):
    monkeypatch.setattr(_build, "pure_requested", lambda: False)
    monkeypatch.setattr(_build, "stale", lambda: ["chimney.ndis.buffers"])
    finding = doctor.build()
    assert (finding.state, finding.remedy) == ("warning", "make build")
    assert "chimney.ndis.buffers" in finding.detail


def test_the_doctor_leaves_the_machine_as_it_was():
    def interfaces():
        return sorted(path.name for path in Path("/sys/class/net").iterdir())

    before = interfaces()
    doctor.examine()
    assert interfaces() == before
