"""What `boundq worker` cannot run: it says so in a line or two, and exits before it claims anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boundq import Queue
from tests._servers import Server

MODULES = {
    "twice": "jobs = Queue({name!r})\n@jobs.task\ndef send(): ...\n@jobs.task(name='send')\ndef other(): ...\n",
    "broken": "jobs = Queue({name!r})\nimport no_such_module_anywhere\n",
    "wrong": "jobs = Queue({name!r})\n@jobs.task\ndef send(: ...\n",
    "exits": "raise SystemExit('no')\n",
    "bare": "jobs = Queue({name!r})\n",
    "notask": "jobs = Queue({name!r})\n@jobs.task\ndef send(): ...\nspare = Queue({name!r} + '.b')\n",
    "same": "a = Queue({name!r})\nb = Queue({name!r})\n@a.task\ndef one(): ...\n@b.task\ndef two(): ...\n",
    "fine": "jobs = Queue({name!r})\n@jobs.task\ndef send(): ...\nnumber = 7\n",
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(any_server: Server, queue: Queue, tmp_path: Path) -> Run:
    """Run ``boundq worker`` beside those modules."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text("from boundq import Queue\n" + text.format(name=queue.name))
    env = {**os.environ, "BOUNDQ_URL": any_server.url, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "boundq", "worker", *words]
        return subprocess.run(
            command,
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["nosuch:jobs"], "cannot import nosuch", 2),
        (["broken:jobs"], "no_such_module_anywhere", 2),
        (["wrong:jobs"], "SyntaxError", 2),
        (["twice:jobs"], "has a task of this name already", 2),
        (["bare:jobs"], "has no tasks", 2),
        (["notask"], "has no tasks", 2),
        (["same"], "each queue once", 78),
        (["fine:number"], "no queue", 2),
        (["fine:missing"], "no queue", 2),
        (["fine:"], "--threads", 2),
        (["fine:jobs", "--weights", "nosuch=2"], "nosuch", 78),
        (["fine:jobs", "--weights", "much"], "--weights", 2),
        (["fine:jobs", "--weights", "a=b"], "--weights", 2),
        (["fine:jobs", "--threads", "0"], "--threads", 2),
        (["fine:jobs", "--lease", "0.001"], "lease", 78),
        (["fine:jobs", "--lease", "nan"], "lease", 78),
        (["fine:jobs", "--grace", "-1"], "grace", 78),
        ([], "TARGET", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_worker_that_cannot_work_says_why(run: Run, queue: Queue, words: list[str], says: str, code: int) -> None:
    """Exit code 2, or 78 for a setting that makes no sense; the reason, no traceback, and nothing is claimed."""
    queue.named("send").enqueue()
    if words == ["fine:"]:
        words = ["fine:", "--threads", "none"]
    done = run(*words, "--burst")
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert queue.stats().deliveries == 0


def test_a_module_that_leaves_is_told_apart_from_a_worker_that_is_done(run: Run) -> None:
    """SystemExit while the tasks are imported: not exit code 0."""
    assert run("exits:jobs").returncode != 0


def test_all_queues_of_a_module(run: Run, queue: Queue) -> None:
    """A module, or module:, stands for all its queues."""
    queue.named("send").enqueue()
    for target in ("fine", "fine:"):
        done = run(target, "--burst")
        assert done.returncode == 0, done.stderr
        assert f"queue {queue.name}: send" in done.stderr
    assert queue.stats().acked == 1
