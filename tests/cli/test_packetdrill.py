"""`chimney packetdrill`."""

import json

import pytest
from typer.testing import CliRunner

from chimney.cli.app import app

GOOD = """0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 40000 <mss 1000>
+0 > S. 0:0(0) ack 1 <mss 1460>
+.1 < . 1:1(0) ack 1 win 40000
+0 accept(3, ..., ...) = 4
+0 write(4, ..., 5) = 5
+0 > P. 1:6(5) ack 1
"""


@pytest.fixture
def suite(tmp_path):
    for name, text in {
        "good.pkt": GOOD,
        "deep/bad.pkt": GOOD.replace("P. 1:6", ". 1:6"),
        "deep/other.pkt": "0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3\n",
        "deep/broken.pkt": "0 nonsense\n",
        "deep/readme.txt": "no script",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["packetdrill", *map(str, arguments)])


def test_a_script_that_passes(suite):
    result = run(suite / "good.pkt")
    assert result.exit_code == 0
    assert result.output.startswith("passed ") and result.output.endswith("good.pkt: as expected\n")


def test_verbosely(suite):
    result = run("-v", suite / "deep" / "bad.pkt")
    assert result.exit_code == 1
    assert "< S 0:0(0) win 40000 <mss 1000>" in result.output
    assert "expected: . 1:6(5) ack 1" in result.output
    assert "seen:     P. 1:6(5) ack 1" in result.output
    assert "flags P. instead of ." in result.output
    assert "line 8: +0 write(4, ..., 5) = 5\n" in result.output and "write() = 5\n" in result.output


def test_what_makes_no_difference_is_listed(suite):
    script = suite / "settings.pkt"
    script.write_text("`sysctl -q net.ipv4.tcp_autocorking=0`\n" + GOOD)
    assert "makes no difference here: sysctl net.ipv4.tcp_autocorking=0" in run("-v", script).output
    (found,) = json.loads(run("--json", script).output)["results"]
    assert found["ignored"] == ["sysctl net.ipv4.tcp_autocorking=0"]


def test_a_list_without_names(suite):
    names = suite / "names"
    names.write_text("# none\n")
    result = run(suite, "--list", names)
    assert result.exit_code == 2 and "the list names no script" in result.output


def test_a_directory_without_scripts_is_named_as_the_cause(tmp_path):
    (tmp_path / "readme.txt").write_text("no script")
    result = run(tmp_path)
    assert result.exit_code == 2 and "no script is there" in result.output


def test_a_suite_with_every_outcome(suite):
    result = run(suite)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(line.startswith("failed") and "bad.pkt:9: flags P. instead of ." in line for line in lines)
    assert any(line.startswith("unsupported") and "SOCK_STREAM" in line for line in lines)
    assert any(line.startswith("broken") and "broken.pkt:1" in line for line in lines)
    assert not any("good.pkt" in line for line in lines)
    total = next(line for line in lines if line.split()[:1] == ["all"])
    assert total.split() == ["all", "1", "1", "1", "1"]


def test_what_is_unsupported_is_no_failure(suite):
    assert run(suite / "good.pkt", suite / "deep" / "other.pkt").exit_code == 0


def test_a_list(suite):
    names = suite / "names"
    names.write_text("# which\nowner/repository/good.pkt\ndeep/bad.pkt\nmissing.pkt\n")
    result = run(suite, "--list", names, "--json")
    found = json.loads(result.output)["results"]
    assert [r["outcome"] for r in found] == ["passed", "failed", "broken"]
    assert found[2]["reason"] == "no such file"
    assert result.exit_code == 1


def test_relaxations_are_reported(suite):
    result = run(suite / "deep" / "bad.pkt", suite / "good.pkt", "--relax", "push")
    assert result.exit_code == 0
    assert "relaxed: push" in result.output
    assert run(suite, "--relax", "everything").exit_code == 2


def test_a_larger_tolerance_is_reported(suite):
    late = suite / "late.pkt"
    late.write_text(GOOD.replace("+0 > P.", "+.010 > P."))
    assert run(late).exit_code == 1
    result = run(late, suite / "good.pkt", "--tolerance", "14000")
    assert result.exit_code == 0
    assert "relaxed: times within 14000 us" in result.output
