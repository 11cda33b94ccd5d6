"""celery: pool `solo`, prefetch of 128 as its guide has it for short tasks, no results, no gossip between workers."""

from __future__ import annotations

from celery import Celery

from bench.peers import _handlers

WORKER = (
    *("celery", "--quiet", "--app=bench.peers.celery:app", "worker", "--pool=solo", "--prefetch-multiplier=128"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"),
)

app = Celery("bench", broker=_handlers.URL)
app.conf.update(task_ignore_result=True, task_default_queue="bench", broker_connection_retry_on_startup=True)
enqueue = app.task(_handlers.noop, name="noop").delay
stamp = app.task(_handlers.stamp, name="stamp").delay
