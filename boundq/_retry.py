"""
What to do when an exchange fails: once more, after how long, or which error. Waits for nothing itself.

redis-py's own repeats are off for our calls: it would send a script again after a cut connection without knowing
whether the first one ran (10 times by default in redis-py 8).
"""

from __future__ import annotations

import random
import time
from typing import Any

from boundq._call import Full, Request
from boundq.errors import BoundqError, DataError, Outcome, Unavailable

# With less than this left an attempt would only blur why the ones before it failed, in seconds.
LAST_CHANCE = 0.02
# The first word of an error reply -> why the server is unavailable. None of these has executed the script.
_TRANSIENT = {
    "LOADING": "loading",
    "BUSY": "busy",
    "READONLY": "readonly",
    "MASTERDOWN": "readonly",
    "UNBLOCKED": "readonly",  # it waited on a list of a primary that has become a replica
    "MISCONF": "misconf",
    "NOREPLICAS": "misconf",
    "CLUSTERDOWN": "cluster",
    "TRYAGAIN": "cluster",
    "MOVED": "cluster",
    "ASK": "cluster",
    "NOSCRIPT": "no_permission",  # only where we may not load it: until somebody does who may
}
# What servers say where a script was started, and came to a command that its user may not run (the second: Redis 7.0).
_FORBIDDEN_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
_FINAL = {"NOAUTH": "auth", "WRONGPASS": "auth", "NOPERM": "no_permission"}


class Lost(Exception):
    """
    The connection failed.

    Args:
        reason: As in `Unavailable`.
        sent: Whether bytes of the call may have reached the server.
        detail: In the system's words.
    """

    def __init__(self, reason: str, sent: bool, detail: str = "") -> None:
        super().__init__(reason, sent, detail)
        self.reason = reason
        self.sent = sent
        self.detail = detail

    def unsent(self) -> Lost:
        """The same, when nothing of the call itself had been sent yet."""
        return Lost(self.reason, False, self.detail)


class ErrorReply(Exception):
    """The server answered with an error, e.g. ``LOADING Redis is loading the dataset in memory``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.code = text.partition(" ")[0]

    @property
    def transient(self) -> str | None:
        """Why the server cannot answer just now; None where this is no such error."""
        return "max_clients" if is_max_clients(self.text) else _TRANSIENT.get(self.code)

    @property
    def elsewhere(self) -> bool:
        """Whether another server may be the primary by now: connect anew."""
        return self.code in ("READONLY", "MASTERDOWN", "UNBLOCKED", "LOADING")


def is_max_clients(text: str) -> bool:
    """Whether the server turned the connection away for want of a free one."""
    return "max number of clients" in text


def check_introduced(replies: list[Any]) -> None:
    """
    Look at the replies to a connection's introduction.

    Raises:
        Lost: One is an error.
    """
    *replies, ping = replies
    if isinstance(ping, ErrorReply) and ping.code != "NOPERM":  # who may not ping may do other things
        replies.append(ping)
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise lost_introducing(reply)


def lost_introducing(reply: ErrorReply) -> Lost:
    """A new connection's introduction (password, database) was answered with an error; nothing of a call was sent."""
    reason = {**_TRANSIENT, **_FINAL}.get(reply.code, "protocol")
    if is_max_clients(reply.text):
        reason = "max_clients"
    elif "AUTH" in reply.text and reason == "protocol":  # a password where none is set
        reason = "auth"
    return Lost(reason, False, reply.text)


def give_up_at(deadline: float, waits: float = 0.0) -> float:
    """See `Attempts.give_up_at`; ``waits``: seconds of waiting on a list that do not count."""
    now = time.monotonic()
    left = deadline - now - waits
    return deadline if left < 1 else now + waits + left / 2


class Attempts:
    """
    The attempts at one call, up to its deadline.

    Args:
        queue: Its name, for errors.
        call: What is being sent.
        deadline: On the monotonic clock.

    Attributes:
        resent: An earlier attempt may have been executed.
    """

    __slots__ = ("_failures", "_queue", "call", "deadline", "resent")

    def __init__(self, queue: str, call: Request, deadline: float) -> None:
        self._queue = queue
        self.call = call
        self.deadline = deadline
        self.resent = False
        self._failures = 0

    @property
    def give_up_at(self) -> float:
        """
        Until when to wait for an answer to the next attempt, on the monotonic clock.

        Half of what is left where the call may be sent again: a connection that silently died leaves time for
        another. All of it otherwise. Time spent on a list does not count.
        """
        if not self.call.repeat:
            return self.deadline
        return give_up_at(self.deadline, self.call.block[1] if self.call.block else 0.0)

    def lost(self, lost: Lost) -> float:
        """Seconds to wait before the next attempt, or the error that ends the call."""
        if lost.reason in ("auth", "no_permission"):
            raise self._unavailable(lost.reason, lost.detail) from lost
        if lost.sent:
            self.resent = True
            if not self.call.repeat:
                raise self._unavailable(lost.reason, lost.detail) from lost
        return self._pause(self._unavailable(lost.reason, lost.detail), lost)

    def refused(self, reply: ErrorReply) -> float:
        """Likewise, after an error reply: the script did not run, or failed before it wrote."""
        if reply.code == "OOM":
            if self.resent:  # the first sending may have been done; the server cannot say so now
                return self._pause(self._unavailable("memory", reply.text), reply)
            raise Full from reply
        if reply.transient:
            return self._pause(self._unavailable(reply.transient, reply.text), reply)
        raise self.error_of(reply) from reply

    def gate_is_shut(self, wait: float, reason: str) -> float:
        """Others failed a moment ago: seconds to wait before asking, or the error where the deadline is earlier."""
        if time.monotonic() + wait >= self.deadline:
            raise self._unavailable(reason, "calls of this process failed a moment ago")
        return wait

    def error_of(self, reply: ErrorReply) -> BoundqError:
        """The error that an error reply stands for."""
        if "unauthenticated" in reply.text:  # what a server that wants a password says of a long command
            return self._unavailable("auth", reply.text)
        if any(text in reply.text for text in _FORBIDDEN_IN_SCRIPT):
            return Unavailable(self._queue, "unknown", "no_permission", reply.text)
        if reply.code in _FINAL:
            return self._unavailable(_FINAL[reply.code], reply.text)
        if reply.code == "WRONGTYPE":
            return DataError(self._queue, self.call.name, "wrong_type", reply.text)
        return Unavailable(self._queue, "unknown", "protocol", reply.text)

    def _unavailable(self, reason: str, detail: str) -> Unavailable:
        outcome: Outcome = "unknown" if self.resent else "not_sent"
        return Unavailable(self._queue, outcome, reason, detail)

    def _pause(self, error: BoundqError, cause: Exception) -> float:
        self._failures += 1
        # 25-50 ms, then doubling to 0.5-1 s: at most some five attempts in the first second, two a second after.
        pause: float = min(0.05 * 2.0 ** (self._failures - 1), 1.0) * (0.5 + random.random() / 2)
        if time.monotonic() + pause + LAST_CHANCE >= self.deadline:
            raise error from cause
        return pause
