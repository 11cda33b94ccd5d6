"""The verbs for the person on call, through the real program: what they say, what they do, and their exit codes."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boundq import Limits, Queue
from boundq.cli import VERBS
from tests._servers import Server, wait_until
from tests.cli._program import Program
from tests.cli.conftest import Run
from tests.conftest import FreshServer


@pytest.fixture
def queue(any_server: Server, queue_name: str) -> Queue:
    """A queue of a thousand jobs at most."""
    return Queue(queue_name, any_server.url, max_jobs=1000)


def bury(queue: Queue, count: int, task: str = "send", error: str = "Traceback\nTimeoutError: smtp") -> list[str]:
    """Dead letters, and their ids."""
    ids = [queue.named(task, priority="critical").enqueue(number, to="ada").id for number in range(count)]
    assert queue.settle(buries=[(lease, "retries", error) for lease in queue.claim(count)]) == []
    return ids


# ---------------------------------------------------------------- looking


def test_peek_pages_through_everything_once(run: Run, queue: Queue) -> None:
    """The cursor of each page, given to --after, leads to the end; text and JSON show the same jobs."""
    ids = [queue.named("send").enqueue(n).id for n in range(5)]
    seen: list[str] = []
    after: list[str] = []
    while True:
        page = json.loads(run("peek", queue.name, "--limit", "2", "--json", *after).stdout)
        seen += [job["id"] for job in page["jobs"]]
        if page["after"] is None:
            break
        after = ["--after", page["after"]]
    assert seen == ids
    done = run("peek", queue.name, "--limit", "2")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["id", *ids[:2]]
    assert f"--after {json.loads(run('peek', queue.name, '--limit', '2', '--json').stdout)['after']}" in done.stderr
    assert "send(0)" in done.stdout


def test_peek_filters(run: Run, queue: Queue) -> None:
    """By state, priority and task."""
    queue.named("send", priority="high").enqueue(1)
    queue.named("send", priority="low").enqueue(2)
    queue.named("pay").enqueue(3)
    queue.named("send", delay=60).enqueue(4)

    def calls(*words: str) -> list[str]:
        return [job["call"] for job in json.loads(run("peek", queue.name, "--json", *words).stdout)["jobs"]]

    assert calls() == ["send(1)", "pay(3)", "send(2)"]
    assert calls("--task", "send") == ["send(1)", "send(2)"]
    assert calls("--priority", "low") == ["send(2)"]
    assert calls("--state", "scheduled") == ["send(4)"]
    queue.claim(2)
    assert calls("--state", "active", "--priority", "high") == ["send(1)"]
    assert calls("--state", "active", "--task", "pay") == ["pay(3)"]
    assert "no dead jobs" in run("peek", queue.name, "--state", "dead").stdout


def test_show_has_all_fields(run: Run, queue: Queue) -> None:
    """Arguments as a call, times with ages, counts, headers, the error text."""
    queue.named("send", headers={"tenant": "blue"}, unique="k", expires=3600).enqueue(42, to="ada@example.org")
    (lease,) = queue.claim()
    lease.bury("retries", 'Traceback\n  File "x"\nTimeoutError: smtp')
    text = run("show", queue.name, lease.id).stdout
    for part in (
        f"{lease.id}, dead, priority normal",
        'send(42, to="ada@example.org")',
        "tenant: blue",
        "TimeoutError: smtp",
        "1 deliveries: 1 failures, 0 leases expired",
        " UTC (",
        "unique key",
    ):
        assert part in text
    assert run("dead", "show", queue.name, lease.id).stdout.split("admitted")[0] == text.split("admitted")[0]
    job = json.loads(run("show", queue.name, lease.id, "--json").stdout)
    assert (job["args"], job["kwargs"]) == ([42], {"to": "ada@example.org"})
    assert json.loads(job["payload"]) == [[42], {"to": "ada@example.org"}]


def test_show_raw_gives_the_bytes_into_a_pipe_and_not_to_a_terminal(
    any_server: Server, queue: Queue, tmp_path: Path
) -> None:
    """The very bytes; where they could steer a terminal: exit code 2."""
    payload = bytes(range(256)) * 3
    job = queue.enqueue_bytes(payload).id
    words = [sys.executable, "-m", "boundq", "show", queue.name, job, "--raw"]
    env = {**os.environ, "BOUNDQ_URL": any_server.url}
    done = subprocess.run(words, env=env, capture_output=True, timeout=60, check=True)
    assert done.stdout == payload
    ours, theirs = pty.openpty()
    refused = subprocess.run(words, env=env, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(theirs)
    os.close(ours)
    assert refused.returncode == 2
    assert b"pipe" in refused.stderr


def test_jobs_that_are_not_there(run: Run, queue: Queue) -> None:
    """show, position, cancel and the dead verbs exit with 1, and say so; a live job is no dead letter."""
    live = queue.enqueue_bytes(b"x").id
    for words in (
        ("show", queue.name, "8888"),
        ("show", queue.name, "no\x1bid"),
        ("position", queue.name, "8888"),
        ("cancel", queue.name, "8888", "--yes"),
        ("dead", "show", queue.name, live),
        ("dead", "retry", queue.name, live),
        ("dead", "retry", queue.name, live, "--dry-run"),
        ("dead", "drop", queue.name, live, "--yes"),
    ):
        done = run(*words)
        assert done.returncode == 1, words
        assert done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr
    assert queue.stats().jobs == 1


def test_position(run: Run, queue: Queue) -> None:
    """How many come before it; another state is said."""
    ids = [queue.enqueue_bytes(b"x").id for _ in range(3)]
    assert "2 before it" in run("position", queue.name, ids[2]).stdout
    assert json.loads(run("position", queue.name, ids[1], "--json").stdout)["ahead"] == 1
    queue.claim()
    assert "is active" in run("position", queue.name, ids[0]).stdout


# ---------------------------------------------------------------- changing


def test_cancel_says_which_existed(run: Run, queue: Queue) -> None:
    """Exit code 0 as long as one was there; --dry-run changes nothing; without a terminal it wants --yes."""
    ids = [queue.enqueue_bytes(b"x").id for _ in range(2)]
    assert "would be cancelled" in run("cancel", queue.name, *ids, "--dry-run").stdout
    refused = run("cancel", queue.name, *ids)
    assert (refused.returncode, queue.stats().jobs) == (2, 2)
    assert "--yes" in refused.stderr
    done = run("cancel", queue.name, *ids, "9999", "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"job {ids[0]} cancelled", f"job {ids[1]} cancelled"]
    assert "9999" in done.stderr
    assert (queue.stats().jobs, queue.stats().cancelled) == (0, 2)


@pytest.mark.parametrize(("answer", "left", "code"), [("y", 0, 0), ("n", 1, 1)])
def test_cancel_asks_at_a_terminal(any_server: Server, queue: Queue, answer: str, left: int, code: int) -> None:
    """The question is put, and the answer heeded."""
    job = queue.enqueue_bytes(b"x").id
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "boundq", "cancel", queue.name, job],
        env={**os.environ, "BOUNDQ_URL": any_server.url},
        stdin=theirs,
        capture_output=True,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == code
    assert f"Cancel 1 job of {queue.name}?".encode() in done.stderr
    assert queue.stats().jobs == left


def test_dead_ls_filters(run: Run, queue: Queue) -> None:
    """By task, by a text in reason or error, by age."""
    bury(queue, 2)
    bury(queue, 1, "pay", "ValueError: no such customer")

    def count(*words: str) -> int:
        return len(json.loads(run("dead", "ls", queue.name, "--json", *words).stdout)["jobs"])

    assert count() == 3
    assert count("--task", "pay") == 1
    assert count("--error", "TIMEOUTerror") == 2
    assert count("--older-than", "1h") == 0
    assert count("--older-than", "0") == 3
    text = run("dead", "ls", queue.name, "--task", "pay").stdout
    assert "pay(0" in text
    assert "ValueError: no such customer" in text
    assert run("dead", "ls", queue.name, "--older-than", "soon").returncode == 2


def test_dead_retry_by_id_and_filter(run: Run, queue: Queue) -> None:
    """What is chosen goes back, the rest stays; --dry-run tells the number; ids and --all exclude each other."""
    ids = bury(queue, 3)
    bury(queue, 4, "pay")
    assert json.loads(run("dead", "retry", queue.name, "--all", "--dry-run", "--json").stdout)["would"] == 7
    assert queue.stats().dead == 7
    assert run("dead", "retry", queue.name, ids[0]).returncode == 0
    told = json.loads(run("dead", "retry", queue.name, "--all", "--task", "pay", "--limit", "3", "--json").stdout)
    assert (told["retried"], told["left"], told["error"]) == (3, 0, None)
    assert (queue.stats().dead, queue.stats().scheduled) == (3, 4)
    for words in ((), (ids[1], "--all"), (ids[1], "--task", "pay")):
        assert run("dead", "retry", queue.name, *words).returncode == 2
    assert queue.stats().dead == 3


def test_dead_retry_stops_at_a_full_queue_and_can_be_repeated(run: Run, queue: Queue) -> None:
    """Exit code 75 and how many are left; after there is room, the same words do the rest (R-100)."""
    bury(queue, 250)
    queue.enqueue_many([b"x"] * 850)
    done = run("dead", "retry", queue.name, "--all")
    assert done.returncode == 75
    assert "150 dead letters" in done.stdout
    assert "100 left" in done.stderr
    assert "1000 of 1000 jobs" in done.stderr
    assert run("dead", "retry", queue.name, "--all").returncode == 75
    queue.purge("ready")
    assert run("dead", "retry", queue.name, "--all").returncode == 0
    stats = queue.stats()
    assert (stats.dead, stats.scheduled, stats.imbalance) == (0, 250, 0)


def test_dead_retry_keeps_to_the_rate(run: Run, queue: Queue) -> None:
    """It takes at least as long as the rate says."""
    bury(queue, 12)
    started = time.monotonic()
    assert run("dead", "retry", queue.name, "--all", "--rate", "10/s").returncode == 0
    assert time.monotonic() - started >= 1.0  # the last two begin after ten have gone
    assert queue.stats().scheduled == 12
    assert run("dead", "retry", queue.name, "--all", "--rate", "0/s").returncode == 2


def test_dead_retry_killed_and_repeated_does_each_job_once(any_server: Server, queue: Queue) -> None:
    """SIGKILL in the middle, as often as there is a middle: no dead letter is lost, none is back twice."""
    ids = bury(queue, 400)
    words = [sys.executable, "-m", "boundq", "dead", "retry", queue.name, "--all", "--rate", "100/s"]
    env = {**os.environ, "BOUNDQ_URL": any_server.url}
    for stop in (100, 200, 300):
        with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda stop=stop: queue.stats().scheduled >= stop, "some to be back", 30)
            process.send_signal(signal.SIGKILL)
    assert 0 < queue.stats().dead <= 100
    subprocess.run([*words[:-2]], env=env, check=True, timeout=60, capture_output=True)
    stats = queue.stats()
    assert (stats.dead, stats.jobs, stats.imbalance) == (0, 400, 0)
    leases = queue.claim(500)
    assert sorted(lease.id for lease in leases) == sorted(ids)
    assert {lease.attempt for lease in leases} == {1}


def test_dead_drop_is_counted(run: Run, queue: Queue) -> None:
    """Gone for good, and in the ledger as dropped; it wants --yes; --dry-run tells the number."""
    ids = bury(queue, 3)
    bury(queue, 2, "pay")
    assert "5 dead letters" in run("dead", "drop", queue.name, "--all", "--dry-run").stdout
    assert run("dead", "drop", queue.name, "--all").returncode == 2
    assert queue.stats().dead == 5
    assert run("dead", "drop", queue.name, ids[0], ids[1], "--yes").returncode == 0
    assert json.loads(run("dead", "drop", queue.name, "--all", "--task", "pay", "--yes", "--json").stdout) == {
        "queue": queue.name,
        "dry_run": False,
        "dropped": 2,
        "absent": 0,
    }
    stats = queue.stats()
    assert (stats.dead, stats.dropped, stats.imbalance) == (1, 4, 0)


def test_dead_export(run: Run, queue: Queue, tmp_path: Path) -> None:
    """One job a line, in full; the queue is as before; a file that is there is not touched."""
    ids = bury(queue, 150)
    assert "150 dead letters" in run("dead", "export", queue.name, "--to", "dead.ndjson").stdout
    jobs = [json.loads(line) for line in (tmp_path / "dead.ndjson").read_text().splitlines()]
    assert sorted(job["id"] for job in jobs) == sorted(ids)
    assert jobs[0]["kwargs"] == {"to": "ada"}
    assert queue.stats().dead == 150
    before = (tmp_path / "dead.ndjson").read_bytes()
    refused = run("dead", "export", queue.name, "--to", "dead.ndjson")
    assert refused.returncode == 2
    assert "is there already" in refused.stderr
    assert (tmp_path / "dead.ndjson").read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []
    assert len(run("dead", "export", queue.name, "--to", "-").stdout.splitlines()) == 150
    assert run("dead", "export", queue.name, "--to", "no/such/folder/x").returncode == 2


def test_dead_export_as_csv_holds_no_formula(run: Run, queue: Queue, tmp_path: Path) -> None:
    """A cell that a spreadsheet would calculate gets an apostrophe; nothing but ASCII is written (R-153)."""
    for text in ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", " =1", "\t=1", 'é\u202e\x1b[2J,\n"q"'):
        queue.enqueue_bytes(text.encode())
        (lease,) = queue.claim()
        lease.bury(text[:1], text)
    assert run("dead", "export", queue.name, "--to", "dead.csv", "--format", "csv").returncode == 0
    data = (tmp_path / "dead.csv").read_bytes()
    assert data.isascii()
    assert not set(data) & (set(range(32)) - {10})
    rows = list(csv.DictReader(data.decode().splitlines()))
    assert len(rows) == 7
    for row in rows:
        for value in row.values():
            assert value.lstrip()[:1] not in ("=", "+", "-", "@"), row


def test_limits_set_is_recorded_and_shown(run: Run, queue: Queue) -> None:
    """Who, when, from and to; a dry run changes nothing; lowered below what is held is said (R-118)."""
    queue.enqueue_many([b"x"] * 5)
    dry = run("limits", "set", queue.name, "--max-jobs", "3", "--max-bytes", "2 MiB", "--dry-run")
    assert "max_jobs: 1000 -> 3" in dry.stdout
    assert "5 jobs are held, more than 3" in dry.stderr
    assert queue.stats().limits.max_jobs == 1000
    done = run("limits", "set", queue.name, "--max-jobs", "3", "--max-bytes", "2 MiB", "--reason", "too much")
    assert done.returncode == 0
    assert (queue.stats().limits.max_jobs, queue.stats().limits.max_bytes) == (3, 2 * 2**20)
    shown = run("limits", "show", queue.name).stdout
    assert ": too much: max_jobs 1000 -> 3, max_bytes 64.0 MiB -> 2.0 MiB" in shown
    (change,) = json.loads(run("limits", "show", queue.name, "--json").stdout)["changes"]
    assert change["new"] == {"max_jobs": 3, "max_bytes": 2 * 2**20}
    assert change["by"].endswith(": too much")
    assert "nothing changes" in run("limits", "set", queue.name, "--max-jobs", "3").stdout
    assert run("limits", "set", queue.name, "--dead-ttl", "7d", "--max-age", "1h").returncode == 0
    assert (queue.stats().limits.dead_ttl, queue.stats().limits.max_age) == (7 * 86400, 3600)
    assert run("limits", "set", queue.name, "--dead-ttl", "none").returncode == 0
    assert queue.stats().limits.dead_ttl is None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--max-jobs", "0"), 78, "max_jobs"),
        (("--max-jobs", "many"), 2, "integer"),
        (("--max-bytes", "64 MX"), 78, "64 MiB"),
        (("--max-deliveries", "500"), 78, "127"),
        (("--dead-ttl", "soon"), 2, "7d"),
        ((), 2, "--max-jobs"),
    ],
)
def test_limits_set_refuses_nonsense(run: Run, queue: Queue, words: tuple[str, ...], code: int, says: str) -> None:
    """It says what was wrong and what would be right, and changes nothing."""
    queue.stats()
    before = queue.stats().limits
    done = run("limits", "set", queue.name, *words)
    assert done.returncode == code
    assert says in done.stderr
    assert queue.stats().limits == before


def test_limits_set_asks_before_dead_letters_are_dropped(run: Run, queue: Queue) -> None:
    """Fewer dead letters than there are: --yes, or nothing happens."""
    bury(queue, 5)
    refused = run("limits", "set", queue.name, "--max-dead-jobs", "2")
    assert refused.returncode == 2
    assert "the oldest 3 of 5 dead letters are dropped" in refused.stderr
    assert (queue.stats().dead, queue.stats().limits.max_dead_jobs) == (5, 10_000)
    assert run("limits", "set", queue.name, "--max-dead-jobs", "2", "--yes").returncode == 0
    assert (queue.stats().dead, queue.stats().dropped) == (2, 3)


def test_limits_suggest_shows_the_sum(
    fresh_server: FreshServer, run_on: Callable[[Server], Run], queue_name: str
) -> None:
    """From rates, sizes, the server's memory and the other queues' budgets; too little known is `unknown` (R-129)."""
    server = fresh_server(maxmemory="100mb", maxmemory_policy="noeviction")
    run = run_on(server)
    queue = Queue(queue_name, server.url)
    Queue("other", server.url, limits=Limits(max_bytes="10 MiB", max_dead_bytes="1 MiB")).stats()
    queue.stats()
    thin = run("limits", "suggest", queue.name, "--sample", "0")
    assert thin.returncode == 3
    assert "suggestion: unknown" in thin.stdout
    queue.enqueue_many([b"x" * 1000] * 500)
    for lease in queue.claim(100):
        lease.ack()

    def rate_is_known() -> bool:
        queue.claim(1)
        return queue.stats().drain_rate is not None

    wait_until(rate_is_known, "a drain rate", 20)
    done = run("limits", "suggest", queue.name, "--sample", "0", "--wait", "100", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    seen = found["observed"]
    assert seen["other_budgets"] == 11 * 2**20
    assert 1000 < seen["job_bytes"] < 2000
    room = int(0.75 * seen["maxmemory"]) - seen["other_budgets"] - 16 * 2**20
    each = seen["job_bytes"] * 1.25
    size = min(seen["drain_rate"] * 100 * each, room)
    assert found["suggested"]["max_bytes"] == pytest.approx(size, rel=0.01, abs=each)
    assert found["suggested"]["max_jobs"] == pytest.approx(size / each, rel=0.01, abs=1.1)
    text = run("limits", "suggest", queue.name, "--sample", "0").stdout
    assert f"boundq limits set {queue.name} --max-jobs" in text


def test_switches_record_who_and_why(run: Run, queue: Queue, any_server: Server) -> None:
    """Several queues at once; twice is said to be so; stats shows who, when and why; a missing one does not stop it."""
    queue.enqueue_bytes(b"x")
    other = Queue(f"{queue.name}.b", any_server.url)
    other.stats()
    done = run("pause", queue.name, other.name, "--reason", "provider is down")
    assert done.stdout.splitlines() == [f"{queue.name}: paused", f"{other.name}: paused"]
    assert queue.claim() == []
    assert ": provider is down" in run("stats", queue.name).stdout
    again = run("pause", queue.name)
    assert again.returncode == 0
    assert "nothing changed" in again.stdout
    assert ": provider is down" in again.stdout
    assert run("resume", queue.name, other.name).returncode == 0
    assert len(queue.claim()) == 1
    mixed = run("seal", f"{queue.name}.none", queue.name, "--reason", "moving", "--json")
    assert mixed.returncode == 65
    assert "no such queue" in mixed.stderr
    (sealed,) = json.loads(mixed.stdout)["queues"]
    assert (sealed["name"], sealed["changed"]) == (queue.name, True)
    assert run("enqueue", queue.name, "send").returncode == 75
    assert run("unseal", queue.name).stdout == f"{queue.name}: unsealed\n"
    assert [event.what for event in queue.events()] == ["unseal", "seal", "resume", "pause"]
    long = run("pause", queue.name, "--reason", "y" * 300)
    assert "200 bytes are recorded" in long.stderr


def test_drain_waits_until_all_are_empty(run: Run, queue: Queue, any_server: Server, tmp_path: Path) -> None:
    """Exit code 75 when the time is over first; 0 once workers are done with all of them."""
    other = Queue(f"{queue.name}.b", any_server.url)
    other.stats()
    queue.enqueue_many([b"x"] * 3)
    over = run("drain", queue.name, other.name, "--timeout", "0.1")
    assert over.returncode == 75
    assert "3 jobs held" in over.stdout
    words = [sys.executable, "-m", "boundq", "drain", queue.name, other.name, "--seal", "--json"]
    env = {**os.environ, "BOUNDQ_URL": any_server.url}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: other.stats().sealed_since is not None, "it to seal", 30)
        for lease in queue.claim(3):
            lease.ack()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    told = json.loads(out)
    assert told["drained"] is True
    assert [row["jobs"] for row in told["queues"]] == [0, 0]


# ---------------------------------------------------------------- at maxmemory


def test_everything_but_enqueue_works_at_maxmemory(
    fresh_server: FreshServer, run_on: Callable[[Server], Run], queue_name: str, tmp_path: Path
) -> None:
    """A server that refuses every write that needs memory: looking, cancelling, dead letters, limits, switches work."""
    server = fresh_server(maxmemory="200mb", maxmemory_policy="noeviction")
    run, queue = run_on(server), Queue(queue_name, server.url)
    dead = bury(queue, 6)
    ids = [queue.named("send").enqueue(n).id for n in range(4)]
    queue.claim(1)
    server.cli("CONFIG", "SET", "maxmemory", 1)
    refused = run("enqueue", queue.name, "send", "1")
    assert refused.returncode == 75
    assert refused.stderr.count("\n") == 1
    for words in (
        ("ls",),
        ("stats", queue.name),
        ("peek", queue.name),
        ("peek", queue.name, "--state", "active"),
        ("show", queue.name, ids[3]),
        ("position", queue.name, ids[3]),
        ("cancel", queue.name, ids[1], "--yes"),
        ("dead", "ls", queue.name),
        ("dead", "show", queue.name, dead[0]),
        ("dead", "retry", queue.name, dead[0]),
        ("dead", "drop", queue.name, dead[1], "--yes"),
        ("dead", "export", queue.name, "--to", "dead.ndjson"),
        ("dead", "retry", queue.name, "--all"),
        ("pause", queue.name, "--reason", "full"),
        ("resume", queue.name),
        ("seal", queue.name),
        ("unseal", queue.name),
        ("limits", "show", queue.name),
        ("limits", "set", queue.name, "--max-jobs", "50"),
    ):
        done = run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert run("limits", "suggest", queue.name, "--sample", "0").returncode == 3
    assert run("drain", queue.name, "--timeout", "0").returncode == 75
    stats = queue.stats()
    assert (stats.jobs, stats.dead, stats.cancelled, stats.dropped, stats.imbalance) == (8, 0, 1, 1, 0)


# ---------------------------------------------------------------- completion


def complete(server_url: str, *words: str) -> tuple[list[str], str]:
    """What bash would be offered for the last word, and what was said beside it."""
    env = {
        **os.environ,
        "BOUNDQ_URL": server_url,
        "_BOUNDQ_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("boundq", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "boundq"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line], done.stderr


def test_completion_knows_verbs_and_queues(any_server: Server, queue: Queue) -> None:
    """Verbs, and the names of the server's queues, those given already left out."""
    queue.stats()
    assert complete(any_server.url, "pe") == (["peek"], "")
    assert "retry" in complete(any_server.url, "dead", "r")[0]
    assert complete(any_server.url, "peek", queue.name[:-2]) == ([queue.name], "")
    assert complete(any_server.url, "pause", queue.name, queue.name[:-2]) == ([], "")
    assert complete(any_server.url, "dead", "ls", queue.name[:-2]) == ([queue.name], "")


def test_completion_is_silent_where_there_is_no_server(fresh_server: FreshServer) -> None:
    """Nothing to complete, nothing on standard error: not from a server that is absent, mute or wants a password."""
    assert complete("redis://127.0.0.1:1/0", "peek", "x") == ([], "")
    assert complete("nonsense", "peek", "x") == ([], "")
    assert complete("embedded:///nowhere/at/all", "peek", "x") == ([], "")
    server = fresh_server()
    server.pause()
    try:
        assert complete(server.url, "peek", "x") == ([], "")
    finally:
        server.resume()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    """Each shell gets its script; bash takes it."""
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_BOUNDQ_COMPLETE" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_help_imports_little() -> None:
    """`boundq --help` loads click and nothing of ours that talks to a server, nor rich, nor asyncio."""
    code = (
        "import sys\nfrom boundq.cli import app\n"
        "try: app(['--help'], prog_name='boundq')\n"
        "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "peek" in done.stdout
    assert "click" in loaded
    heavy = ("boundq.sync", "boundq.aio", "boundq.worker", "boundq._embedded", "boundq._core.queue", "boundq._connect")
    assert [
        name for name in loaded if name in {"rich", "redis", "asyncio", "fakeredis"} or name.startswith(heavy)
    ] == []


def documented() -> dict[str, Any]:
    """The JSON blocks of docs/cli.md, by the heading above each."""
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for section in text.split("\n### ")[1:]:
        title, _, body = section.partition("\n")
        if "```json\n" in body:
            found[title.strip("`").removeprefix("boundq ")] = json.loads(body.split("```json\n")[1].split("```")[0])
    return found


# Their keys are the user's, or those that changed.
FREE = {"kwargs", "headers", "old", "new", "changes", "rejected"}


def shape(value: Any, name: str = "") -> Any:
    """What a reader of the JSON may rely on: the keys, and kinds of the values."""
    if isinstance(value, dict):
        return "object" if name in FREE else {key: shape(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return "list" if name in FREE or name == "args" else [shape(value[0])] if value else []
    kinds = {bool: "flag", int: "number", float: "number", str: "text"}
    return kinds.get(type(value), "null")


def alike(one: Any, other: Any) -> bool:
    """Whether two shapes agree; null and an empty list agree with all."""
    if one == "null" or other == "null" or one == [] or other == []:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return alike(one[0], other[0])
    return bool(one == other)


def test_json_has_the_documented_shapes(run: Run, queue: Queue) -> None:
    """What docs/cli.md shows for each verb is what the verb prints: the same keys, the same kinds of values."""
    dead = bury(queue, 5)
    queue.named("send", headers={"a": "b"}).enqueue(42, to="ada")
    job = queue.named("send").enqueue(43).id
    name = queue.name
    words: dict[str, tuple[str, ...]] = {
        "ls": (),
        "stats": (name,),
        "enqueue": (name, "send", "1"),
        "peek": (name,),
        "show": (name, job),
        "position": (name, job),
        "cancel": (name, job, "--yes"),
        "dead ls": (name,),
        "dead show": (name, dead[0]),
        "dead retry": (name, dead[0]),
        "dead drop": (name, dead[1], "--yes"),
        "dead export": (name, "--to", "x.ndjson"),
        "limits set": (name, "--max-jobs", "500", "--reason", "why"),
        "limits show": (name,),
        "limits suggest": (name, "--sample", "0"),
        "pause": (name, "--reason", "why"),
        "resume": (name,),
        "seal": (name,),
        "unseal": (name,),
        "drain": (name, "--timeout", "0"),
        "purge": (name, "--to", "p.ndjson", "--limit", "1", "--yes"),
        "restore": ("p.ndjson", "--yes"),
        "doctor": (name,),
        "check": (name, "--timeout", "60"),
        "audit": (name,),
        "reap": (name,),
        "plan": ("--payload", "1KiB"),
        "calibrate": ("--payload", "1KiB", "--yes"),
        "acl": ("inspector", "--queue", name),
        "bench": ("--seconds", "0.05"),
    }
    found = documented()
    assert set(words) == set(found)  # what is documented is held, and the other way round
    for verb, arguments in words.items():
        done = run(*verb.split(), *arguments, "--json")
        printed = json.loads(done.stdout)
        assert done.stdout.isascii()
        assert alike(shape(printed), shape(found[verb])), f"{verb} prints {done.stdout}"


@pytest.mark.parametrize(
    "words",
    [
        *((verb,) for verb in ("ls", "stats", "top", "enqueue", "purge", "audit", "doctor", "check", "reap", "drain")),
        ("restore", "x", "--queue"),
        ("acl", "worker", "--queue"),
        ("limits", "set"),
    ],
    ids=" ".join,
)
def test_every_verb_that_takes_a_queue_completes_its_name(any_server: Server, queue: Queue, words: Any) -> None:
    """Wherever a queue is named, its name is offered."""
    queue.stats()
    assert complete(any_server.url, *words, queue.name[:-2]) == ([queue.name], "")


def test_dead_retry_says_how_many_are_still_there(run: Run, queue: Queue) -> None:
    """Where it took a part only, by a filter or --limit, the rest is not kept quiet about."""
    bury(queue, 5)
    done = run("dead", "retry", queue.name, "--all", "--limit", "2")
    assert "3 dead letters are still there" in done.stdout
    assert json.loads(run("dead", "retry", queue.name, "--all", "--limit", "1", "--json").stdout)["dead"] == 2
    assert "still there" not in run("dead", "retry", queue.name, "--all").stdout


def test_a_queue_that_cannot_be_read_does_not_keep_others_from_reap_and_audit(
    fresh_server: FreshServer, run_on: Callable[[Server], Run]
) -> None:
    """It is said, with exit code 65; the queues before and after it are done."""
    server = fresh_server()
    run = run_on(server)
    for name in ("a", "b", "c"):
        Queue(name, server.url).enqueue_bytes(b"x")
    server.cli("HSET", "boundq:{b}:state", "format", "99")
    for verb in ("reap", "audit"):
        done = run(verb, "a", "b", "c", "nosuch", "--json")
        assert done.returncode == 65, done.stdout + done.stderr
        assert [one["name"] for one in json.loads(done.stdout)["queues"]] == ["a", "c"]
        assert "'b'" in done.stderr
        assert "'nosuch'" in done.stderr
        text = run(verb)
        assert text.returncode == 65
        assert "\nc: " in text.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("health", "/nowhere", "--max-age"),
        ("ls", "--interval"),
        ("stats", "q", "--interval"),
        ("check", "--timeout"),
        ("doctor", "--unattended"),
        ("plan", "--copy-on-write"),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon", ""])
def test_a_number_that_is_none_is_refused(run: Run, words: Any, value: str) -> None:
    """Also nan, with which no comparison is true: a hanging worker would be well for ever."""
    done = run(*words, value)
    assert done.returncode == 2
    assert f"'{words[-1]}'" in done.stderr
    assert value in done.stderr


def test_calibrate_asks_as_the_others_do(run: Run) -> None:
    """Without a terminal and without --yes it does nothing; --dry-run says how much it would fill."""
    refused = run("calibrate", "--payload", "100")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert json.loads(run("calibrate", "--payload", "100", "--dry-run", "--json").stdout)["bytes"] > 0


def test_every_verb_has_a_section() -> None:
    """docs/cli.md leaves no verb out."""
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    titles = {line.split("`")[1].split()[1] for line in text.splitlines() if line.startswith("### `boundq ")}
    assert titles == set(VERBS)


def test_a_terminal_that_takes_ascii_only_gets_escapes(run: Run, queue: Queue) -> None:
    """A bar is shown as far as it can be, and no traceback."""
    queue.enqueue_bytes(b"x")
    done = run("ls", queue.name, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2591" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_reader_that_goes_away_gets_no_traceback(any_server: Server, queue: Queue) -> None:
    """`boundq peek | head -1`: the rest is nobody's."""
    queue.enqueue_many([b"x" * 5000] * 900)
    for verb in ("peek", "ls"):
        words = [sys.executable, "-m", "boundq", verb, queue.name, *(("--limit", "900") if verb == "peek" else ())]
        reader, writer = os.pipe()
        os.close(reader)
        env = {**os.environ, "BOUNDQ_URL": any_server.url}
        done = subprocess.run(words, env=env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
        os.close(writer)
        assert b"Traceback" not in done.stderr, verb


def test_ctrl_c_ends_a_verb_with_130(any_server: Server, queue: Queue, tmp_path: Path) -> None:
    """One line, no traceback, and not the exit code of a question answered with no."""
    queue.enqueue_bytes(b"x")
    with Program(any_server.url, tmp_path).start("drain", queue.name) as drain:
        assert drain.stderr
        assert "goes on taking jobs" in drain.stderr.readline()
        drain.send_signal(signal.SIGINT)
        out, errors = drain.communicate(timeout=20)
    assert (drain.returncode, out, errors) == (130, "", "boundq: stopped\n")
