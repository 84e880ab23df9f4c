"""A process that may not raise socket buffers as it likes: what is under way must still fit when it comes back."""

import subprocess
import sys

PROGRAM = """
import socket, sys, chimney
from chimney.host.linux import limits
from chimney.lab.namespace import Namespace
from chimney.lab.wire import veth_pair
assert limits.send_room() == int(open("/proc/sys/net/core/wmem_max").read()), limits.send_room()
here, there = Namespace(), Namespace()
ours_end, _ = veth_pair(here, there)
with here:
    listener = socket.create_server((ours_end.address(socket.AF_INET), 0))
    with there:
        theirs = socket.socket()
    theirs.connect(listener.getsockname())
    ours, _ = listener.accept()
    with chimney.Stack(config=chimney.StackConfig(send_flight=1 << 30, receive_window=1 << 30)) as stack:
        assert stack.config.send_flight == limits.send_room()
        connection = stack.connection(ours)
        connection.offload()
        data = bytes(range(251)) * 200_000
        request = connection.post_send(data)
        theirs.setblocking(False)
        got = bytearray()
        for move in (connection.upload, connection.offload) * 20:
            for _ in range(3):
                stack.poll(0.01)
                try:
                    got += theirs.recv(1 << 20)
                except BlockingIOError:
                    pass
            move()
        theirs.setblocking(True)
        while len(got) < len(data):
            stack.poll(0)
            try:
                got += theirs.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                stack.poll(0.01)
        assert got == data
        print("all of it")
"""


def test_an_upload_fits_where_buffers_are_limited():
    done = subprocess.run(
        [sys.executable, "-m", "chimney.lab.namespace", sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "all of it", done.stderr
