"""A job on its way in: options checked, payload encoded, ready to be given a time stamp and sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import msgspec

from boundq._envelope import EXPIRES, UNIQUE, digest, pack, seal_headers, stamp
from boundq._keys import check_name
from boundq._sizes import epoch_milliseconds, milliseconds
from boundq.errors import ConfigError, DataError
from boundq.model import PRIORITIES, Priority

__all__ = ["JobOptions", "Prepared", "encode_arguments", "prepare"]

_LEVELS: dict[str, int] = {name: level for level, name in enumerate(PRIORITIES)}


class JobOptions(TypedDict, total=False):
    """
    What may be said of one job.

    delay: Seconds (or a timedelta) before it may run; at: an aware datetime instead. priority: ``low normal high
    critical``. unique: A key; while a job with it is held, another is answered with the first one's receipt.
    unique_for: Hold the key that long, in seconds from now, even if the job is done earlier. expires: Seconds from
    now, or an aware datetime, after which it is not started any more. headers: A string map beside the payload.
    """

    delay: float | timedelta | None
    at: datetime | None
    priority: Priority
    unique: str | None
    unique_for: float | timedelta | None
    expires: float | timedelta | datetime | None
    headers: Mapping[str, str] | None


class Prepared(msgspec.Struct, frozen=True):
    """
    A job as the scripts take it, but for its time stamp.

    Args:
        level: 0 to 3.
        head: Version and flags.
        rest: All that follows the time stamp.
        general: It has an option that only ``enqueue_general`` knows: due, expiry or a unique key.
        due, expires, digest, window: As the script takes them.
        task: For results and errors.
        created: Six bytes, where the job was admitted before and keeps its age; b"": it is admitted now.
    """

    level: int
    head: bytes
    rest: bytes
    general: bool = False
    due: bytes = b""
    expires: bytes = b""
    digest: bytes = b""
    window: int = 0
    task: str = ""
    created: bytes = b""

    def envelope(self, now: bytes) -> bytes:
        """The bytes to store."""
        return self.head + (self.created or now) + self.rest

    @property
    def size(self) -> int:
        """Bytes of the envelope, what ``max_job_bytes`` bounds."""
        return 8 + len(self.rest)


class Mould(NamedTuple):
    """What all jobs of a task have in common that have no option but a priority."""

    level: int
    start: bytes
    task: str

    def cast(self, payload: bytes) -> Prepared:
        """The job of this payload."""
        return Prepared(self.level, b"\x01\x00", self.start + payload, task=self.task)


def mould(task: str, options: JobOptions) -> Mould | None:
    """The mould of jobs with these options; None: each has to be made from its parts, by `prepare`."""
    if options and options.keys() != {"priority"}:
        return None
    return _mould(task, _level(options.get("priority", "normal")))


@lru_cache(1024)
def _mould(task: str, level: int) -> Mould:
    name = _name(task)
    return Mould(level, b"%c%b" % (len(name), name), task)


def encode_arguments(queue: str, task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """
    Arguments as the JSON ``[args, kwargs]``.

    Raises:
        DataError: ``unserialisable``; nothing was sent.
    """
    try:
        return msgspec.json.encode((args, kwargs))
    except (TypeError, ValueError, OverflowError, UnicodeError, RecursionError) as error:
        detail = f"{error}; send what JSON can hold, or bytes of your own with enqueue_bytes()"
        raise DataError(queue, f"arguments of task {task!r}", "unserialisable", detail) from error


def prepare(queue: str, task: str, payload: bytes, options: JobOptions) -> Prepared:
    """
    A job from its parts.

    Args:
        queue: For errors.
        task: The task's name, "" for a raw payload.
        payload: Kept as given.
        options: See `JobOptions`.

    Raises:
        ConfigError: An option that makes no sense.
    """
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise ConfigError("payload", type(payload).__name__, "a raw payload is bytes; tasks take other arguments")
    if (plain := mould(task, options)) is not None:
        return plain.cast(payload)
    name = _name(task)
    if unknown := options.keys() - JobOptions.__annotations__.keys():
        known = ", ".join(JobOptions.__annotations__)
        raise ConfigError("options", ", ".join(sorted(unknown)), f"options of a job are {known}")
    due = _due(options.get("delay"), options.get("at"))
    expires_head, expires = _expiry(options.get("expires"))
    key = options.get("unique")
    if key is not None and (not isinstance(key, str) or not key or not _is_text(key)):
        raise ConfigError("unique", key, "a unique key is a text that is not empty")
    window = options.get("unique_for")
    if window is not None and key is None:
        raise ConfigError("unique_for", window, "it needs unique=")
    mark = digest(key) if key else b""
    whole = pack(
        stamp(0),
        name,
        bytes(payload),
        expires=expires_head,
        unique=mark,
        headers=seal_headers(options.get("headers")),
    )
    return Prepared(
        _level(options.get("priority", "normal")),
        whole[:2],
        whole[8:],
        bool(due or whole[1] & (EXPIRES | UNIQUE)),
        due,
        expires,
        mark,
        milliseconds(window, "unique_for", least=1) if window is not None else 0,
        task,
    )


@lru_cache(1024)
def _name(task: str) -> bytes:
    return check_name(task, "task name").encode() if task else b""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _level(priority: object) -> int:
    level = _LEVELS.get(priority) if isinstance(priority, str) else None
    if level is None:
        raise ConfigError("priority", priority, f"it must be one of {', '.join(PRIORITIES)}")
    return level


def _due(delay: object, at: object) -> bytes:
    if delay is not None and at is not None:
        raise ConfigError("at", at, "give delay or at, not both")
    if at is not None:
        return b"%d" % epoch_milliseconds(at, "at")
    if delay is None:
        return b""
    wait = milliseconds(delay, "delay")
    return b"+%d" % wait if wait else b""


def _expiry(expires: object) -> tuple[bytes | None, bytes]:
    """The bytes for the envelope, and the argument of the script."""
    if expires is None:
        return None, b""
    if isinstance(expires, datetime):
        return stamp(epoch_milliseconds(expires, "expires", latest=2**48)), b""
    return bytes(6), b"+%d" % milliseconds(expires, "expires", least=1)
