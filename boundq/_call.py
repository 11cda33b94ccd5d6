"""
One script call as a value, and a conversation of several as a generator of them.

A `Flow` yields `Call`s and is sent an `Answer` for each; the two shells differ only in how they exchange one for the
other. Nothing in here, and nothing that makes flows, waits.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import lru_cache
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
        flags: Place among the arguments of flags, where +2 says that this is a resend; None: it makes no difference.
    """

    script: Script
    keys: tuple[bytes, ...]
    args: Sequence[bytes | str | int]
    repeat: bool = True
    block: tuple[bytes, float] | None = None
    flags: int | None = None

    def resend(self) -> Call:
        """The call as it is sent once more, after it may have been done already."""
        if self.flags is None:
            return self._replace(block=None)
        args = list(self.args)
        args[self.flags] = int(args[self.flags]) | 2
        return self._replace(args=args, block=None)

    def packed(self) -> bytes:
        """The bytes to send: its BLPOP, if it has one, and its EVALSHA."""
        words = 3 + len(self.keys) + len(self.args)
        command = b"*%d\r\n%b%b" % (words, opening(self.script.sha, self.keys), _words(self.args))
        if self.block:
            key, seconds = self.block
            return pack(b"BLPOP", key, f"{seconds:.3f}") + command
        return command

    @property
    def name(self) -> str:
        """For errors."""
        return f"script {self.script.name}"


class Command(NamedTuple):
    """A command of the server's own, such as INFO or SCAN; it reads, so it may be sent again."""

    words: Sequence[bytes | str | int]
    repeat: bool = True
    block: None = None

    def packed(self) -> bytes:
        """The bytes to send."""
        return pack(*self.words)

    @property
    def name(self) -> str:
        """For errors."""
        return f"command {self.words[0]!s}"


class Wait(NamedTuple):
    """Wait on a list, and do nothing then. The answer's reply is None when the time was over."""

    block: tuple[bytes, float]
    repeat: bool = False

    def packed(self) -> bytes:
        """The bytes to send."""
        return pack(b"BLPOP", self.block[0], f"{self.block[1]:.3f}")

    @property
    def name(self) -> str:
        """For errors."""
        return "command BLPOP"


class Pause(NamedTuple):
    """Wait, and send nothing. The answer's reply is None."""

    seconds: float
    block: None = None


class Both(NamedTuple):
    """
    Two calls in one write. The answer's reply is a pair, an `ErrorReply` in the place of one that failed: the caller
    makes that call by itself, where what can be mended is mended. Never sent again.
    """

    first: Call
    second: Call
    repeat: bool = False
    block: None = None

    @property
    def calls(self) -> tuple[Call, Call]:
        """As of `Several`."""
        return self.first, self.second

    def packed(self) -> bytes:
        """The bytes to send."""
        return self.first.packed() + self.second.packed()

    @property
    def name(self) -> str:
        """For errors."""
        return f"{self.first.name} and {self.second.name}"


class Several(NamedTuple):
    """
    Calls that read, all in one write. The answer's reply is a list, an `ErrorReply` in the place of each that failed:
    the caller makes that call by itself, where what can be mended is mended.
    """

    calls: tuple[Call, ...]
    repeat: bool = True
    block: None = None

    def packed(self) -> bytes:
        """The bytes to send."""
        return b"".join(call.packed() for call in self.calls)

    @property
    def name(self) -> str:
        """For errors."""
        return f"{len(self.calls)} calls of {self.calls[0].name}"


class Answer(NamedTuple):
    """
    What came back.

    Args:
        reply: The script's reply, a list; or the command's.
        resent: An earlier sending of the same call may have been executed too.
        trouble: Why its list could not be waited on, where that failed and the call itself did not.
    """

    reply: Any
    resent: bool
    trouble: Exception | None = None


Request = Call | Command | Both | Several | Wait
Flow = Generator[Request | Pause, Answer, R]


class Full(Exception):
    """The server is at its maxmemory and refused the script before it started (error OOM)."""


def pack(*words: bytes | str | int) -> bytes:
    """A command in the Redis protocol."""
    return b"*%d\r\n" % len(words) + _words(words)


@lru_cache(1024)
def opening(sha: bytes, keys: tuple[bytes, ...]) -> bytes:
    """What all calls of a script with these keys begin with, but for the number of words."""
    return _words((b"EVALSHA", sha, len(keys), *keys))


def _words(words: Iterable[bytes | str | int]) -> bytes:
    parts = []
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
