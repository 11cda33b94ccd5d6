"""taskiq: RedisStreamBroker, otherwise as `taskiq_list`. Its group begins at 0: jobs are there before the worker is."""

from __future__ import annotations

from taskiq_redis import RedisStreamBroker

from bench.peers import _handlers

WORKER = ("taskiq", "worker", "bench.peers.taskiq_stream:broker", "--workers=1", "--no-parse", "--log-level=WARNING")

broker = RedisStreamBroker(_handlers.URL, queue_name="bench", consumer_id="0")
open = broker.startup
enqueue = broker.task(task_name="noop")(_handlers.noop_async).kiq
stamp = broker.task(task_name="stamp")(_handlers.stamp_async).kiq
