"""A stateful firewall and random loss, by nftables; every rule counts what it catches.

Sources: nft(8).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chimney.lab.namespace import Namespace


@dataclass
class Counter:
    """What a rule has caught."""

    packets: int
    bytes: int


def load(namespace: Namespace, rules: str) -> None:
    """Load an nft script. Raises RuntimeError with nft's own words, FileNotFoundError without nft."""
    namespace.run(["nft", "-f", "-"], input=rules)


def clear(namespace: Namespace) -> None:
    """Remove every rule of the namespace."""
    namespace.run(["nft", "flush", "ruleset"])


def counters(namespace: Namespace, table: str) -> dict[str, Counter]:
    """The named counters of a table `inet` TABLE."""
    listed: dict[str, Any] = json.loads(namespace.run(["nft", "-j", "list", "counters", "table", "inet", table]))
    found = (item["counter"] for item in listed["nftables"] if "counter" in item)
    return {item["name"]: Counter(item["packets"], item["bytes"]) for item in found}


class StatefulFirewall:
    """What a careful administrator puts in front of a host.

    `ct state invalid` is dropped, established connections and the given TCP `services` are let in, the rest is dropped.
    """

    TABLE = "lab_firewall"

    def __init__(self, namespace: Namespace, services: Sequence[int] = ()) -> None:
        self.namespace = namespace
        accept = "".join(f"    tcp dport {port} counter name services accept\n" for port in services)
        names = ("invalid", "established", "services", "rest", "invalid_out")
        declared = "".join(f"  counter {name} {{ }}\n" for name in names)
        load(
            namespace,
            f"table inet {self.TABLE} {{\n{declared}"
            "  chain incoming {\n"
            "    type filter hook input priority 0; policy drop;\n"
            '    iifname "lo" accept\n'
            "    ct state invalid counter name invalid drop\n"
            "    ct state established,related counter name established accept\n"
            f"{accept}"
            "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept\n"
            "    counter name rest drop\n"
            "  }\n"
            "  chain outgoing {\n"
            "    type filter hook output priority 0;\n"
            "    ct state invalid counter name invalid_out\n"
            "  }\n"
            "}\n",
        )

    def counters(self) -> dict[str, Counter]:
        """By name: invalid, established, services, rest (incoming); invalid_out (outgoing, not dropped)."""
        return counters(self.namespace, self.TABLE)

    def invalid(self) -> int:
        """Packets that connection tracking called invalid, either way."""
        found = self.counters()
        return found["invalid"].packets + found["invalid_out"].packets

    def remove(self) -> None:
        """Take the firewall away."""
        load(self.namespace, f"delete table inet {self.TABLE}\n")


class Loss:
    """Random loss of what enters a namespace by an interface, `percent` of the frames (to hundredths of a percent).

    A super-segment is lost as a whole: switch the sender's offloads off for loss per wire segment.
    """

    TABLE = "lab_loss"

    def __init__(self, namespace: Namespace, interface: str, percent: float) -> None:
        self.namespace = namespace
        chance = f"numgen random mod 10000 < {round(percent * 100)}"
        load(
            namespace,
            f"table inet {self.TABLE} {{\n"
            "  counter lost { }\n"
            "  chain incoming {\n"
            "    type filter hook prerouting priority -300;\n"
            f'    iifname "{interface}" meta l4proto tcp {chance} counter name lost drop\n'
            "  }\n"
            "}\n",
        )

    def lost(self) -> int:
        """Frames lost so far."""
        return counters(self.namespace, self.TABLE)["lost"].packets

    def remove(self) -> None:
        """Lose nothing any more."""
        load(self.namespace, f"delete table inet {self.TABLE}\n")


class Block:
    """Everything of one TCP port (either end) that enters a namespace is dropped, until `remove`."""

    TABLE = "lab_block"

    def __init__(self, namespace: Namespace, port: int) -> None:
        self.namespace = namespace
        load(
            namespace,
            f"table inet {self.TABLE} {{\n"
            "  counter blocked { }\n"
            "  chain incoming {\n"
            "    type filter hook prerouting priority -300;\n"
            f"    tcp dport {port} counter name blocked drop\n"
            f"    tcp sport {port} counter name blocked drop\n"
            "  }\n"
            "}\n",
        )

    def blocked(self) -> int:
        """Frames dropped so far."""
        return counters(self.namespace, self.TABLE)["blocked"].packets

    def remove(self) -> None:
        """Let them pass again."""
        load(self.namespace, f"delete table inet {self.TABLE}\n")
