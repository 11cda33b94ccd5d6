"""What every flow needs: the queue's keys, its declared limits, and how to attach to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from boundq import _status as status
from boundq._call import Answer, Call, Flow
from boundq._keys import PARTS, Keys
from boundq._scripts import load
from boundq._session import Session
from boundq.errors import DataError
from boundq.limits import Limits
from boundq.model import as_text

log = logging.getLogger("boundq")


class Core:
    """
    A queue's name, keys and declaration.

    Args:
        name: The queue.
        limits: As declared in code; None: only look at a queue that exists, never create one.
    """

    def __init__(self, name: str, limits: Limits | None) -> None:
        self.keys = Keys(name)
        self.name = name
        self.declared = limits
        self._all = self.keys.of(*PARTS)
        self._warned = False
        # As last heard from the server, for refusing a job before it is sent.
        self.max_job_bytes: int | None = None

    def attach(self, session: Session, *, producer: bool) -> Flow[None]:
        """
        Meet the queue: create it where the code declares it, check its keys, enlist as a producer.

        Raises:
            DataError: ``missing`` where there is no queue and none is declared; ``wrong_type``;
                ``unknown_version``.
        """
        nonce = os.urandom(4).hex().encode() if producer else b""
        args: list[bytes | str | int] = [int(self.declared is not None), nonce]
        if self.declared is not None:
            for field, value in self.declared.to_fields().items():
                args += (field, value)
        # A repeat enlists once more, which costs a place among 4,096 and harms nobody.
        answer = yield Call(load("attach"), self._all, args)
        reply = answer.reply
        if reply[0] == status.CLASH:
            key, found = as_text(reply[1]), as_text(reply[2])
            raise DataError(self.name, key, "wrong_type", f"it is a {found}; somebody else uses this name")
        self.check(answer)
        session.set_clock(int(reply[1]))
        if producer:
            session.enlist(int(reply[2]), nonce)
        stored = Limits.from_fields(pairs(reply[4:]))
        assert isinstance(stored.max_job_bytes, int)
        self.max_job_bytes = stored.max_job_bytes
        self._compare(stored, created=bool(reply[3]))

    def check(self, answer: Answer) -> list[Any]:
        """The reply, unless it says that there is no such queue, or that it is none of ours."""
        code = answer.reply[0]
        if code == status.UNDECLARED:
            detail = "no such queue on this server; enqueueing, or a worker that declares it, creates it"
            raise DataError(self.name, "queue", "missing", detail)
        if code == status.BAD_FORMAT:
            detail = "the queue was written by a newer boundq; update this one"
            raise DataError(self.name, "queue", "unknown_version", detail)
        reply: list[Any] = answer.reply
        return reply

    def ask(
        self, script: str, parts: Sequence[str], args: Sequence[bytes | str | int], *, repeat: bool = True
    ) -> Flow[list[Any]]:
        """One call to a queue that exists, or that the code declares and that is created now."""
        call = Call(load(script), self.keys.of(*parts), args, repeat)
        answer = yield call
        if answer.reply[0] == status.UNDECLARED and self.declared is not None:
            yield from self.attach(Session(), producer=False)
            answer = yield call
        return self.check(answer)

    def _compare(self, stored: Limits, *, created: bool) -> None:
        declared = self.declared
        if created or declared is None or declared == stored or self._warned:
            return
        self._warned = True
        differences = ", ".join(
            f"{name} {getattr(declared, name)} in code, {getattr(stored, name)} on the server"
            for name in declared.to_fields()
            if getattr(declared, name) != getattr(stored, name)
        )
        log.warning(
            "queue %s: the limits in code differ from the server's, which stand: %s "
            "(configure() or `boundq limits set` changes them for everybody)",
            self.name,
            differences,
        )


def pairs(flat: list[Any]) -> dict[str, str]:
    """A flat reply of fields and values as a dict."""
    texts = [as_text(value) for value in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
