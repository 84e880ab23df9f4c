"""What a user says about the drivers of a stack: a row of layers above each target, or a team of several targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.multiplexer import Multiplexer, own_adapter
from chimney.ndis import driver as ndis_driver
from chimney.ndis.driver import Miniport
from chimney.ndis.library import Binding

Bind = Callable[[ndis_driver.Protocol, Miniport], Binding]
"""`chimney.ndis.bind`, under the stack's verifier if it has one."""


class IntermediateDrivers(Protocol):
    """What stands between the host and a target, made when an adapter is."""

    def __call__(self, device: str, below: Miniport, bind: Bind) -> Miniport:
        """Bind drivers, lowest first, above ``below`` (the target on ``device``), and return the edge that the host is
        to be bound to.
        """
        ...


class Layers:
    """Drivers with one edge above and one below, the first one on top: each of ``makers`` gets a name and makes one.

    A driver class is a maker, and so is ``lambda name: FaultyDriver(name, Faults(delay=0.1))``. Every target gets a
    row of its own.
    """

    def __init__(self, *makers: Callable[[str], IntermediateDriver]) -> None:
        self.makers = makers

    def __call__(self, device: str, below: Miniport, bind: Bind) -> Miniport:
        for number in range(len(self.makers), 0, -1):
            driver = self.makers[number - 1](f"layer {number} on {device}")
            bind(driver.lower, below)
            below = driver.upper
        return below


class Team:
    """The targets of several interfaces under one `Multiplexer`, and ``layers`` above each of its virtual miniports.

    The adapters of all ``devices`` (interface names) are made together, when the first connection over one of them is
    offloaded. A connection goes to the target of the interface that its route uses. Over other interfaces there are the
    layers alone. Raises ValueError for less than two devices, or one named twice.
    """

    def __init__(self, *devices: str, layers: IntermediateDrivers | None = None) -> None:
        if len(devices) < 2 or len(set(devices)) < len(devices):
            raise ValueError(f"a team of {', '.join(devices) or 'nothing'}: name two or more different interfaces")
        self.devices = devices
        self.layers: IntermediateDrivers = layers or Layers()

    def __call__(self, device: str, below: Miniport, bind: Bind) -> Miniport:
        return self.layers(device, below, bind)

    def together(self, targets: Mapping[str, Miniport], bind: Bind) -> dict[str, Miniport]:
        """Bind the multiplexer above ``targets`` (by device), and the layers above it; returns each device's edge for
        the host.
        """
        team = self.multiplexer()
        for lower, target in zip(team.lowers, targets.values(), strict=True):
            bind(lower, target)
        return {
            device: self.layers(device, upper, bind) for device, upper in zip(targets, team.uppers, strict=True)
        }

    def multiplexer(self) -> Multiplexer:
        """The driver in the middle: its n-th upper and its n-th lower edge are those of the n-th device."""
        count = len(self.devices)
        return Multiplexer(f"team of {', '.join(self.devices)}", count, count, own_adapter)
