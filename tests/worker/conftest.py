"""Fixtures of the worker tests: a folder with tasks, worker trees in it, the queue they work on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from boundq import Queue, Worker
from tests._servers import Server
from tests.worker._tree import Folder, Tree


class NewTree(Protocol):
    def __call__(self, *words: str, url: str | None = None, **environment: str) -> Tree: ...


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with the tasks of ``_tasks.py``."""
    return Folder(tmp_path)


@pytest.fixture
def queue(any_server: Server, queue_name: str) -> Iterator[Queue]:
    """The queue of the test, on a shared server."""
    queue = Queue(queue_name, any_server.url)
    yield queue
    queue.close()


@pytest.fixture
def tree(any_server: Server, queue_name: str, folder: Folder) -> Iterator[NewTree]:
    """Start workers of the tasks: ``tree("--lease", "1")``; all of them are killed in the end."""
    if not Path("/proc/self/environ").exists():
        pytest.skip(f"finding all processes of a tree takes /proc, which {sys.platform} has not")
    trees = []

    def start(*words: str, url: str | None = None, **environment: str) -> Tree:
        if not any(":" in word or word == "tasks" for word in words):
            words = ("tasks:jobs", *words)
        trees.append(Tree(folder, url or any_server.url, queue_name, *words, **environment))
        return trees[-1]

    yield start
    for one in trees:
        one.kill()


class Running:
    """A worker in a thread."""

    def __init__(self, *queues: Queue, **options: Any) -> None:
        self.worker = Worker(list(queues), **{"threads": 4, "lease": 2.0, "grace": 5.0, **options})
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.worker.run()

    def stop(self, timeout: float = 10.0) -> int | None:
        """Tell it to stop; its exit code when it has."""
        self.worker.stop()
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "it does not stop"
        return self.code


Work = Callable[..., Running]


@pytest.fixture
def work() -> Iterator[Work]:
    """Run a worker on these queues; stopped in the end."""
    started: list[Running] = []

    def start(*queues: Queue, **options: Any) -> Running:
        started.append(Running(*queues, **options))
        return started[-1]

    yield start
    for one in started:
        one.worker.stop()
    for one in started:
        one.thread.join(10)
