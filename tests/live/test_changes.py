"""The benchmark of changes in mid-transfer, some of them, once: nothing is lost, whoever has the connection."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chimney.lab.namespace import can_make_namespaces

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "changes.py"


@pytest.mark.parametrize(
    ("only", "family"), [(["gateway", "interface"], []), (["gateway", "path MTU"], ["--ipv6"])], ids=["v4", "v6"]
)
def test_transfers_go_on_whatever_changes(tmp_path, only, family):
    if not can_make_namespaces():
        pytest.skip("network namespaces need root, or user namespaces (sysctl kernel.unprivileged_userns_clone=1)")
    report = tmp_path / "report"
    command = [sys.executable, str(BENCHMARK), "--times", "1", "--rate", "10", "--json", str(report), *family]
    command += ["--only", *only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert [one["change"] for one in found["changes"] if one["stuck"]] == []
    assert len(found["changes"]) == len(only) + len(family)
    for flow in found["flows"].values():
        assert flow["digests_equal"] and flow["bytes_out"] > 500_000 and not flow["errors"]
    assert found["flows"]["offloaded"]["offloads"] >= 1 and found["flows"]["offloaded"]["by_target"] > 0.5
