"""
What a job is charged, as the scripts reckon it (lua/lib/charge.lua, dead.lua, unique.lua): for sizing without a server.

tests/model/test_charge.py holds it against the scripts on every server.
"""

from __future__ import annotations

# The charge's constant for each allocator, as ``attach`` writes it into a queue's state.
COSTS = {"jemalloc": 224, "libc": -176}
# A unique key, and a window of one, beside their job.
UNIQUE, WINDOW = 128, 160
# Bytes of an envelope beside payload, task name and headers, at least.
HEAD = 9
_TEXT_JEMALLOC, _TEXT_LIBC = 96, -72


def charge_of(size: int, cost: int) -> int:
    """
    Bytes charged for a job.

    Args:
        size: Of its envelope.
        cost: Of `COSTS`, or a queue's own.
    """
    stored = size + (4 if size < 256 else 6 if size < 65536 else 10)  # the string's own header and NUL
    if cost > 0:
        step = 16 if stored <= 128 else 1 << ((stored - 1).bit_length() - 3)  # four classes to each doubling
        return stored + -stored % step + cost
    charge = stored + 24 - cost
    if stored >= 32768:
        charge += -(-stored // 128)
    return charge + 4096 if stored >= 131000 else charge


def text_charge(size: int, cost: int) -> int:
    """Bytes charged beside it for a dead letter's reason and text of this size."""
    return charge_of(size, _TEXT_JEMALLOC if cost > 0 else _TEXT_LIBC) if size else 0
