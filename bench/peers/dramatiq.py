"""dramatiq: its Redis broker and default middleware, one process of eight threads, which is its default."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import _handlers

WORKER = ("dramatiq", "bench.peers.dramatiq", "--processes=1", "--threads=8")

dramatiq.set_broker(RedisBroker(url=_handlers.URL))
enqueue = dramatiq.actor(_handlers.noop, actor_name="noop").send
stamp = dramatiq.actor(_handlers.stamp, actor_name="stamp").send
