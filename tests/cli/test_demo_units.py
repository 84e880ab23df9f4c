"""The demonstration's parts that need no network: sizes, data, plans, figures and the verdict."""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys

import pytest

from chimney.cli import demo_peer, demo_processes
from chimney.cli.demo_data import format_size, parse_size, write_data
from chimney.cli.demo_processes import plan
from chimney.cli.demo_report import HandOverTimes, Moved, Result, render
from chimney.cli.demo_run import SMALLEST_STRETCH, Settings

BLOCK = 64 << 10


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64M", 64 << 20), ("1G", 1 << 30), ("1.5k", 1536), (" 2 MiB ", 2 << 20), ("3MB", 3 << 20)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "0", "1X", "1e9", "0.1"])
def test_what_is_no_size_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1023, "0.999 KiB"), (1 << 20, "1 MiB"), (1023 << 20, "0.999 GiB")]
)
def test_sizes_are_shown_with_three_digits(size, text):
    assert format_size(size) == text


def test_data_follow_from_the_seed_and_no_two_blocks_are_alike(tmp_path):
    size = 40 * BLOCK + 17
    digest = write_data(tmp_path / "a", size, 1)
    data = (tmp_path / "a").read_bytes()
    assert len(data) == size
    assert hashlib.sha256(data).hexdigest() == digest == write_data(tmp_path / "again", size, 1)
    assert write_data(tmp_path / "b", size, 2) != digest
    blocks = {data[start : start + BLOCK] for start in range(0, size, BLOCK)}
    assert len(blocks) == 41


def test_half_of_the_connections_upload_and_a_single_one_does_both():
    assert [[transfer.upload for transfer in one] for one in plan(4)] == [[False], [True], [False], [True]]
    assert [[transfer.upload for transfer in one] for one in plan(1)] == [[False, True]]
    targets = [transfer.target for one in plan(5) for transfer in one]
    assert len(set(targets)) == 5


def settings(size, cycles, connections):
    return Settings(
        size=size, cycles=cycles, connections=connections, loss_percent=0, ipv6=False, mtu=1500, drivers=2, seed=1
    )


@pytest.mark.parametrize(("cycles", "connections"), [(1, 1), (200, 4), (7, 3), (20, 1)])
def test_more_cycles_than_asked_for_fit_into_the_transfers(cycles, connections):
    one = settings(1 << 30, cycles, connections)
    transfers = max(2, connections)
    assert transfers * (one.size // one.hand_over_every()) > cycles


def test_stretches_too_short_for_hand_overs_are_refused():
    assert settings(12 * SMALLEST_STRETCH, 20, 2).hand_over_every() == SMALLEST_STRETCH
    with pytest.raises(ValueError, match="384 KiB at least"):
        settings(12 * SMALLEST_STRETCH - 1, 20, 2).hand_over_every()
    assert settings(1, 0, 2).hand_over_every() == 0


def moved(**changes):
    one = Moved("1 download", 10, "aa", 10, "aa", 10, "aa", offloads=3, uploads=2, bytes_kernel=4, bytes_target=6)
    return dataclasses.replace(one, **changes)


def result(**changes):
    one = Result(
        connections=1,
        size=10,
        cycles=2,
        build="compiled",
        drivers=2,
        mtu=1500,
        ipv6=False,
        loss_percent=0.0,
        client="curl",
        firewall=None,
        transfers=[moved()],
    )
    return dataclasses.replace(one, **changes)


def test_success_is_equal_digests_no_reset_and_all_cycles():
    good = result()
    assert good.ok
    shown = json.loads(json.dumps(good.as_json()))
    wanted = {"digest_ok": True, "offloads": 3, "uploads": 2, "bytes_target": 6, "bytes_kernel": 4, "rst": 0}
    assert wanted.items() <= shown.items()
    assert shown["retransmits"] == 0 and shown["build"] == "compiled"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"transfers": [moved(received_digest="bb")]}, "differ"),
        ({"transfers": [moved(sent_digest="")]}, "differ"),
        ({"transfers": [moved(sent_digest="bb", received_digest="bb")]}, "differ"),
        ({"transfers": [moved(received_bytes=9)]}, "differ"),
        ({"transfers": [moved(), moved(received_digest="bb")]}, "differ"),
        ({"rst": 1}, "1 RST"),
        ({"tap_missed": 1}, "missed"),
        ({"cycles": 3}, "2 hand-overs up"),
        ({"cycles": 4}, "3 hand-overs down"),
        ({"cycles": 4, "refusals": ["urgent data"]}, "refused: urgent data"),
        ({"cycles": 0, "transfers": [moved(bytes_target=0)]}, "carried nothing"),
        ({"problems": ["curl [22]"]}, r"curl \[22\]"),
    ],
)
def test_each_shortcoming_alone_fails_the_demonstration_and_is_said(changes, why):
    bad = result(**changes)
    assert not bad.ok
    assert any(re.search(why, objection) for objection in bad.objections())


def test_nothing_carried_is_no_success():
    assert not result(transfers=[], cycles=0).ok


def test_refusals_do_not_matter_when_the_cycles_were_reached():
    assert result(refusals=["a FIN was on its way"]).ok


def test_the_table_says_what_is_missing_and_what_went_wrong():
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(render(result(problems=["curl [22]"])))
    text = console.export_text()
    assert "none (nft is missing" in text
    assert "failed: curl [22]" in text


def test_the_table_has_figures_of_tcp_info_where_there_are_any():
    from rich.console import Console

    figures = {"tcpi_rtt": 12345, "tcpi_snd_cwnd": 77, "tcpi_snd_mss": 1448, "tcpi_pmtu": 1500, "tcpi_total_retrans": 9}
    late = moved(name="2 upload", owner="kernel", tcp=figures | {"tcpi_rtt": 0})
    unknown = moved(name="3 download")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(render(result(transfers=[moved(owner="target", tcp=figures), late, unknown])))
    told = console.export_text().split("TCP_INFO")[1]
    assert "target" in told and "12.345" in told and " - " in told
    assert "3 download" not in told


def test_times_are_given_as_median_and_99th_percentile():
    times = HandOverTimes.of([n * 1e-6 for n in range(1, 101)])
    assert (times.count, times.median_us, times.p99_us) == (100, 51.0, 100.0)
    assert HandOverTimes.of([]).count == 0
    assert str(HandOverTimes.of([])) == "none"


def test_the_hashing_process_counts_and_hashes_what_it_reads():
    data = bytes(range(256)) * 9000
    done = subprocess.run(
        [sys.executable, "-I", demo_peer.__file__, "digest"], input=data, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == [str(len(data)), hashlib.sha256(data).hexdigest()]


def test_curl_reads_no_configuration_and_python_does_the_same_without_it():
    [[download, upload]] = plan(1)
    curl = demo_processes._curl("http://[fd09::1]:80", [download, upload], "/data", 20001)
    assert curl[1] == "-q" and curl.count("--next") == 1 and curl.count("--fail") == 2
    python = demo_processes._python("http://[fd09::1]:80", [download, upload], "/data", 20001)
    assert python[-5:] == ["get", "http://[fd09::1]:80/data?1", "put", "http://[fd09::1]:80/upload-1", "/data"]
