"""
Every exception of boundq.

    BoundqError
      Rejected                     the server's answer was no: the job was certainly not stored
        QueueFull (queue.Full)     no room now; trying later may work
        JobTooLarge (ValueError)   would never fit; trying again is useless
        QueueSealed                an operator closed admission
      Unavailable                  no answer from the server; see ``outcome``
      LeaseLost                    somebody else may hold the job now
      DataError                    a key, an envelope or a payload that cannot be understood
      ConfigError (ValueError)     a setting or an argument that makes no sense
        ServerUnsupported          the server is too old

Fields are positional and the sentence is made in ``__str__``, so errors pickle by themselves. No text holds a
secret: a URL never gets into an error.
"""

from __future__ import annotations

import queue as _stdlib_queue
from typing import Literal

__all__ = [
    "BoundqError",
    "ConfigError",
    "DataError",
    "JobTooLarge",
    "LeaseLost",
    "Outcome",
    "QueueFull",
    "QueueSealed",
    "Rejected",
    "ServerUnsupported",
    "Unavailable",
]

Outcome = Literal["not_sent", "unknown"]


class BoundqError(Exception):
    """
    The base of all errors of boundq.

    Attributes:
        queue: Name of the queue concerned, "" when no queue is.
        retryable: Whether the same call may succeed later, unchanged, without doing anything twice.
    """

    queue: str = ""
    retryable: bool = False


class Rejected(BoundqError):
    """
    The queue refused a job. It was certainly not stored.

    Attributes:
        reason: Which limit: ``jobs``, ``bytes``, ``memory``, ``waiters``, ``job_bytes``, ``sealed``.
        used: What is held now, in the unit of the reason (jobs or bytes).
        limit: The most that may be held.
        requested: What the call asked for.
        oldest_age: Age of the oldest ready job in seconds, 0.0 when none is ready, None when not known.
        retry_after: Seconds until room is likely, with jitter; None when the queue does not drain or the
            sample is too thin to say.
    """

    def __init__(
        self,
        queue: str,
        reason: str,
        used: int = 0,
        limit: int = 0,
        requested: int = 0,
        oldest_age: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(queue, reason, used, limit, requested, oldest_age, retry_after)
        self.queue = queue
        self.reason = reason
        self.used = used
        self.limit = limit
        self.requested = requested
        self.oldest_age = oldest_age
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"queue {self.queue!r} refused the job ({self.reason}); it was not stored"


class QueueFull(Rejected, _stdlib_queue.Full):
    """The queue has no room for this job now; it was not stored. ``except queue.Full`` catches it too."""

    retryable = True

    def __str__(self) -> str:
        if self.reason == "memory":
            text = f"queue {self.queue!r}: the Redis server is out of memory (maxmemory); the job was not stored"
        elif self.reason == "waiters":
            text = f"queue {self.queue!r} is full: earlier producers are waiting for room (use wait= to join them)"
        else:
            text = (
                f"queue {self.queue!r} is full: {self.used} of {self.limit} {self.reason} held, "
                f"{self.requested} more asked for; the job was not stored"
            )
        if self.oldest_age:
            text += f"; oldest ready job is {self.oldest_age:.1f} s old"
        if self.retry_after is not None:
            text += f"; room is likely in {self.retry_after:.1f} s"
        return text


class JobTooLarge(Rejected, ValueError):
    """One job is larger than ``max_job_bytes``; it was not stored and never will be as it is."""

    def __str__(self) -> str:
        return (
            f"queue {self.queue!r}: one job of {self.requested} bytes is more than the {self.limit} that "
            "max_job_bytes, or max_bytes for the whole queue, allows; store the data elsewhere and enqueue its id, or "
            "raise the limit"
        )


class QueueSealed(Rejected):
    """
    Admission was closed by an operator (``seal``); claims go on.

    Attributes:
        since: Unix time of the seal in seconds, 0.0 when not known.
        by: Who sealed it, as they said; may be "".
    """

    retryable = True

    def __init__(self, queue: str, since: float = 0.0, by: str = "") -> None:
        super().__init__(queue, "sealed")
        self.args = (queue, since, by)
        self.since = since
        self.by = by

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        return f"queue {self.queue!r} is sealed{by}: it takes no new jobs until it is unsealed"


_ADVICE = {
    "refused": "nothing listens at that address; is the server running and the URL right?",
    "reset": "the connection was cut",
    "timeout": "no answer within the deadline",
    "max_clients": "the server has no free connection (maxclients)",
    "loading": "the server is loading its data",
    "readonly": "the server is a read-only replica",
    "busy": "the server is busy running a script",
    "memory": "the server is out of memory (maxmemory)",
    "misconf": "the server refuses writes because it cannot persist (MISCONF); see its log",
    "cluster": "the cluster is down or being reshaped",
    "auth": "the server wants a user and password, or they are wrong; put them into the URL or BOUNDQ_URL",
    "no_permission": "this user may not run the command, touch the key or load boundq's scripts (ACL: `boundq acl`)",
    "protocol": "the server's answer was not understood; is it a Redis or Valkey server?",
}


class Unavailable(BoundqError):
    """
    The server gave no answer.

    Attributes:
        queue: "" where the server itself was asked.
        outcome: ``not_sent``: the call certainly had no effect. ``unknown``: it may have had one.
        reason: ``refused reset timeout max_clients loading readonly busy memory misconf cluster auth
            no_permission protocol``.
        detail: The server's or the system's own words, without secrets; may be "".
    """

    def __init__(self, queue: str, outcome: Outcome, reason: str, detail: str = "") -> None:
        super().__init__(queue, outcome, reason, detail)
        self.queue = queue
        self.outcome = outcome
        self.reason = reason
        self.detail = detail
        self.retryable = outcome == "not_sent" and reason not in ("auth", "no_permission")

    def __str__(self) -> str:
        happened = "nothing was stored" if self.outcome == "not_sent" else "the call may or may not have had effect"
        detail = f" [{self.detail}]" if self.detail else ""
        advice = _ADVICE.get(self.reason, self.reason)
        if not self.queue:  # a question about the server: no queue can have come to harm
            return f"Redis is unavailable ({self.reason}): {advice}{detail}"
        return f"queue {self.queue!r}: Redis is unavailable ({self.reason}): {advice}; {happened}{detail}"


class LeaseLost(BoundqError):
    """
    The lease of this delivery is gone; the call changed nothing.

    Attributes:
        job_id: The job.
        cancelled: True when the job itself is gone (cancelled, purged, or settled by another delivery); False
            when it is still in the queue and will be, or is being, delivered again.
    """

    def __init__(self, queue: str, job_id: str, cancelled: bool = False) -> None:
        super().__init__(queue, job_id, cancelled)
        self.queue = queue
        self.job_id = job_id
        self.cancelled = cancelled

    def __str__(self) -> str:
        why = "the job is gone" if self.cancelled else "it ran out and the job is, or will be, delivered again"
        return f"queue {self.queue!r}: the lease of job {self.job_id} is lost: {why}"


class DataError(BoundqError):
    """
    Stored bytes, a key or an argument that cannot be understood or written.

    Attributes:
        where: A job id, a key, or an argument's name.
        reason: ``missing wrong_type undecodable unserialisable unknown_version unknown_task``.
        detail: What was found.
    """

    def __init__(self, queue: str, where: str, reason: str, detail: str = "") -> None:
        super().__init__(queue, where, reason, detail)
        self.queue = queue
        self.where = where
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"queue {self.queue!r}: {self.where}: {self.reason.replace('_', ' ')}{detail}"


class ConfigError(BoundqError, ValueError):
    """
    A setting or an argument that makes no sense.

    Attributes:
        setting: Its name.
        value: What it was.
        message: What would be right.
    """

    def __init__(self, setting: str, value: object, message: str) -> None:
        super().__init__(setting, value, message)
        self.setting = setting
        self.value = value
        self.message = message

    def __str__(self) -> str:
        try:
            value = repr(self.value)
        except Exception:  # a value whose repr fails must not hide what is wrong with it
            value = f"a {type(self.value).__name__}"
        return f"{self.setting} is {value if len(value) <= 200 else value[:200] + '...'}: {self.message}"


class ServerUnsupported(ConfigError):
    """The server is older than boundq needs."""

    def __init__(self, found: str, needed: str = "Redis 7.0 or Valkey 7.2") -> None:
        super().__init__("server", found, f"boundq needs {needed} or newer")
        self.args = (found, needed)
        self.found = found
        self.needed = needed

    def __str__(self) -> str:
        return f"the server is {self.found}; boundq needs {self.needed} or newer"
