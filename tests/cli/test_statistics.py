"""`chimney statistics`: a file that a stack keeps, for people and for programs."""

import json
import time
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from chimney.cli.app import app
from chimney.ndis.capabilities import IpOffloadStats, TcpOffloadStats
from chimney.statistics import InterfaceStatistics


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["statistics", *map(str, arguments)])


@pytest.fixture
def file(tmp_path):
    interface = InterfaceStatistics(
        "eth7", 3, tcp4=TcpOffloadStats(in_segments=123456), ip6=IpOffloadStats(out_octets=987654321), frames_dropped=55
    )
    connection = {
        "local": "10.9.0.1:80",
        "remote": "[fd09::2]:4711",
        "owner": "kernel",
        "withdrawn": "the firewall drops it",
        "offloads": 4,
        "uploads": 4,
        "bytes_sent_kernel": 5 << 20,
        "bytes_received_kernel": 0,
        "bytes_sent_target": 3 << 20,
        "bytes_received_target": 0,
        "retransmits": 17,
        "offload_us": 250,
        "upload_us": 350,
        "tcp": {"tcpi_rtt": 1234, "tcpi_snd_cwnd": 42, "tcpi_snd_mss": 1448, "tcpi_pmtu": 1500},
    }
    # One whose connection the application has, or that is on its way: nothing is known of its TCP.
    moving = {**connection, "owner": "offloading", "withdrawn": "", "tcp": {}}
    path = tmp_path / "statistics"
    told = {
        "pid": 99,
        "time": time.time(),
        "interfaces": [asdict(interface)],
        "icmp": {"received": 3456, "too_big": 78},
        "connections": [connection, moving],
    }
    path.write_text(json.dumps(told))
    return path


def test_people_see_counters_and_connections(file):
    done = run(file)
    assert done.exit_code == 0
    for words in ("process 99", "eth7: 3 offloaded", "123,456", "987,654,321", "frames dropped 55", "received 3,456"):
        assert words in done.output
    for words in ("[fd09::2]:4711", "kernel (the firewall drops it)", "4/4", "250/350", "1.234", "1448", "offloading"):
        assert words in done.output


def test_programs_get_the_file(file):
    assert json.loads(run(file, "--json").output) == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "CHIMNEY_STATISTICS="), ("no JSON", "holds no"), ("{}", "holds no"), ("[]", "holds no")],
)
def test_what_is_no_such_file_is_refused(tmp_path, text, words):
    path = tmp_path / "other"
    if text is not None:
        path.write_text(text)
    done = run(path)
    assert done.exit_code == 1 and words in done.output
