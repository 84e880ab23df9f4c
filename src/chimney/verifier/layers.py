"""Which object and which operation above an intermediate driver one below it belongs to.

A driver passes an object's state on as it is, and may take a tree apart; so connections are known by their stream,
paths by their addresses, and what is beneath by what stands on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Stage
from chimney.ndis.state import PathConst

if TYPE_CHECKING:
    from chimney.verifier.books import Books, ObjectBook, Operation


def relate(books: Books, operation: Operation) -> None:
    """Find the operation above that this one is (a part of), and the objects above of its new ones."""
    above = _above(books, operation)
    if above is None:
        return
    operation.above = above
    above.parts.append(operation)
    same = len(above.objects) == len(operation.objects)
    order = range(len(operation.objects)) if same else range(len(operation.objects) - 1, -1, -1)
    for index in order:
        item = operation.objects[index]
        if item is None or item.above is not None:
            continue
        upper = above.objects[index] if same else _counterpart(above, item)
        if upper is not None:
            item.above = upper
            # What a connection or path stands on is new with it, or known already.
            at, upper_at = item.parent, upper.parent
            while at is not None and upper_at is not None and at.above is None:
                at.above = upper_at
                at, upper_at = at.parent, upper_at.parent


def _above(books: Books, operation: Operation) -> Operation | None:
    candidates = [
        upper
        for book in books.above(operation.boundary)
        for upper in book.operations
        if upper.kind is operation.kind and upper.handler is not None
    ]
    at: Crossing | None = operation.call.parent
    while at is not None:
        if at.kind is operation.kind and at.stage is Stage.HANDLER and at.notes in candidates:
            candidates.insert(0, at.notes)
            break
        at = at.parent
    for upper in candidates:
        if _fits(operation, upper):
            return upper
    return None


def _fits(operation: Operation, upper: Operation) -> bool:
    """Whether all objects of ``operation`` are in the one above."""
    for item, fresh in zip(operation.objects, operation.new, strict=True):
        if item is None:
            continue
        if not fresh and item.above is not None:
            if item.above not in upper.objects:
                return False
        elif item.layer and _counterpart(upper, item) is None:
            return False
    return True


def _counterpart(upper: Operation, item: ObjectBook) -> ObjectBook | None:
    for other in upper.objects:
        if other is None or other.layer is not item.layer:
            continue
        if item.stream is not None:
            if other.stream is item.stream:
                return other
        elif isinstance(item.const, PathConst):
            if other.const == item.const:
                return other
        elif not item.layer:
            return other
    return None
