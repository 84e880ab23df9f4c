"""`chimney demo` as people run it, small: real curl, a real firewall, and what the tap on the peer's side heard."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHIMNEY = [sys.executable, "-m", "chimney.cli"]
SMALL = ["--size", "8M", "--cycles", "20", "--connections", "2"]
# An ordinary user who may read the interpreter: root without privileges, but for the one that mapping uid 0 needs.
UNPRIVILEGED = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+setfcap"]
# The demonstration where neither curl nor nft is installed.
WITHOUT_PROGRAMS = """
import sys
from chimney.cli import demo_lab, demo_processes
demo_lab.find_program = demo_processes.find_program = lambda name: None
from chimney.cli.app import app
app(sys.argv[1:], prog_name="chimney")
"""

# The demonstration with little patience.
IMPATIENT = """
import sys
from chimney.cli import demo_run
demo_run._STALL_SECONDS = 0.4
from chimney.cli.app import app
app(sys.argv[1:], prog_name="chimney")
"""


def demo(*arguments, command=CHIMNEY):
    done = subprocess.run([*command, "demo", *arguments, "--json"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def check(shown, cycles=20):
    assert shown["digest_ok"] and shown["ok"]
    assert shown["rst"] == 0
    assert shown["offloads"] >= cycles and shown["uploads"] >= cycles
    assert shown["bytes_target"] > 0
    assert shown["problems"] == []


@pytest.mark.parametrize("family", [[], ["--ipv6"]], ids=["ipv4", "ipv6"])
def test_connections_survive_hand_overs_behind_a_firewall(family):
    shown = demo(*SMALL, *family)
    check(shown)
    assert shown["client"].startswith("curl")
    assert shown["firewall"]["invalid"] == 0
    assert [moved["ok"] for moved in shown["transfers"]] == [True, True]


def test_one_connection_downloads_and_then_uploads():
    shown = demo("--size", "4M", "--cycles", "20", "--connections", "1")
    check(shown)
    assert [moved["name"] for moved in shown["transfers"]] == ["1 download", "1 upload"]


def test_large_packets():
    check(demo(*SMALL, "--mtu", "9000"))


def test_lost_packets_are_sent_again_by_whoever_owns_the_connection():
    shown = demo(*SMALL, "--loss", "2")
    check(shown)
    assert shown["packets_lost"] > 0
    assert shown["retransmits"] > 0 and shown["retransmits_target"] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_gets_a_user_namespace():
    check(demo(*SMALL, command=[*UNPRIVILEGED, *CHIMNEY]))


def test_without_curl_and_nft_the_table_says_so():
    shown = demo(*SMALL, command=[sys.executable, "-c", WITHOUT_PROGRAMS])
    check(shown)
    assert shown["firewall"] is None
    assert "curl is missing" in shown["client"]


def test_without_nft_there_is_no_loss():
    command = [sys.executable, "-c", WITHOUT_PROGRAMS, "demo", "--loss", "1", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "apt-get install nftables" in done.stderr


def test_nonsense_is_a_usage_error():
    for arguments in (["--size", "many"], ["--size", "1M", "--cycles", "1000"], ["--loss", "101"]):
        done = subprocess.run([*CHIMNEY, "demo", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr


class Running:
    """A demonstration that takes long, with its file server at work."""

    def __init__(self, directory, command):
        environment = {**os.environ, "TMPDIR": str(directory)}
        arguments = ["demo", "--size", "256M", "--loss", "10", "--cycles", "4", "--json"]
        self.process = subprocess.Popen(
            [*command, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        wait_for(lambda: any("data?1" in command_line(child) for child in descendants(self.process.pid)))
        self.children = descendants(self.process.pid)
        [self.server] = [child for child in self.children if "http_file_server" in command_line(child)]
        return self

    def __exit__(self, *problem):
        self.process.kill()
        self.process.communicate()

    def wait(self):
        self.output, self.errors = self.process.communicate(timeout=40)
        return self.process.returncode


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    with Running(tmp_path, CHIMNEY) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
    assert "interrupted" in running.errors and "Traceback" not in running.errors
    assert not any(Path(f"/proc/{child}").exists() for child in running.children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "why"), [(signal.SIGSTOP, "nothing has moved for 1 s"), (signal.SIGKILL, "the file server has ended")]
)
def test_a_server_that_hangs_or_dies_fails_the_demonstration_in_good_time(tmp_path, how, why):
    with Running(tmp_path, [sys.executable, "-c", IMPATIENT]) as running:
        os.kill(running.server, how)
        assert running.wait() == 1, running.errors
    shown = json.loads(running.output)
    assert not shown["ok"] and not shown["digest_ok"]
    assert any(why in problem for problem in shown["problems"])
    assert not any(Path(f"/proc/{child}").exists() for child in running.children)
    assert list(tmp_path.iterdir()) == []


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def descendants(pid):
    found = []
    for directory in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in directory.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_the_programs_that_these_tests_need_are_there():
    missing = [name for name in ("curl", "setpriv") if shutil.which(name) is None]
    assert not missing, f"install {missing}"
