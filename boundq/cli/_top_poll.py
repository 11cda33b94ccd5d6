"""What `boundq top` asks its server, in threads of its own: keys are heard while a server is mute."""

from __future__ import annotations

import getpass
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from boundq import Server
from boundq.cli._watch import WALK_SECONDS, WALK_SHARE, Seen, Watch
from boundq.errors import BoundqError

Switch = Literal["pause", "resume", "seal", "unseal"]


class Lost(NamedTuple):
    """A look that was not answered."""

    text: str


class Done(NamedTuple):
    """What became of an operator's wish."""

    text: str
    failed: bool


class Found(NamedTuple):
    """So many queues have been found, and whether that is all."""

    names: int
    all: bool


class Broken(NamedTuple):
    """A mistake of ours in one of the threads: the program is to end with it."""

    error: Exception


News = Seen | Lost | Done | Found | Broken


class Poller:
    """
    Asks, and reports.

    Each refresh is the same commands, however many jobs the queues hold: one for each queue and one for the server's
    memory. Which queues there are is found out beside that, seldom.

    Args:
        watch: What to look at; this thread's alone from now on.
        interval: Seconds between looks.
        wake: Called after each piece of news.
    """

    def __init__(self, watch: Watch, interval: float, wake: Callable[[], None]) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._watch = watch
        self._interval = interval
        self._wake = wake
        self._names = watch.named
        self._walk_now = threading.Event()
        self._wishes: queue.SimpleQueue[tuple[str, Switch] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin. The threads are daemons: one that waits for a mute server does not keep the program from ending."""
        for work in (self._look,) if self._names else (self._look, self._walk):
            threading.Thread(target=self._guarded, args=(work,), name=f"boundq{work.__name__}", daemon=True).start()

    def now(self) -> None:
        """Look at once, for other queues too."""
        self._wishes.put(None)
        self._walk_now.set()

    def switch(self, name: str, switch: Switch) -> None:
        """Pause, resume, seal or unseal a queue."""
        self._wishes.put((name, switch))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # not to be lost with its thread
            self._tell(Broken(error))

    def _look(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                news: News = self._watch.fetch(self._names)
            except BoundqError as error:
                news = Lost(str(error))
            self._tell(news)
            try:
                wish = self._wishes.get(timeout=max(begun + self._interval - time.monotonic(), 0.0))
            except queue.Empty:
                continue
            if wish is not None:
                self._tell(self._do(*wish))

    def _do(self, name: str, switch: Switch) -> Done:
        target = self._watch.server.queue(name)
        by = f"{_who()}, in boundq top"
        try:
            if switch in ("pause", "seal"):
                changed = target.pause(by) if switch == "pause" else target.seal(by)
            else:
                changed = target.resume(by) if switch == "resume" else target.unseal(by)
        except BoundqError as error:
            return Done(f"{switch} {name}: {error}", failed=True)
        return Done(f"{switch} {name}: {'done' if changed else 'it was so already'}", failed=False)

    def _walk(self) -> None:
        while True:
            self._walk_now.clear()
            begun, found = time.monotonic(), set[str]()
            try:
                for names in self._watch.server.walk():
                    found.update(names)
                    if not found.issubset(self._names):
                        self._names = sorted(found.union(self._names))
                        self._tell(Found(len(self._names), all=False))
                        self._wishes.put(None)
            except BoundqError:
                time.sleep(self._interval)  # the looks say that there is no answer
                continue
            self._names = sorted(found)
            self._tell(Found(len(found), all=True))
            self._walk_now.wait(max(WALK_SECONDS, (time.monotonic() - begun) * WALK_SHARE))

    def _tell(self, news: News) -> None:
        self.news.put(news)
        self._wake()


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user without a name
        return f"uid {os.getuid()}@{socket.gethostname()}"


def server_for(url: str | None, interval: float) -> Server:
    """A server that has an interval's time for an answer, one second at least."""
    return Server(url, deadline=min(max(interval, 1.0), 5.0))
