"""
One attempt at a call: what to write, and what to make of the replies. The one place that knows NOSCRIPT, MOVED and
ASK, and servers that are too old. Waits for nothing: a generator that yields what to send and is sent the replies.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from boundq._call import Both, Call, Request, Several, pack
from boundq._retry import ErrorReply
from boundq._scripts import every
from boundq.errors import ServerUnsupported

# Redirections, and lessons in a script, that one attempt may take.
MOST_ROUNDS = 6
Address = tuple[str, int]
UNTAUGHT = (
    "NOSCRIPT the server does not know boundq's scripts, and this user may not load them; a worker does, or "
    "`boundq doctor` as a user who may"
)


class Send(NamedTuple):
    """
    Args:
        data: What to write.
        replies: How many to read.
        waits: The server may wait before it answers: this connection is nobody else's.
        home: The queue's slot has moved to this node, for good; host "" is the same host.
        once: Send this to that node, on a connection of its own.
    """

    data: bytes
    replies: int
    waits: bool = False
    home: Address | None = None
    once: Address | None = None


def attempt(call: Request) -> Generator[Send, list[Any], tuple[Any, ErrorReply | None]]:
    """
    The reply to a call, and why its list could not be waited on, where that failed.

    Raises:
        ErrorReply: The server's error.
        ServerUnsupported: It does not know ``#!lua`` scripts.
    """
    if isinstance(call, Both | Several):
        return (yield Send(call.packed(), len(call.calls))), None
    lessons: list[bytes] = []
    trouble: ErrorReply | None = None
    home: Address | None = None
    once: Address | None = None
    for _ in range(MOST_ROUNDS):
        data, count = call.packed(), 2 if call.block and isinstance(call, Call) else 1
        if once:
            data, count = pack(b"ASKING") + data, count + 1
        if lessons:
            data, count = b"".join(lessons) + data, count + len(lessons)
        replies = yield Send(data, count, call.block is not None, home, once)
        home = once = None
        last = replies[-1]
        if call.block and count > 1 and isinstance(first := replies[-2], ErrorReply) and first.code != "UNBLOCKED":
            trouble = first
        if not isinstance(last, ErrorReply):
            return last, trouble
        if last.code == "NOSCRIPT" and isinstance(call, Call):
            own = pack(b"SCRIPT", b"LOAD", call.script.text)
            if lessons:
                yield from _refused(call)
                lessons = [own]
            else:
                # The server is new, restarted or flushed: teach it the scripts in the same write. All of them: who may
                # load heals those who may not, such as a producer under `boundq acl producer`. The call's own comes
                # last: a server reads some 16 KB at a time, and somebody else's flush may come between two reads.
                others = [script for script in every() if script is not call.script]
                lessons = [*(pack(b"SCRIPT", b"LOAD", script.text) for script in others), own]
            call = call._replace(block=None)  # its list, if any, was waited on
        elif last.code in ("MOVED", "ASK"):
            host, _, port = last.text.split()[2].rpartition(":")
            node = host.strip("[]"), int(port)
            home, once = (node, None) if last.code == "MOVED" else (None, node)
        else:
            raise last
    if last.code == "NOSCRIPT":
        raise ErrorReply("BUSY the scripts were flushed, time and again, as soon as they were loaded")
    raise ErrorReply("CLUSTERDOWN sent from node to node")


def _refused(call: Call) -> Generator[Send, list[Any], None]:
    """The script was not known right after it was loaded: raises why it could not be, unless it was flushed again."""
    (reply,) = yield Send(pack(b"SCRIPT", b"LOAD", call.script.text), 1)
    if not isinstance(reply, ErrorReply):
        return
    # What an old server says of the first line, which it takes for a mistake.
    if "compiling script" in reply.text and "near '#'" in reply.text:
        (info,) = yield Send(pack(b"INFO", b"server"), 1)
        raise ServerUnsupported(_version(info) if isinstance(info, bytes) else "too old")
    if reply.code == "NOPERM":
        raise ErrorReply(UNTAUGHT)
    raise reply


def _version(info: bytes) -> str:
    fields = dict(line.split(":", 1) for line in info.decode("utf-8", "replace").splitlines() if ":" in line)
    if "valkey_version" in fields:
        return f"Valkey {fields['valkey_version']}"
    return f"Redis {fields.get('redis_version', '(unknown version)')}"
