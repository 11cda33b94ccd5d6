"""taskiq: ListQueueBroker, no result backend, arguments not parsed with pydantic, uvloop as it installs it itself."""

from __future__ import annotations

from taskiq_redis import ListQueueBroker

from bench.peers import _handlers

WORKER = ("taskiq", "worker", "bench.peers.taskiq_list:broker", "--workers=1", "--no-parse", "--log-level=WARNING")

broker = ListQueueBroker(_handlers.URL, queue_name="bench")
open = broker.startup
enqueue = broker.task(task_name="noop")(_handlers.noop_async).kiq
stamp = broker.task(task_name="stamp")(_handlers.stamp_async).kiq
