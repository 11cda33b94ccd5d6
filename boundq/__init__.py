"""
boundq: a job queue on Redis or Valkey whose bound is part of the enqueue.

    from boundq import Queue, QueueFull

Names are loaded when they are first used: a program that only feeds a queue does not pay for the worker, nor one
without asyncio for asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from boundq.aio.lease import AsyncLease as AsyncLease
    from boundq.aio.queue import AsyncQueue as AsyncQueue
    from boundq.errors import BoundqError as BoundqError
    from boundq.errors import ConfigError as ConfigError
    from boundq.errors import DataError as DataError
    from boundq.errors import JobTooLarge as JobTooLarge
    from boundq.errors import LeaseLost as LeaseLost
    from boundq.errors import QueueFull as QueueFull
    from boundq.errors import QueueSealed as QueueSealed
    from boundq.errors import Rejected as Rejected
    from boundq.errors import ServerUnsupported as ServerUnsupported
    from boundq.errors import Unavailable as Unavailable
    from boundq.job_control import Bury as Bury
    from boundq.job_control import Retry as Retry
    from boundq.job_control import current_job as current_job
    from boundq.limits import Limits as Limits
    from boundq.middleware import Middleware as Middleware
    from boundq.middleware import Outgoing as Outgoing
    from boundq.model import EnqueueResult as EnqueueResult
    from boundq.model import Job as Job
    from boundq.model import Matching as Matching
    from boundq.model import Page as Page
    from boundq.model import Receipt as Receipt
    from boundq.model import Rejection as Rejection
    from boundq.model import Restored as Restored
    from boundq.model import Stats as Stats
    from boundq.sync.lease import Lease as Lease
    from boundq.sync.queue import Queue as Queue
    from boundq.sync.server import Server as Server
    from boundq.task import Task as Task
    from boundq.worker.aio import AsyncWorker as AsyncWorker
    from boundq.worker.worker import Worker as Worker

_HOMES = {
    "boundq.aio.lease": ("AsyncLease",),
    "boundq.aio.queue": ("AsyncQueue",),
    "boundq.errors": (
        *("BoundqError", "ConfigError", "DataError", "JobTooLarge", "LeaseLost", "QueueFull", "QueueSealed"),
        *("Rejected", "ServerUnsupported", "Unavailable"),
    ),
    "boundq.job_control": ("Bury", "Retry", "current_job"),
    "boundq.limits": ("Limits",),
    "boundq.middleware": ("Middleware", "Outgoing"),
    "boundq.model": ("EnqueueResult", "Job", "Matching", "Page", "Receipt", "Rejection", "Restored", "Stats"),
    "boundq.sync.lease": ("Lease",),
    "boundq.sync.queue": ("Queue",),
    "boundq.sync.server": ("Server",),
    "boundq.task": ("Task",),
    "boundq.worker.aio": ("AsyncWorker",),
    "boundq.worker.worker": ("Worker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # names of _HOMES


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'boundq' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
