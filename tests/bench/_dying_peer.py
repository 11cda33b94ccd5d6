"""A peer without bulk, whose worker ends at its first job."""

from __future__ import annotations

import sys

from bench.peers.redis_py import enqueue as enqueue
from bench.peers.redis_py import stamp as stamp


def work() -> None:
    """End."""
    sys.exit("out of luck")
