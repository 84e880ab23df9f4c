"""The laboratory for tests and the demonstration: network namespaces, veth wires, an independent observer, a firewall.

Works as root and inside an unprivileged user namespace (`enter_user_namespace`). It knows nothing else of Chimney.
"""
