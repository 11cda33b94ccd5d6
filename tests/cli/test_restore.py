"""``boundq restore`` through the real program: limits, rates, damaged files, and the end by SIGKILL."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import pytest

from boundq import Limits, Queue
from tests._servers import Server
from tests.cli._program import Program

FULL = bool(os.environ.get("BOUNDQ_ARCHIVE_FULL"))
JOBS, KILLS = (200_000, 20) if FULL else (20_000, 3)


@pytest.fixture
def queue(any_server: Server, queue_name: str) -> Queue:
    """A queue with room."""
    return Queue(queue_name, any_server.url)


def drained(queue: Queue) -> list[bytes]:
    """Do what there is."""
    found: list[bytes] = []
    while leases := queue.claim(500):
        found += [lease.payload for lease in leases]
        queue.settle(acks=leases)
    return found


def test_full_queue_exits_75_and_says_how_to_go_on(program: Program, queue: Queue) -> None:
    """So many are left; the same command goes on; --until-full takes it for success; --wait waits."""
    queue.enqueue_many([b"%d" % number for number in range(12)])
    queue.purge(to=program.folder / "jobs")
    queue.configure(Limits(max_jobs=5))
    done = program("restore", "jobs", "--yes")
    assert done.returncode == 75
    assert "5 jobs put back" in done.stdout
    assert "7 are left: the same command goes on" in done.stderr
    assert "5 of 5 jobs" in done.stderr
    assert len(drained(queue)) == 5
    done = program("restore", "jobs", "--until-fill", "60%", "--yes", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["restored"], said["before"], said["left"]) == (0, 3, 5, 4)
    assert len(drained(queue)) == 3
    queue.configure(Limits(max_jobs=3))
    assert program("restore", "jobs", "--until-full", "--yes").returncode == 0
    with program.start("restore", "jobs", "--wait", "100s", "--yes") as process:
        found: list[bytes] = []
        while process.poll() is None:
            found += drained(queue)
        found += drained(queue)
    assert process.returncode == 0
    assert len(found) == 4
    assert "12 were back already, 0 are left" in program("restore", "jobs", "--yes").stdout


def test_sealed_queue_exits_75(program: Program, queue: Queue) -> None:
    """The reason is said; nothing is put back."""
    queue.enqueue_bytes(b"x")
    queue.purge(to=program.folder / "jobs")
    queue.seal("me")
    done = program("restore", "jobs", "--yes")
    assert done.returncode == 75
    assert "sealed by me" in done.stderr
    queue.unseal()
    assert program("restore", "jobs", "--yes").returncode == 0
    assert drained(queue) == [b"x"]


@pytest.mark.parametrize("name", ["jobs.ndjson", "jobs.zst"])
def test_killed_at_random_moments(program: Program, queue: Queue, name: str) -> None:
    """
    SIGKILL again and again, while workers do what is back already: each job is done once. BOUNDQ_ARCHIVE_FULL=1:
    200,000 jobs, 20 kills.
    """
    queue.configure(Limits(max_jobs=JOBS, max_bytes="1 GiB"))
    payloads = [b"%d" % number for number in range(JOBS)]
    queue.enqueue_many(payloads)
    assert queue.purge(to=program.folder / name) == JOBS
    done: list[bytes] = []
    admitted = queue.stats().admitted

    def back(count: int) -> Callable[[], bool]:
        def reached() -> bool:
            leases = queue.claim(500)
            done.extend(lease.payload for lease in leases)
            assert queue.settle(acks=leases) == []
            return queue.stats().admitted - admitted >= count

        return reached

    words = ("restore", name, "--yes")
    killed = 0
    for moment in sorted(random.sample(range(JOBS * 2 // 3), KILLS)):
        killed += program.killed_when(back(moment), *words)
    assert killed
    last = program(*words)
    assert last.returncode == 0, last.stderr
    done += drained(queue)
    assert sorted(done, key=int) == payloads
    assert "0 jobs put back" in program(*words).stdout


def test_damaged_lines_are_named_and_the_rest_is_back(program: Program, queue: Queue) -> None:
    """Exit code 65, a line for each; and the same again changes nothing."""
    queue.enqueue_many([b"%d" % number for number in range(6)])
    file = program.folder / "jobs"
    queue.purge(to=file)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"normal", b"urgent")
    file.write_bytes(b"".join(lines))
    for restored in (5, 0):
        done = program("restore", "jobs", "--yes")
        assert done.returncode == 65
        assert f"{restored} jobs put back" in done.stdout
        assert "line 4 (byte" in done.stderr
        assert "checksum" in done.stderr
    assert drained(queue) == [b"0", b"2", b"3", b"4", b"5"]


def test_files_that_are_none(program: Program, queue: Queue) -> None:
    """Empty, foreign, not there, a folder: one line that says what it is, and no traceback."""
    queue.enqueue_bytes(b"x")
    (program.folder / "empty").touch()
    (program.folder / "text").write_text("dear diary\n")
    (program.folder / "line").write_bytes(b"\x00" * 3_000_000)
    for name, code, says in (
        ("empty", 65, "it is empty"),
        ("text", 65, "no file of a purge"),
        ("line", 65, "no file of a purge"),
        ("nowhere", 2, "does not exist"),
        (".", 2, "is a directory"),
    ):
        done = program("restore", name, "--yes")
        assert (done.returncode, done.stdout) == (code, "")
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_another_queue_and_a_new_one(program: Program, queue: Queue, queue_name: str) -> None:
    """--queue puts them elsewhere; a queue is made only when it is asked for."""
    queue.enqueue_many([b"a", b"b"])
    queue.purge(to=program.folder / "jobs")
    other = f"{queue_name}.other"
    missing = program("restore", "jobs", "--queue", other, "--yes")
    assert missing.returncode == 65
    assert "no such queue" in missing.stderr
    assert program("restore", "jobs", "--queue", other, "--create", "--yes").returncode == 0
    assert drained(Queue(other, queue._target)) == [b"a", b"b"]
    elsewhere = program("restore", "jobs", "--yes")
    assert elsewhere.returncode == 78
    assert f"restored into queue '{other}'" in elsewhere.stderr


def test_dead_letters_and_dry_run(program: Program, queue: Queue) -> None:
    """Dead letters are left in the file, which is said; --state dead puts them back; --dry-run only says."""
    queue.enqueue_bytes(b"x")
    queue.claim()[0].bury("why")
    queue.purge("dead", to=program.folder / "jobs")
    dry = json.loads(program("restore", "jobs", "--state", "dead", "--dry-run", "--json").stdout)
    assert (dry["left"], dry["restored"], dry["dry_run"]) == (1, 0, True)
    assert "1 dead letters stay in the file" in program("restore", "jobs", "--yes").stdout
    assert "1 jobs put back" in program("restore", "jobs", "--state", "dead", "--yes").stdout
    assert drained(queue) == [b"x"]


def test_wrong_usage(program: Program, queue: Queue) -> None:
    """Exit code 2, and what would be right."""
    queue.enqueue_bytes(b"x")
    queue.purge(to=program.folder / "jobs")
    for words, says in (
        ((), "--yes"),
        (("--rate", "fast", "--yes"), "500/s"),
        (("--until-fill", "2", "--yes"), "80%"),
        (("--wait", "1m", "--until-full", "--yes"), "not both"),
    ):
        done = program("restore", "jobs", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
    assert queue.stats().jobs == 0


def test_journal_that_cannot_be_written(program: Program, queue: Queue) -> None:
    """One line, exit code 74, nothing is put back."""
    queue.enqueue_bytes(b"x")
    queue.purge(to=program.folder / "jobs")
    (program.folder / "jobs.restored").mkdir()
    done = program("restore", "jobs", "--yes")
    assert done.returncode == 74
    assert done.stderr.count("\n") == 1
    assert queue.stats().jobs == 0


def test_examples_of_the_help_run(program: Program, any_server: Server) -> None:
    """Each example of --help works as it stands."""
    emails = Queue("emails", any_server.url)
    try:
        emails.enqueue_many([b"a", b"b"])
        emails.claim()[0].bury("why")
        emails.purge(to=program.folder / "emails.ndjson.zst")
        emails.purge("dead", to=program.folder / "dead.ndjson")
        text = program("restore", "--help").stdout
        examples = [line.split()[1:] for line in text.splitlines() if "  boundq " in line]
        assert len(examples) == 4
        for words in examples:
            done = program(*words, *(() if "--yes" in words else ("--yes",)))
            assert done.returncode == 0, done.stderr
        assert sorted(drained(emails)) == [b"a", b"b"]
    finally:
        any_server.cli("DEL", *any_server.cli("KEYS", "boundq:{emails}*"))
