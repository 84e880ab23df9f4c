"""Deliberate bugs of the host that follows the network: what the kernel says of it reaches the target wrongly."""

from __future__ import annotations

from chimney.host.chimney_path import ChimneyPath
from chimney.host.connection import Connection
from chimney.host.network import NetworkWatch
from chimney.host.objects import ObjectTable
from chimney.host.reachability import Reachability
from chimney.host.steering import Steering
from chimney.host.upkeep import Upkeep
from chimney.host.withdrawal import Withdrawals
from chimney.ndis.state import NeighborCached, PathCached
from tests.sim.bug_hunt import bug


@bug("host, network", near=1169)
def forgets_the_path_mtu(patch):
    """The host notes another path MTU, and does not tell the target."""

    @patch(Upkeep, "update_path")
    def update_path(original, self, path, mtu, done):
        path.cached = PathCached(mtu)
        done(True)


@bug("host, network", near=567)
def path_mtus_only_shrink(patch):
    """The target is never told that the path takes larger packets again."""

    @patch(Upkeep, "update_path")
    def update_path(original, self, path, mtu, done):
        if mtu < path.cached.path_mtu:
            original(self, path, mtu, done)


@bug("host, network", near=25)
def forgets_the_next_hops_address(patch):
    """The host notes another hardware address of the next hop, and does not tell the target."""

    @patch(Upkeep, "update_neighbor")
    def update_neighbor(original, self, neighbor, mac, done):
        neighbor.cached = NeighborCached(mac)
        done(True)


@bug("host, network", near=105)
def relinks_to_the_wrong_neighbor(patch):
    """The new next hop is offloaded with the hardware address of the old one."""

    @patch(Upkeep, "offload_neighbor")
    def offload_neighbor(original, self, neighbor, done):
        others = [other for other in self._objects._neighbors.values() if other is not neighbor and other.offloaded]
        mac = neighbor.cached.dl_destination_address
        if others:
            neighbor.cached = NeighborCached(others[0].cached.dl_destination_address)
        original(self, neighbor, done)
        neighbor.cached = NeighborCached(mac)


@bug("host, network", near=104)
def takes_another_gateway_for_another_address(patch):
    """A route that moves is taken for a next hop with another hardware address, as what depends on it is not looked at
    (the two are different things: 9.5).
    """

    @patch(ObjectTable, "key_of")
    def key_of(original, self, plan):
        return plan.device_index, b"", plan.device_mac, plan.neighbor.vlan_id


@bug("host, network", near=1025)
def sends_on_without_a_route(patch):
    """A neighbor is not invalidated when the way is gone: nobody hears what is sent."""

    @patch(Steering, "_invalidate")
    def invalidate(original, self, edge, neighbor):
        pass


@bug("host, network", near=357)
def stays_silent(patch):
    """Paths of an invalid neighbor are not relinked when the way is back."""

    @patch(Steering, "_move")
    def move(original, self, edge, moves, *others):
        valid = [(path, plan) for path, plan in moves if not path.neighbor.invalid]
        if valid:
            original(self, edge, valid, *others)


@bug("host, network", near=157)
def forgets_what_was_posted_in_silence(patch):
    """Requests that were posted while the neighbor was invalid stay with the host after the relink."""

    @patch(Connection, "resume")
    def resume(original, self):
        pass


@bug("host, network", near=1)
def terminates_while_an_update_is_open(patch):
    """A terminate does not wait until what is under way on its objects has completed (9.6)."""
    patch.set(ChimneyPath, "must_wait", property(lambda self: False))


@bug("host, network", near=104)
def never_probes(patch):
    """Next hops over which nothing gets through are not asked whether they are there: one that has moved is lost."""

    @patch(Reachability, "_judge")
    def judge(original, self, *others):
        pass

    @patch(Reachability, "_ask_target")
    def ask_target(original, self, *others):
        pass


@bug("host, network", near=38)
def never_comes_back(patch):
    """What was withdrawn stays in the kernel for good."""

    @patch(Withdrawals, "due")
    def due(original, self, now, most):
        return []

    @patch(Withdrawals, "poll_at")
    def poll_at(original, self):
        return 1 << 62


@bug("host, network", near=89)
def comes_back_uninvited(patch):
    """What was withdrawn goes down again although the application has taken it up meanwhile."""

    @patch(Withdrawals, "forget")
    def forget(original, self, connection):
        pass


@bug("host, network", near=104)
def hears_the_first_news_only(patch):
    """News are read once: later ones wait for the next regular look."""

    @patch(NetworkWatch, "ready")
    def ready(original, self):
        if not getattr(self, "has_heard", False):
            self.has_heard = True
            original(self)
        else:
            self._network.read(())


@bug("host, network", near=29)
def old_neighbors_stay(patch):
    """Next hops that nothing depends on any more are not given back."""

    @patch(Upkeep, "take_back_unused")
    def take_back_unused(original, self, *others):
        return False
