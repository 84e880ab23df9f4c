"""The hand-over works without root: in a user namespace whose only user is an unprivileged one outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHOICE = (
    "flooded and 1500 or both_queues or survive or injection or unknown_neighbor or lets_an_uploaded or ended_by"
    " or two_targets or shrinks_in_mid_transfer or comes_out_of_a_black_hole or who_wants_to_hear"
    " or everything_at_once or put_on_a_list or what_is_sent and v4 or learnt_again and ipv4 or is_redirected and ipv4"
    " or a_change_is_noticed or of_a_hand_over and server or different_interfaces and client or fragments_by"
    " or every_state and IPv6-server or a_reset_shows and below or hardware_fails or a_user_timeout"
    " or to_another_gateway and v6 or gone_for_long or for_a_moment and interface"
    " or those_of_the_wire and v6 or stream_bytes_are and used-server-v4"
)


@pytest.mark.timeout(300)
def test_in_a_user_namespace():
    """The tests themselves, some of them, in a process of their own; root inside is nobody special outside."""
    files = [
        "test_handover.py",
        "test_half_closed.py",
        "test_firewall.py",
        "test_eligibility.py",
        "test_drivers.py",
        "test_icmp.py",
        "test_firewall_drops.py",
        "test_conntrack.py",
        "test_nat.py",
        "test_legacy_firewall.py",
        "test_elsewhere.py",
        "test_states.py",
        "test_options.py",
        "test_upload_reasons.py",
        "test_network.py",
        "test_statistics.py",
    ]
    command = [sys.executable, "-m", "chimney.lab.namespace", sys.executable, "-m", "pytest", "-q", "-k", CHOICE]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in files), "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "CI": "1"},
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert " passed" in done.stdout
