"""How crossings, trees and connections hang together, for checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from chimney.ndis.crossing import BlockView, Crossing, Kind, NblView
from chimney.ndis.state import values_of
from chimney.verifier.books import Layer, ObjectBook, Operation


def has(flags: int, flag: int) -> bool:
    """Whether a bit is set: what is asked for each frame cannot afford the operators of enumerations."""
    return int(flags) & int(flag) != 0


def within(crossing: Crossing, outer: Crossing | None) -> bool:
    """Whether ``crossing`` was made while ``outer`` was running, from within it."""
    at: Crossing | None = crossing
    while at is not None and outer is not None:
        if at is outer:
            return True
        at = at.parent
    return False


def completed_inside(crossing: Crossing) -> bool:
    """Whether a completion comes from within the handler that received the operation."""
    operation = crossing.notes
    return isinstance(operation, Operation) and within(crossing.parent or crossing, operation.handler)


def nodes(operation: Operation) -> list[tuple[BlockView, ObjectBook | None, bool]]:
    """Each block as the completion brought it, its object (None: a placeholder), and whether it was new; nothing if
    the tree has another shape than before.
    """
    if len(operation.after) != len(operation.objects):
        return []
    return list(zip(operation.after, operation.objects, operation.new, strict=True))


def open_initiate(item: ObjectBook) -> Operation | None:
    """The initiate under way that offloads this object."""
    for operation in item.operations:
        if operation.call is item.initiated:
            return operation
    return None


def settled(item: ObjectBook | None) -> bool:
    """Whether no update of the object is under way: until it completes, old and new values are right (A33)."""
    if item is None:
        return False
    for operation in item.operations:
        if operation.kind is Kind.UPDATE:
            return False
    return True


def connections_of(item: ObjectBook) -> Iterator[ObjectBook]:
    """The connection that this is, or those that depend on it."""
    if item.layer is Layer.TCP:
        yield item
        return
    for dependent in item.dependents:
        yield from connections_of(dependent)


def below(item: ObjectBook) -> Iterator[ObjectBook]:
    """This object, and what it depends on."""
    at: ObjectBook | None = item
    while at is not None:
        yield at
        at = at.parent


def same_state(one: object, other: object, *besides: str) -> bool:
    """Whether two state structures (None: none) agree, but for the members ``besides``."""
    if one == other:
        return True
    kind: Any = type(one)
    if not besides or kind is not type(other):
        return False
    values = _values(kind, besides)
    return values(one) == values(other)


_values: Callable[[Any, tuple[str, ...]], Callable[[object], object]] = cache(values_of)


def view_bytes(views: tuple[NblView, ...] | list[NblView], limit: int) -> bytes:
    """The first ``limit`` used bytes of these lists."""
    parts = []
    for view in views:
        for offset, length, mdls in view.buffers:
            length = min(length, limit)
            for mdl in mdls:
                if not length:
                    break
                if offset >= mdl.byte_count:
                    offset -= mdl.byte_count
                    continue
                take = min(length, mdl.byte_count - offset)
                parts.append(bytes(mdl.view[offset : offset + take]))
                offset, length, limit = 0, length - take, limit - take
        if limit <= 0:
            break
    return b"".join(parts)
