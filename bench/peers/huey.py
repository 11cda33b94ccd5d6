"""huey: blocking RedisHuey without results, one thread (with four it was no faster), no scheduler of periodic tasks."""

from __future__ import annotations

from huey import RedisHuey

from bench.peers import _handlers

WORKER = ("huey.bin.huey_consumer", "bench.peers.huey.app", "--workers=1", "--no-periodic", "--quiet")

app = RedisHuey("bench", url=_handlers.URL, results=False)
enqueue = app.task(name="noop")(_handlers.noop)
stamp = app.task(name="stamp")(_handlers.stamp)
