"""The health file and `boundq health`: well while it works or waits, not well when anything of it hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from boundq import ConfigError, Queue, Worker
from boundq._health import LEAST_AGE, look
from tests._servers import Server, wait_until
from tests.conftest import FreshServer
from tests.worker._tree import Folder, Tree, freeze
from tests.worker.conftest import NewTree

ROOT = Path(__file__).parents[2]


def health(*words: str) -> tuple[int, str]:
    """The command, as a probe runs it: exit code and line."""
    done = subprocess.run(
        [sys.executable, "-m", "boundq", "health", *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr == "" or done.returncode == 2
    return done.returncode, (done.stdout or done.stderr).strip()


def says(path: Path, what: str, **options: Any) -> bool:
    """Whether it is not well, and this is why."""
    good, why = look(str(path), **options)
    return not good and what in why


def rounds(path: Path) -> dict[str, float]:
    """When each queue's loop of worker 1 last ended a round."""
    queues = json.loads(path.read_text())["workers"]["1"]["queues"]
    return {name: loop["round"] for name, loop in queues.items()}


def well(path: Path, **options: Any) -> bool:
    return look(str(path), **options)[0]


@pytest.fixture
def path(folder: Folder) -> Path:
    return folder.path / "health"


def ready(workers: Tree, path: Path) -> None:
    workers.until(lambda: well(path, ready=True), "it is ready")


def test_a_worker_s_whole_life(queue: Queue, tree: NewTree, folder: Folder, path: Path) -> None:
    """No file before; one line for all its processes; quiet and stopping are well, not ready; no file after."""
    code, line = health(str(path))
    assert (code, line.partition(":")[0]) == (1, "unhealthy")
    assert "has not started" in line
    workers = tree("--health-file", str(path), "--processes", "2", "--grace", "60")
    ready(workers, path)
    assert health(str(path), "--ready") == (0, "ok: running: 2 workers, 1 queue")
    queue.named("gate").enqueue(1)
    workers.until(lambda: folder.keys("start") == {1: 1}, "a job runs")
    workers.signal(signal.SIGUSR1, workers.process.pid)
    workers.until(lambda: "quiet" in look(str(path))[1], "it is quiet")
    assert health(str(path)) == (0, "ok: quiet: 2 workers, 1 queue")
    code, line = health(str(path), "--ready")
    assert (code, line) == (1, "unhealthy: not ready: the worker is quiet")
    workers.process.send_signal(signal.SIGTERM)
    workers.until(lambda: "stopping" in look(str(path))[1], "it is stopping")
    assert well(path)
    assert not well(path, ready=True)
    folder.open()
    assert workers.process.wait(30) == 0
    assert not path.exists()
    assert list(path.parent.glob("health*")) == []


@pytest.mark.parametrize("which", ["worker", "supervisor"])
def test_a_frozen_process_is_not_well(queue: Queue, tree: NewTree, path: Path, which: str) -> None:
    """SIGSTOP of one of two workers, or of the supervisor: not well after --max-age, and well again after SIGCONT."""
    workers = tree("--health-file", str(path), "--processes", "2", "--lease", "60")
    ready(workers, path)
    go_on = freeze([workers.workers[0] if which == "worker" else workers.process.pid])
    why = "has said nothing for" if which == "worker" else "has not written the file for"
    workers.until(lambda: says(path, why, max_age=LEAST_AGE), "it is not well")
    code, line = health(str(path), "--max-age", "3")
    assert (code, why in line) == (1, True), line
    assert well(path, max_age=600)
    go_on()
    workers.until(lambda: well(path, max_age=LEAST_AGE), "it is well again")


def test_a_server_that_is_away_is_no_reason(
    fresh_server: FreshServer, queue_name: str, tree: NewTree, path: Path
) -> None:
    """Well while it backs off, and says so; not ready. Ready again by itself when the server is back."""
    server = fresh_server()
    workers = tree("--health-file", str(path), url=server.url, BQ_DEADLINE="1")
    ready(workers, path)
    server.kill()
    workers.until(lambda: not well(path, ready=True), "it is not ready")
    code, line = health(str(path), "--ready")
    assert (code, "the server cannot be reached" in line) == (1, True)
    later = time.monotonic() + 3
    workers.until(lambda: rounds(path)[queue_name] > later, "failed rounds count")
    assert well(path)
    assert f"the server of {queue_name} cannot be reached, backing off" in health(str(path))[1]
    server.start()
    ready(workers, path)


def test_a_worker_that_dies_again_and_again_is_not_well(tree: NewTree, folder: Folder, path: Path) -> None:
    """Its processes are replaced, but none comes to claim anything: what was last heard of the place counts."""
    workers = tree("--health-file", str(path))
    ready(workers, path)
    with (folder.path / "tasks.py").open("a") as file:
        file.write("\nraise SystemExit(3)\n")
    workers.signal(signal.SIGKILL, *workers.workers)
    workers.until(lambda: says(path, "has said nothing for", max_age=LEAST_AGE), "it is not well", 40)
    assert not well(path, ready=True)


def test_a_busy_worker_is_well(queue: Queue, tree: NewTree, folder: Folder, path: Path) -> None:
    """All slots taken for longer than --max-age: nothing is claimed, but the loop goes round."""
    workers = tree("--health-file", str(path), "--threads", "1", "--concurrency", "1")
    queue.enqueue_many([queue.named("gate").call(key) for key in range(3)])
    workers.until(lambda: folder.keys("start") == {0: 1}, "the only slot is taken")
    later = time.monotonic() + 2
    workers.until(lambda: rounds(path).get(queue.name, 0.0) > later, "rounds without a claim count")
    assert well(path, ready=True)
    folder.open()
    workers.until(lambda: queue.stats().acked == 3, "all are done")


# In this process: what hangs can be chosen.


def test_a_hanging_loop_is_not_well(
    any_server: Server, queue_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that never ends, and a handler that holds up the event loop: each is named; what goes on is not."""
    queue = Queue(queue_name, any_server.url)
    other = Queue(f"{queue_name}.b", any_server.url)
    path, go_on = tmp_path / "health", threading.Event()

    @other.task
    async def holds_up() -> None:
        go_on.wait(60)

    @queue.task
    def plain() -> None: ...

    worker = Worker([queue, other], threads=1, lease=30, health_file=path)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: well(path, ready=True), "it is ready")
        holds_up.enqueue()
        held_up = "a handler has held up the event loop for"
        wait_until(lambda: says(path, held_up, max_age=LEAST_AGE), "the event loop is held up", 30)
        go_on.set()
        wait_until(lambda: well(path, max_age=LEAST_AGE), "it turns again", 30)

        hangs = threading.Event()
        monkeypatch.setattr(queue, "_wait_and_claim", lambda *_: ([], 0.0 if hangs.wait(60) else 1.0))
        no_round = f"queue {queue_name} has ended no round for"
        wait_until(lambda: says(path, no_round, max_age=LEAST_AGE), "the claim hangs", 30)
        hangs.set()
        wait_until(lambda: well(path, max_age=LEAST_AGE), "it goes on", 30)
    finally:
        go_on.set()
        worker.stop()
        thread.join(20)
    assert not path.exists()
    queue.close()
    other.close()


def test_a_file_that_cannot_be_written(any_server: Server, tmp_path: Path, tree: NewTree, folder: Folder) -> None:
    """At the start it is an error that names it; later it is logged once and the file ages."""
    queue = Queue("q", any_server.url)
    with pytest.raises(ConfigError, match="health_file"):
        Worker([queue], health_file=tmp_path / "none" / "health")
    workers = tree("--health-file", str(tmp_path / "none" / "health"))
    assert workers.process.wait(20) == 78
    assert workers.said("No such file or directory") == 1

    (folder.path / "run").mkdir()
    path = folder.path / "run" / "health"
    workers = tree("--health-file", str(path))
    ready(workers, path)
    path.unlink()
    os.rename(path.parent, path.parent.with_name("gone"))
    workers.until(lambda: workers.said("cannot be written") == 1, "it says so")
    os.rename(path.parent.with_name("gone"), path.parent)
    workers.until(lambda: well(path, ready=True), "it is written again")


RUNNING = {"pid": 2, "heard": 0.0, "state": "running", "loop": None, "queues": {"q": {"round": 0.0, "away": None}}}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a worker's health file"),
        (b"{}", "is not a worker's health file"),
        (b"[1]", "is not a worker's health file"),
        (b"\xff\x00", "is not a worker's health file"),
        (json.dumps({"boundq": 1, "at": "x"}).encode(), "is not a worker's health file"),
        (json.dumps({"boundq": 9}).encode(), "another version of boundq (format 9)"),
        (json.dumps({"boundq": 1, "pid": 1, "at": 1e12, "state": "running", "workers": {}}).encode(), "was started"),
    ],
)
def test_files_that_say_nothing_are_not_well(tmp_path: Path, content: bytes, why: str) -> None:
    """Empty, foreign, of another version, from before a restart of the machine: exit code 1 and the reason."""
    path = tmp_path / "health"
    path.write_bytes(content)
    code, line = health(str(path))
    assert (code, why in line) == (1, True), line


def test_a_worker_that_has_not_claimed_yet_is_not_ready(tmp_path: Path) -> None:
    """Alive from its first moment, ready after its first round."""
    now = time.monotonic()
    worker = {**RUNNING, "heard": now, "queues": {"q": {"round": now, "away": None}}}
    record = {"boundq": 1, "pid": 1, "at": now, "state": "running", "workers": {"1": worker}}
    path = tmp_path / "health"
    path.write_text(json.dumps(record))
    assert well(path)
    assert "has claimed nothing yet" in look(str(path), ready=True)[1]
    path.write_text(json.dumps({**record, "workers": {"1": {**worker, "queues": {}}}}))
    assert "has not started" in look(str(path), ready=True)[1]


@pytest.mark.parametrize("words", [["--max-age", "0", "x"], ["--max-age", "soon", "x"], [], ["a", "b"], ["--no", "x"]])
def test_wrong_usage(words: list[str]) -> None:
    """Words that make no sense are told as by every other verb: exit code 2."""
    code, line = health(*words)
    assert code == 2
    assert "Usage:" in line


def test_help_and_the_list_of_verbs() -> None:
    """It is a verb like the others."""
    code, text = health("--help")
    assert (code, "Exit code 0: well" in text) == (0, True)


def test_a_probe_loads_next_to_nothing(tmp_path: Path) -> None:
    """`boundq health` answers without the command line's, the client's or the worker's modules."""
    code = (
        "import sys, runpy; sys.argv = ['boundq', 'health', sys.argv[1]]\n"
        "try: runpy.run_module('boundq', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "none")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    exit_code, *loaded = done.stdout.splitlines()[-1].split()
    assert exit_code == "1"
    assert not {"click", "rich", "redis", "msgspec", "asyncio", "logging", "boundq.errors"} & set(loaded)
    assert {name for name in loaded if name.startswith("boundq.")} == {"boundq._health"}
