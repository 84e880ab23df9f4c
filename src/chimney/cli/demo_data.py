"""The demonstration's data: sizes as people write them, and a file of which no two blocks are alike."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_NAMES = ("B", "KiB", "MiB", "GiB", "TiB")
_BLOCK = 64 << 10
_POOL = 8 << 20
# Odd, so that the starts of the blocks in the pool repeat only after _POOL blocks (512 GB).
_STRIDE = 2654435761


def parse_size(text: str) -> int:
    """Bytes, from a number with an optional unit K, M, G or T (powers of 1024). Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if found is None:
        raise ValueError(f"{text!r} is not a size; write for example 64M or 1.5G")
    size = int(float(found[1]) * (1 << _UNITS[found[2]]))
    if size < 1:
        raise ValueError("a size must be at least one byte")
    return size


def format_size(size: float) -> str:
    """A number of bytes for people, in the unit that suits it."""
    unit = 0
    while size >= 999.5 and unit < len(_NAMES) - 1:
        size /= 1024
        unit += 1
    return f"{size:.3g} {_NAMES[unit]}"


def write_data(path: Path, size: int, seed: int) -> str:
    """Fill a file with `size` bytes that follow from `seed`; returns their SHA-256.

    Every block of 64 KiB starts somewhere else in a pool of random bytes: a byte in a wrong place changes the digest.
    """
    pool = random.Random(seed).randbytes(_POOL)
    around = memoryview(pool + pool[:_BLOCK])
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(-(-size // _BLOCK)):
            start = number * _STRIDE % _POOL
            block = around[start : start + min(_BLOCK, size - number * _BLOCK)]
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
