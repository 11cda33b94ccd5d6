"""ArdiQ: coroutines, 100 at once, results dropped at once."""

from __future__ import annotations

from collections.abc import Sequence

from ardiq import Ardiq

from bench.peers import _handlers

WORKER = ("ardiq", "run", "bench.peers.ardiq:app", "--quiet")

app = Ardiq(_handlers.URL, "bench", concurrency=100, result_ttl_ms=0)
_noop = app.task(name="noop")(_handlers.noop_async)
enqueue = _noop.enqueue
stamp = app.task(name="stamp")(_handlers.stamp_async).enqueue


async def bulk(texts: Sequence[str]) -> None:
    """As many jobs."""
    await app.enqueue_many(_noop.prepare(text) for text in texts)
