"""Producers, what they were told, and the threads they run in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from boundq.demo.render import Message

__all__ = ["Answer", "Arm", "Crew", "Receipts", "flood", "steady"]

Offer = Callable[[Message], "Answer"]


class Answer(NamedTuple):
    """
    What a producer was told.

    Args:
        accepted: The queue has the message.
        reason: Why not.
        retry_after: In how many seconds to try again, where the queue could say.
        certain: False: there was no answer, or one that nobody expected.
        jobs, bytes: What the queue holds now, where it says so.
    """

    accepted: bool
    reason: str = ""
    retry_after: float | None = None
    certain: bool = True
    jobs: int = 0
    bytes: int = 0


class Receipts:
    """
    What the producers of one queue were told, message by message.

    Threads may share it: each note is one append.

    Attributes:
        accepted: Ids.
        refused: Ids with the reason.
        failed: Ids with the error; whether the queue has them is not known.
        levels: Jobs and bytes held, as the receipts have them.
    """

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str]] = []
        self.levels: list[tuple[int, int]] = []

    @property
    def total(self) -> int:
        """Messages offered."""
        return len(self.accepted) + len(self.refused) + len(self.failed)

    def note(self, message_id: str, answer: Answer) -> None:
        """Keep an answer."""
        if answer.accepted:
            self.accepted.append(message_id)
            self.levels.append((answer.jobs, answer.bytes))
        elif answer.certain:
            self.refused.append((message_id, answer.reason))
        else:
            self.failed.append((message_id, answer.reason))


class Arm(Protocol):
    """One of the two ways to queue messages that are compared."""

    def offer(self, queue: str, message: Message) -> Answer:
        """Try to enqueue, once."""
        ...

    def employ(self, crew: Crew, queue: str, threads: int) -> None:
        """Let a worker with so many threads handle what the queue holds, until the crew ends."""
        ...

    def held(self, queue: str) -> tuple[int, int]:
        """Jobs and bytes that the queue holds."""
        ...

    def held_ids(self, queue: str) -> list[str]:
        """The ids of all messages that the queue holds, in whatever state; looked up one by one."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Crew:
    """
    Threads that end together. An error in one is raised by `check`, or at the end.

    Attributes:
        ending: Set when they are to end.
    """

    def __init__(self) -> None:
        self.ending = threading.Event()
        self._finished: list[threading.Event] = []
        self._halts: list[Callable[[], object]] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[], object], halt: Callable[[], object] | None = None) -> None:
        """Run ``work`` in a thread; ``halt`` ends it where it does not look at ``ending``."""
        if halt:
            self._halts.append(halt)
        finished = threading.Event()
        threading.Thread(target=self._run, args=(work, finished), daemon=True).start()
        self._finished.append(finished)

    @property
    def busy(self) -> bool:
        """Whether one of them runs still."""
        return not all(finished.is_set() for finished in self._finished)

    def check(self) -> None:
        """Raise the first error of theirs."""
        if self._errors:
            raise self._errors[0]

    def end(self) -> None:
        """Tell them to end and wait until they have, through one Ctrl-C as well: what they use is closed next."""
        self.ending.set()
        for halt in self._halts:
            halt()
        try:
            self._wait()
        except KeyboardInterrupt:
            self._wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if kind is None:
            self.check()

    def _wait(self) -> None:
        # Not by Thread.join: in Python 3.11 one that a Ctrl-C has interrupted takes the thread for ended.
        for finished in self._finished:
            finished.wait()

    def _run(self, work: Callable[[], object], finished: threading.Event) -> None:
        try:
            work()
        except BaseException as error:  # raised again in the main thread
            self._errors.append(error)
        finally:
            finished.set()


def flood(
    offer: Offer, messages: Iterator[Message], receipts: Receipts, ending: threading.Event, back_off: float
) -> None:
    """Offer message after message as fast as it goes; after a refusal wait as told, else ``back_off`` seconds."""
    for message in messages:
        if ending.is_set():
            return
        answer = offer(message)
        receipts.note(message.id, answer)
        if not answer.accepted:
            ending.wait(answer.retry_after or back_off)


def steady(offer: Offer, messages: Iterator[Message], receipts: Receipts, ending: threading.Event, rate: float) -> None:
    """Offer ``rate`` messages a second, each once. One that comes late is made up for, so that the rate holds."""
    began = time.monotonic()
    for n, message in enumerate(messages):
        if ending.wait(max(0.0, began + n / rate - time.monotonic())):
            return
        receipts.note(message.id, offer(message))
