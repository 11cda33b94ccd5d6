"""wakaq: one worker process below its supervisor."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from wakaq import WakaQ
from wakaq.worker import Worker

from bench.peers import _handlers

_url = urlsplit(_handlers.URL)
_app = WakaQ(["bench"], host=_url.hostname, port=_url.port, concurrency=1, worker_log_level=logging.WARNING)
enqueue = _app.task(_handlers.noop).delay
stamp = _app.task(_handlers.stamp).delay


def work() -> None:
    """Until SIGTERM."""
    Worker(_app).start()
