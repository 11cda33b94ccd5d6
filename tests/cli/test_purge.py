"""``boundq purge`` through the real program: selections, questions, a full disk, a full server, and SIGKILL."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boundq import Limits, Queue
from boundq._archive import lines
from tests._servers import Server, wait_until
from tests.cli._program import Program
from tests.conftest import FreshServer

FULL = bool(os.environ.get("BOUNDQ_ARCHIVE_FULL"))
JOBS, KILLS = (200_000, 20) if FULL else (20_000, 3)


@pytest.fixture
def queue(any_server: Server, queue_name: str) -> Queue:
    """A queue with room."""
    return Queue(queue_name, any_server.url)


def ids(file: Path) -> list[str]:
    """The ids that stand in a plain file, read without the library."""
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    return [entry["id"] for entry in entries if "id" in entry]


def test_filters_take_what_they_say(program: Program, queue: Queue) -> None:
    """By task, priority, state, age and number; the rest stays; --dry-run counts the same and changes nothing."""
    for task in ("send", "render"):
        for priority in ("low", "normal"):
            for delay in (0, 600):
                queue.named(task, priority=priority, delay=delay).enqueue(1)
    cases = [
        (("--older-than", "1h"), 0),
        (("--task", "send", "--priority", "low", "--state", "scheduled"), 1),
        (("--task", "send", "--limit", "2"), 2),
        (("--state", "active"), 0),
        (("--priority", "normal", "--state", "ready"), 1),
        (("--older-than", "0s"), 4),
    ]
    left = 8
    for place, (filters, count) in enumerate(cases):
        dry = json.loads(program("purge", queue.name, "--dry-run", "--json", *filters).stdout)
        assert dry["matching"] == count, filters
        assert queue.stats().jobs == left
        done = program("purge", queue.name, "--to", f"{place}.ndjson", "--yes", "--json", *filters)
        assert (done.returncode, done.stderr) == (0, "")
        said = json.loads(done.stdout)
        assert (said["purged"], said["file"]) == (count, f"{place}.ndjson")
        assert said["file_bytes"] == (program.folder / f"{place}.ndjson").stat().st_size
        assert len(ids(program.folder / f"{place}.ndjson")) == count
        left -= count
    assert queue.stats().jobs == left == 0


def test_nothing_is_deleted_unasked(program: Program, queue: Queue) -> None:
    """Without a terminal and --yes, without a file and --discard, and with both: exit code 2, nothing is changed."""
    queue.enqueue_bytes(b"x")
    for words, says in (
        (("--to", "f"), "--yes"),
        ((), "--discard"),
        (("--to", "f", "--discard", "--yes"), "--discard"),
        (("--to", "f", "--older-than", "soon", "--yes"), "is not a time"),
        (("--to", "f", "--limit", "0", "--yes"), "limit"),
    ):
        done = program("purge", queue.name, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
    assert queue.stats().jobs == 1
    assert list(program.folder.iterdir()) == []
    assert program("purge", queue.name, "--discard", "--yes").stdout == "1 jobs deleted\n"
    assert queue.stats().jobs == 0


def test_terminal_is_asked_and_shown_a_bar(program: Program, queue: Queue, any_server: Server) -> None:
    """On a terminal it asks, and takes no for an answer; then a bar with a rate runs."""
    queue.enqueue_many([b"x"] * 1000)
    for answer, left, says in ((b"n\n", 1000, b"Aborted"), (b"y\n", 0, b"1000/1000")):
        mine, its = pty.openpty()
        words = [sys.executable, "-m", "boundq", "purge", queue.name, "--to", "jobs"]
        environment = {**os.environ, "BOUNDQ_URL": any_server.url, "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(words, stdin=its, stdout=its, stderr=its, cwd=program.folder, env=environment):
            os.close(its)
            shown = bytearray()

            def read(shown: bytearray = shown, mine: int = mine) -> bool:
                try:
                    shown += os.read(mine, 4096)
                except OSError:  # the other end is closed
                    return True
                return False

            while b"[y/N]" not in shown:
                assert not read(), shown
            os.write(mine, answer)
            while not read():
                pass
        os.close(mine)
        assert says in shown, shown
        assert queue.stats().jobs == left


def test_active_jobs_only_when_asked_for(program: Program, queue: Queue) -> None:
    """Their leases are lost then; ``all`` is every state."""
    queue.enqueue_many([b"a", b"b", b"c"])
    dead, active = queue.claim(2)
    dead.bury("why")
    assert "1 jobs moved" in program("purge", queue.name, "--to", "a", "--yes").stdout
    assert queue.stats().active == 1
    assert "2 jobs moved" in program("purge", queue.name, "--to", "b", "--state", "all", "--yes").stdout
    assert queue.settle(acks=[active]) == [active]
    assert (queue.stats().jobs, queue.stats().dead) == (0, 0)


@pytest.mark.parametrize("name", ["jobs.ndjson", "jobs.zst"])
def test_killed_at_random_moments(program: Program, queue: Queue, name: str) -> None:
    """
    SIGKILL again and again, while a worker goes on working: done, in the file, and left add up to what there was, each
    job once. BOUNDQ_ARCHIVE_FULL=1: 200,000 jobs, 20 kills.
    """
    queue.configure(Limits(max_jobs=JOBS, max_bytes="1 GiB"))
    payloads = [b"%d" % number for number in range(JOBS)]
    assert all(result.ok for result in queue.enqueue_many(payloads))
    done: list[bytes] = []

    def gone(count: int) -> Callable[[], bool]:
        def reached() -> bool:
            leases = queue.claim(5)
            done.extend(lease.payload for lease in leases)
            assert queue.settle(acks=leases) == []
            return queue.stats().purged >= count

        return reached

    words = ("purge", queue.name, "--to", name, "--yes")
    killed = 0
    for moment in sorted(random.sample(range(JOBS * 2 // 3), KILLS)):
        killed += program.killed_when(gone(moment), *words)
    assert killed
    last = program(*words)
    assert last.returncode == 0 or (killed < KILLS and "finished" in last.stderr), last.stderr
    assert queue.stats().jobs == 0
    said = queue.restore(program.folder / name)
    assert (said.left, said.damaged, said.unsure) == (0, [], 0)
    while leases := queue.claim(500):
        done += [lease.payload for lease in leases]
        queue.settle(acks=leases)
    assert sorted(done, key=int) == payloads
    again = program(*words)
    assert again.returncode == 78
    assert "finished" in again.stderr


def test_two_into_one_file_are_refused(program: Program, queue: Queue) -> None:
    """The second says why, and changes nothing."""
    queue.enqueue_bytes(b"x")
    with lines.locked(program.folder / "jobs"):
        done = program("purge", queue.name, "--to", "jobs", "--yes")
    assert done.returncode == 78
    assert "another purge or restore is working on it" in done.stderr
    assert queue.stats().jobs == 1


def test_file_of_another_purge_is_not_touched(program: Program, queue: Queue) -> None:
    """One that is finished, of other bytes, or in no folder: one line, and an exit code that tells them apart."""
    queue.enqueue_bytes(b"x")
    (program.folder / "notes.txt").write_text("dear diary\n")
    for path, code, says in (
        ("notes.txt", 65, "no file of a purge"),
        ("nowhere/jobs", 74, "No such file"),
    ):
        done = program("purge", queue.name, "--to", path, "--yes")
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
    assert (program.folder / "notes.txt").read_text() == "dear diary\n"
    assert queue.stats().jobs == 1
    assert program("purge", "nosuchqueue", "--to", "jobs", "--yes").returncode == 65
    assert not (program.folder / "jobs").exists()


@pytest.mark.parametrize("name", ["jobs.ndjson", "jobs.zst"])
def test_full_disk_loses_nothing(program: Program, queue: Queue, any_server: Server, name: str) -> None:
    """The file may not grow: one line, exit code 74; with room, the same command goes on; all jobs come back."""
    payloads = [b"%d" % number * 20 for number in range(2000)]
    queue.enqueue_many(payloads)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    words = ("purge", queue.name, "--to", name, "--yes")
    full = subprocess.run(
        [sys.executable, "-m", "boundq", *words],
        env={**os.environ, "BOUNDQ_URL": any_server.url, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=program.folder,
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert full.returncode == 74, full.stderr
    assert "File too large" in full.stderr
    assert full.stderr.count("\n") == 1
    assert 0 < queue.stats().jobs <= 2000
    assert program(*words).returncode == 0
    assert queue.stats().jobs == 0
    assert queue.restore(program.folder / name).restored == 2000
    assert [job.payload for job in queue.peek(n=100).jobs] == payloads[:100]


def test_at_maxmemory(tmp_path: Path, fresh_server: FreshServer, queue_name: str) -> None:
    """On a server that takes no more: count, purge, look; and back, when there is memory."""
    server = fresh_server(maxmemory="20mb", maxmemory_policy="noeviction")
    queue = Queue(queue_name, server.url, limits=Limits(max_bytes="100 MiB"))
    jobs = 0
    while (results := queue.enqueue_many([b"x" * 500] * 500)) and all(result.ok for result in results):
        jobs += len(results)
    jobs += sum(result.ok for result in results)
    used = int(server.info("memory")["used_memory"])
    server.cli("CONFIG", "SET", "maxmemory", used // 2)
    program = Program(server.url, tmp_path)
    assert json.loads(program("purge", queue.name, "--dry-run", "--json").stdout)["matching"] == jobs
    done = program("purge", queue.name, "--to", "jobs.zst", "--yes")
    assert done.returncode == 0, done.stderr
    assert queue.stats().jobs == 0
    server.cli("CONFIG", "SET", "maxmemory", "30mb")
    assert program("restore", "jobs.zst", "--yes").returncode == 0
    assert queue.stats().jobs == jobs


def test_hostile_names_cannot_steer_the_terminal(program: Program, queue: Queue) -> None:
    """A file's name is other people's text."""
    queue.enqueue_bytes(b"x")
    name = "\x1b]0;x\x07.ndjson"
    for words in (("purge", queue.name, "--to", name, "--yes"), ("restore", name, "--yes"), ("restore", name, "--yes")):
        done = program(*words)
        assert done.returncode == 0, done.stderr
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07"}


def test_ctrl_c_says_that_nothing_is_lost(program: Program, queue: Queue) -> None:
    """Exit code 130, and the same command goes on."""
    queue.enqueue_many([b"%d" % number for number in range(5000)])
    words = ("purge", queue.name, "--to", "jobs", "--yes")
    with program.start(*words) as process:
        wait_until(lambda: queue.stats().purged > 0, "the purge has begun", 60)
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, "nothing is lost" in errors) in ((130, True), (0, False))
    program(*words)
    assert queue.stats().jobs == 0
    assert queue.restore(program.folder / "jobs").restored == 5000


def test_examples_of_the_help_run(program: Program, any_server: Server) -> None:
    """Each example of --help works as it stands."""
    emails = Queue("emails", any_server.url)
    try:
        emails.named("send").enqueue(1)
        examples = [line.split()[1:] for line in program("purge", "--help").stdout.splitlines() if "  boundq " in line]
        assert len(examples) == 4
        for words in examples:
            done = program(*words, "--yes")
            assert done.returncode == 0, done.stderr
    finally:
        any_server.cli("DEL", *any_server.cli("KEYS", "boundq:{emails}*"))
