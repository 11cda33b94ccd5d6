"""
One script call as a value, and a conversation of several as a generator of them.

A `Flow` yields `Call`s and is sent an `Answer` for each; the two shells differ only in how they exchange one for the
other. Nothing in here, and nothing that makes flows, waits.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from boundq._scripts import Script

R = TypeVar("R")


class Call(NamedTuple):
    """
    What to send.

    Args:
        script: The script.
        keys: Its KEYS.
        args: Its ARGV.
        repeat: Whether it may be sent again when its answer was lost: it reads, or is fenced, or is numbered.
        block: A key and seconds: wait on this list first, in the same write.
    """

    script: Script
    keys: Sequence[bytes]
    args: Sequence[bytes | str | int]
    repeat: bool = True
    block: tuple[bytes, float] | None = None


class Answer(NamedTuple):
    """
    What came back.

    Args:
        reply: The script's reply.
        resent: An earlier sending of the same call may have been executed too.
    """

    reply: list[Any]
    resent: bool


Flow = Generator[Call, Answer, R]


class Full(Exception):
    """The server is at its maxmemory and refused the script before it started (error OOM)."""


def pack(*words: bytes | str | int) -> bytes:
    """A command in the Redis protocol."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def pack_call(call: Call) -> bytes:
    """The call as bytes: its BLPOP, if it has one, and its EVALSHA."""
    command = pack(b"EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)
    if call.block:
        key, seconds = call.block
        return pack(b"BLPOP", key, f"{seconds:.3f}") + command
    return command
