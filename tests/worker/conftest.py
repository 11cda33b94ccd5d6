"""Fixtures of the worker tests: a folder with tasks, worker trees in it, the queue they work on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from boundq import Queue
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
