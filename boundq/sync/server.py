"""Server: what there is on one, for those who look after it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, TypeVar

from boundq._call import Command, Flow
from boundq._core.queue import DEADLINE_SECONDS
from boundq._sizes import seconds
from boundq._target import target_of
from boundq.model import as_text
from boundq.sync._link import Hub
from boundq.sync.queue import Queue

__all__ = ["Server"]

R = TypeVar("R")
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
        """The names of all queues, sorted. Walks through the server's keys, in bounded steps."""
        return sorted(self._run(self._names()))

    def queue(self, name: str) -> Queue:
        """A queue that exists; using it does not create one."""
        return Queue(name, self._where, create=False, deadline=self._deadline)

    def info(self, *sections: str) -> dict[str, str]:
        """Fields of the server's INFO; empty where it is forbidden."""
        from boundq.errors import Unavailable

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

    def _names(self) -> Flow[set[str]]:
        names: set[str] = set()
        cursor = "0"
        while True:
            answer = yield Command(("SCAN", cursor, "MATCH", "boundq:{*}:state", "COUNT", 1000, "TYPE", "hash"))
            cursor = as_text(answer.reply[0])
            for key in answer.reply[1]:
                if match := _STATE.match(as_text(key)):
                    names.add(match[1])
            if cursor == "0":
                return names

    def _command(self, words: tuple[bytes | str | int, ...]) -> Flow[Any]:
        answer = yield Command(words)
        return answer.reply

    def _info(self, sections: tuple[str, ...]) -> Flow[dict[str, str]]:
        answer = yield Command(("INFO", *sections))
        lines = as_text(answer.reply).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
