"""The only place where a key name is spelled: ``boundq:{queue}:part``, all parts in one slot."""

from __future__ import annotations

import re

from boundq.errors import ConfigError

# Braces would break the hash tag; spaces and control characters would break terminals and logs.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

# Where jobs are, in the order in which the scripts take these keys; with what their unique keys need; all keys.
PLACES = ("state", "jobs", "leases", "due0", "due1", "due2", "due3", "dead", "errors")
ENDINGS = (*PLACES, "unique", "windows")
PARTS = (*ENDINGS, "wake", "room", "turn", "events")


def check_name(name: object, setting: str) -> str:
    """
    A queue, group or task name: 1 to 64 of ``A-Za-z0-9._-``.

    Raises:
        ConfigError: Anything else.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise ConfigError(setting, name, "a name is 1 to 64 characters out of A-Z a-z 0-9 . _ -")
    return name


class Keys:
    """The keys of one queue, as bytes: ``keys.state``, ``keys.due0``; ``keys.of("state", "jobs")``."""

    def __init__(self, queue: str) -> None:
        self.queue = check_name(queue, "queue name")

    def of(self, *parts: str) -> tuple[bytes, ...]:
        """The keys of these parts, in this order."""
        return tuple(f"boundq:{{{self.queue}}}:{part}".encode() for part in parts)
