"""The lab's wires: what they promise to whoever uses them at once."""

import socket

from pyroute2 import IPRoute

from chimney.lab.wire import IFA_F_NODAD

TENTATIVE = 0x40


def test_an_ipv6_address_is_never_tentative(lab):
    """The kernel makes up its mind later, if it is not told: until then nobody can bind the address."""
    for end in (lab.host_end, lab.peer_end):
        with end.namespace, IPRoute() as routes:
            addresses = routes.get_addr(family=socket.AF_INET6, index=end.index)
            flags = {found.get_attr("IFA_ADDRESS"): found.get_attr("IFA_FLAGS") for found in addresses}
        assert flags[end.address(socket.AF_INET6)] & (IFA_F_NODAD | TENTATIVE) == IFA_F_NODAD
