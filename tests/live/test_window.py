"""The congestion window across a hand-over: going down it goes along, going up a marked route can give it back."""

import socket

import pytest

from chimney.host.linux import convert, handover
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import read_info
from chimney.tcp.config import UNSET_SSTHRESH

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
MARK = 77


def grown(lab, helpers, family, prepare=None):
    """A connection whose kernel has left its first window behind, with CUBIC."""

    def with_cubic(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        if prepare:
            prepare(sock)

    ours, theirs = lab.connect(family, prepare=with_cubic)
    data = helpers.pattern(3_000_000)
    receiving = helpers.Receiving(theirs, len(data))
    ours.sendall(data)
    assert receiving.join() == data
    assert read_info(ours).snd_cwnd > 10
    return ours, theirs


@FAMILIES
def test_going_down_the_window_goes_along(lab, helpers, family):
    ours, _ = grown(lab, helpers, family)
    info = read_info(ours)
    state = convert.taken(handover.take(ours, lab.device).state, ours, 65535, 0).delegated
    assert state.c_wnd == info.snd_cwnd * info.snd_mss
    known = info.snd_ssthresh < UNSET_SSTHRESH // info.snd_mss
    assert state.ss_thresh == (info.snd_ssthresh * info.snd_mss if known else UNSET_SSTHRESH)


@FAMILIES
def test_going_up_a_route_for_marked_sockets_gives_a_first_window(lab, helpers, family):
    version, network = ("-4", "10.9.0.0/24") if family == V4 else ("-6", "fd09::/64")
    table = str(MARK)
    lab.host.run(["ip", version, "route", "add", network, "dev", lab.device, "table", table, "initcwnd", "60"])
    lab.host.run(["ip", version, "rule", "add", "fwmark", table, "lookup", table])
    windows = []
    for prepare in (None, lambda sock: sock.setsockopt(socket.SOL_SOCKET, so.SO_MARK, MARK)):
        ours, _ = grown(lab, helpers, family, prepare)
        placeholder = handover.take(ours, lab.device)
        placeholder.give_back(placeholder.state)
        windows.append(read_info(ours).snd_cwnd)
    assert windows == [10, 60]
