"""A kernel's network that does what a test says, and a watch over it."""

from dataclasses import replace

from chimney.host.connection import Connection, Owner
from chimney.host.errors import NotOffloadable
from chimney.host.kernel import Flow
from chimney.host.kernel_network import NeighborState, NeighborView
from chimney.host.network import NetworkWatch
from tests.host.scripted import FLOW, ScriptedKernel, ScriptedStack

SECOND = 1_000_000
SOON = SECOND // 20
MAC, OTHER_MAC = b"\x02" * 6, b"\x0a" * 6
GATEWAY, OTHER_GATEWAY = b"\x0a\x00\x00\xfe", b"\x0a\x00\x00\xfd"


class ScriptedNetwork:
    """The kernel's news and neighbors: what a test says, and what the watch has asked for."""

    def __init__(self):
        self.news = False
        self.states = {}
        self.confirmed_us = 0
        self.probed = []
        self.confirmed = []
        self.watched = set()
        self.closed = False

    def fileno(self):
        return 99

    def read(self, neighbors):
        self.watched = set(neighbors)
        news, self.news = self.news, False
        return news

    def neighbor(self, key):
        return NeighborView(self.states.get(key, NeighborState.UNKNOWN), self.confirmed_us)

    def probe(self, key):
        self.probed.append(key)

    def confirm(self, key):
        self.confirmed.append(key)

    def close(self):
        self.closed = True


class Watched:
    """A stack with a watch, and offloaded connections whose kernels say what the test changes in ``plans``."""

    def __init__(self, connections=1, drivers=0):
        self.stack = ScriptedStack(drivers)
        self.network = ScriptedNetwork()
        self.watch = NetworkWatch(self.stack, self.network)
        self.stack.on_adapter[0](self.stack)
        self.target = self.stack.target
        self.connections = []
        for number in range(connections):
            self.add(number)
        self.settle()

    def add(self, number=0, **changes):
        flow = Flow(FLOW.local_address, FLOW.local_port, FLOW.remote_address, FLOW.remote_port + number)
        kernel = ScriptedKernel(flow)
        kernel.plan = replace(kernel.plan, next_hop=GATEWAY, neighbor_mac=MAC, **changes)
        connection = Connection(self.stack, FakeSocket(), kernel)
        connection.offload()
        assert connection.owner is Owner.TARGET
        self.connections.append(connection)
        return connection

    @property
    def connection(self):
        return self.connections[0]

    @property
    def path(self):
        return self.connection.chimney.record.path

    def change(self, *connections, **changes):
        """The kernel says something else of the routes of these connections, or of all."""
        for connection in connections or self.connections:
            connection.kernel.nowhere = None
            connection.kernel.plan = replace(connection.kernel.plan, **changes)
        self.network.news = True

    def lose(self, *connections, why="there is no route"):
        for connection in connections or self.connections:
            connection.kernel.nowhere = NotOffloadable(why)
        self.network.news = True

    def turn(self):
        """One turn of the stack."""
        self.watch.ready()
        now = self.stack.now
        if self.watch.poll_at() <= now:
            self.watch.run(now)
        self.stack.poll()

    def settle(self, turns=30):
        """Turns until nothing is due."""
        for _ in range(turns):
            self.turn()
            at = self.watch.poll_at()
            if at > self.stack.now + SOON and not self.network.news and not self.stack.ready:
                return
            self.stack.now = max(self.stack.now + 10, at if at < self.stack.now + SOON else 0)

    def wait(self, microseconds):
        """Time passes."""
        self.stack.now += microseconds
        self.settle()

    def perform(self, *expected):
        """The target carries out what has been asked for, one after the other, until nothing is; the names of it all,
        which are checked if some are given. Queries are answered, too.
        """
        names = []
        for _ in range(20):
            self.settle()
            self.target.complete_queries()
            if not self.target.operations:
                break
            names.append(self.target.complete()[0])
        assert not expected or names == list(expected)
        return names


class FakeSocket:
    def fileno(self):
        return 7
