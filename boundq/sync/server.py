"""Server: what there is on one, for those who look after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from boundq._call import Answer, Command, Flow, Several
from boundq._core.base import Core
from boundq._core.inspection import Inspection
from boundq._core.queue import DEADLINE_SECONDS
from boundq._retry import ErrorReply
from boundq._sizes import seconds
from boundq._target import target_of
from boundq.errors import BoundqError, Unavailable
from boundq.model import Stats, as_text
from boundq.sync._link import Hub
from boundq.sync.queue import Queue

__all__ = ["Server"]

R = TypeVar("R")
# So many queues are looked at in one write.
STATS_STEP = 100
_STATE = re.compile(r"boundq:\{([A-Za-z0-9._-]{1,64})\}:state\Z")


class Server:
    """
    A Redis or Valkey server.

    Args:
        url_or_client: As for `Queue`.
        deadline: Seconds that each exchange with it may take.
    """

    def __init__(self, url_or_client: Any = None, *, deadline: float | timedelta = DEADLINE_SECONDS) -> None:
        self._where = url_or_client
        self._hub = Hub.of(target_of(url_or_client))
        self._deadline = seconds(deadline, "deadline", least=0.001)

    def queues(self) -> list[str]:
        """
        The names of all queues, sorted; of a cluster, those on the node that answers.

        Walks through the server's keys, foreign ones too, in steps that hold it for a millisecond or so: 1,000,000 of
        them take 0.2 s on Valkey 9, 1 s on Redis 7.0. There is no list of queues to read instead: it would be one more
        key, in one slot, that every producer has to be allowed to write, and a queue that is missing in it would be
        missing in the incident.
        """
        return sorted({name for names in self.walk() for name in names})

    def walk(self) -> Iterator[list[str]]:
        """The names as they are found, step by step; one may come twice."""
        cursor: str | None = "0"
        while cursor is not None:
            names, cursor = self._run(self._names(cursor))
            yield names

    def stats(self, names: Sequence[str]) -> dict[str, Stats | BoundqError]:
        """
        The numbers of several queues, or why there are none: no such queue, not readable, forbidden.

        Two round trips for each 100 queues, and one command a queue, however many jobs it holds.

        Raises:
            Unavailable: The server does not answer.
        """
        found: dict[str, Stats | BoundqError] = {}
        for start in range(0, len(names), STATS_STEP):
            found |= self._run(self._stats(names[start : start + STATS_STEP]))
        return found

    def queue(self, name: str) -> Queue:
        """A queue that exists; using it does not create one."""
        return Queue(name, self._where, create=False, deadline=self._deadline)

    def info(self, *sections: str) -> dict[str, str]:
        """Fields of the server's INFO; empty where it is forbidden."""
        try:
            return self._run(self._info(sections))
        except Unavailable as error:
            if error.reason == "no_permission":
                return {}
            raise

    def command(self, *words: bytes | str | int) -> Any:
        """
        The reply to one command of the server's own, such as CONFIG GET. It may be sent twice: use it for what reads,
        or does no more the second time.

        Raises:
            Unavailable: ``no_permission`` where an ACL forbids it; ``protocol`` where the server does not know it.
        """
        return self._run(self._command(words))

    def close(self) -> None:
        """Hang up this process's connections to it."""
        self._hub.close()

    def _run(self, flow: Flow[R]) -> R:
        return self._hub.link().drive("", flow, self._deadline, each=True)

    def _names(self, cursor: str) -> Flow[tuple[list[str], str | None]]:
        answer = yield Command(("SCAN", cursor, "MATCH", "boundq:{*}:state", "COUNT", 1000, "TYPE", "hash"))
        cursor = as_text(answer.reply[0])
        matches = [_STATE.match(as_text(key)) for key in answer.reply[1]]
        return [match[1] for match in matches if match], cursor if cursor != "0" else None

    def _stats(self, names: Sequence[str]) -> Flow[dict[str, Stats | BoundqError]]:
        looks = {name: Inspection(Core(name, None)) for name in names}
        found: dict[str, Stats | BoundqError] = {}
        # The first goes alone: a server that does not know the script yet learns it then.
        alone = list(looks)[:1]
        if rest := list(looks)[1:]:
            for name in alone:
                found[name] = yield from _one(looks[name])
            answer = yield Several(tuple(looks[name].stats_call() for name in rest))
            alone = []
            for name, reply in zip(rest, answer.reply, strict=True):
                if isinstance(reply, ErrorReply):
                    alone.append(name)
                    continue
                try:
                    found[name] = looks[name].stats_of(Answer(reply, resent=False))
                except BoundqError as error:
                    found[name] = error
        for name in alone:
            found[name] = yield from _one(looks[name])
        return {name: found[name] for name in names}

    def _command(self, words: tuple[bytes | str | int, ...]) -> Flow[Any]:
        answer = yield Command(words)
        return answer.reply

    def _info(self, sections: tuple[str, ...]) -> Flow[dict[str, str]]:
        answer = yield Command(("INFO", *sections))
        lines = as_text(answer.reply).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _one(look: Inspection) -> Flow[Stats | BoundqError]:
    try:
        return (yield from look.stats())
    except Unavailable as error:
        if error.reason != "no_permission":
            raise
        return error
    except BoundqError as error:
        return error
