"""`--reload`: the worker starts anew when a source file of its tasks changes, and waits out what cannot be imported."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest

from boundq import ConfigError, Queue
from boundq.worker.reload import Reloader
from tests.worker._tree import Folder, Tree
from tests.worker.conftest import NewTree

TASKS = """
    import os
    from boundq import Queue
    from helper import WORD

    jobs = Queue(os.environ["BQ_QUEUE"])

    @jobs.task(retries=0)
    def say(key: int) -> None:
        with open("said", "a") as file:
            file.write(f"{WORD} {key}\\n")
"""


@pytest.fixture
def source(folder: Folder) -> Path:
    """The folder with a tasks module that imports another, and a third that nobody imports."""
    (folder.path / "shop.py").write_text(textwrap.dedent(TASKS))
    (folder.path / "helper.py").write_text("WORD = 'one'\n")
    (folder.path / "other.py").write_text("")
    return folder.path


def said(source: Path) -> list[str]:
    path = source / "said"
    return path.read_text().splitlines() if path.exists() else []


def does(workers: Tree, queue: Queue, source: Path, word: str, key: int) -> None:
    """A job is run, by the source as it is now."""
    queue.named("say").enqueue(key)
    workers.until(lambda: f"{word} {key}" in said(source), f"{word} {key}", 40)


def started(workers: Tree) -> int:
    return workers.said("Ctrl-C stops")


def test_a_change_starts_the_worker_anew(queue: Queue, tree: NewTree, source: Path) -> None:
    """A changed module that the tasks import counts, be it of the same length; one that nobody imports does not."""
    workers = tree("shop:jobs", "--reload", "--grace", "20")
    does(workers, queue, source, "one", 1)
    (source / "other.py").write_text("X = 1\n")
    (source / "helper.py").write_text("WORD = 'two'\n")
    workers.until(lambda: started(workers) == 2, "it has started anew", 40)
    does(workers, queue, source, "two", 2)
    assert "changed: helper.py; the worker starts anew" in workers.log
    assert "other.py" not in workers.log
    assert queue.stats().leases_expired == 0
    assert workers.stop() == 0
    assert workers.gone()


def test_what_cannot_be_imported_is_waited_out(queue: Queue, tree: NewTree, source: Path) -> None:
    """A syntax error, at the start and later: shown, and the next change that repairs it is run."""
    good = (source / "shop.py").read_text()
    (source / "shop.py").write_text("def broken(:\n")
    workers = tree("shop:jobs", "--reload")
    workers.until(lambda: workers.said("it starts again after the next change") == 1, "it waits", 40)
    assert workers.said("SyntaxError") == 1
    (source / "shop.py").write_text(good)
    does(workers, queue, source, "one", 1)
    (source / "helper.py").write_text("WORD = \n")
    workers.until(lambda: workers.said("it starts again after the next change") == 2, "it waits again", 40)
    (source / "helper.py").write_text("WORD = 'six'\n")
    does(workers, queue, source, "six", 2)
    assert workers.stop() == 0


def test_a_running_job_has_the_grace(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """A change while a job runs: it is finished first, once; then the worker starts anew."""
    workers = tree("--reload", "--grace", "60")
    queue.named("gate").enqueue(1)
    workers.until(lambda: folder.keys("start") == {1: 1}, "a job runs", 40)
    with (folder.path / "tasks.py").open("a") as file:
        file.write("# a change\n")
    workers.until(lambda: workers.said("stopping: running jobs have 60 s") == 1, "it stops", 40)
    folder.open()
    workers.until(lambda: started(workers) == 2, "it has started anew", 40)
    assert folder.keys("start") == folder.keys("done") == {1: 1}
    workers.until(lambda: queue.stats().acked == 1, "and it is settled")
    workers.process.send_signal(signal.SIGINT)
    assert workers.process.wait(30) == 0
    assert workers.gone()


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error that names the extra."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"boundq\[reload\]"):
        Reloader(["true"], grace=1)
