"""``boundq audit``: nothing on a healthy queue, busy or not; each kind of damage named, and repaired when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from boundq import AsyncQueue, Limits, Queue
from tests._servers import Server

LIMITS = Limits(max_jobs=10_000, max_bytes="16 MiB")


def run(server: Server, *words: str) -> tuple[int, Any, str]:
    """Exit code, the JSON, and the same as text (which runs first, without --repair)."""
    env = {**os.environ, "BOUNDQ_URL": server.url, "NO_COLOR": "1"}
    program = [sys.executable, "-m", "boundq", "audit"]
    names = [word for word in words if word != "--repair"]
    text = subprocess.run([*program, *names], env=env, capture_output=True, text=True, timeout=60, check=False)
    done = subprocess.run(
        [*program, *words, "--json"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr + text.stderr
    return done.returncode, json.loads(done.stdout)["queues"], text.stdout


class Bench:
    """A queue with jobs in every state, and access to its keys."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.queue = Queue(name, server.url, limits=LIMITS)
        self.queue.enqueue_many([b"x" * 100] * 10)
        self.queue.enqueue_bytes(b"u", unique="u", unique_for=100)
        self.queue.enqueue_bytes(b"later", delay=3600, priority="high")
        leases = self.queue.claim(6)
        leases[0].ack()
        leases[1].retry(3600)
        leases[2].bury("why", "text")
        leases[3].bury("why", "")
        leases[4].release()
        self.lease = leases[5]

    def cli(self, command: str, part: str, *words: str | int) -> Any:
        return self.server.cli(command, f"boundq:{{{self.name}}}:{part}", *words)

    def first(self, state: Any) -> str:
        return self.queue.peek(state, n=1).jobs[0].id


@pytest.fixture
def bench(any_server: Server, queue_name: str) -> Bench:
    return Bench(any_server, queue_name)


def test_a_healthy_queue(bench: Bench) -> None:
    """Exit code 0, in words and as JSON; --repair changes nothing."""
    before = bench.cli("HGETALL", "state")
    code, (found,), text = run(bench.server, bench.name, "--repair")
    assert code == 0
    # 11 jobs, of which 1 is leased, 3 are due and 2 are dead, with a text each.
    assert found == {
        "name": bench.name,
        "ok": True,
        "steady": True,
        "jobs": 9,
        "dead": 2,
        "looked_at": 11 + 1 + 3 + 2 + 2,
        "differences": [],
    }
    assert "right" in text
    assert bench.cli("HGETALL", "state") == before


def lose_ready(bench: Bench) -> None:
    bench.cli("HDEL", "jobs", bench.first("ready"))


def lose_active(bench: Bench) -> None:
    bench.cli("HDEL", "jobs", bench.lease.id)


def lose_dead(bench: Bench) -> None:
    bench.cli("HDEL", "jobs", bench.first("dead"))


def strand(bench: Bench) -> None:
    bench.cli("ZREM", "due1", bench.first("scheduled")) or bench.cli("ZREM", "due2", bench.first("scheduled"))


def double(bench: Bench) -> None:
    bench.cli("ZADD", "leases", 2**50, bench.first("ready"))


def miscount(bench: Bench) -> None:
    bench.cli("HINCRBY", "state", "bytes", 1000)


def miscount_dead(bench: Bench) -> None:
    bench.cli("HINCRBY", "state", "dead_bytes", -7)


def miscount_letters(bench: Bench) -> None:
    bench.cli("HINCRBY", "state", "dead_jobs", 2)
    bench.cli("HINCRBY", "state", "dead_bytes", -7)


def miscount_acks(bench: Bench) -> None:
    bench.cli("HINCRBY", "state", "acked", -3)


def stray_text(bench: Bench) -> None:
    bench.cli("HSET", "errors", 999 * 8, "why\n")


@pytest.mark.parametrize(
    ("damage", "kinds", "mended"),
    [
        (lose_ready, {"bytes", "ledger"}, True),
        (lose_active, {"bytes", "ledger", "no_job"}, True),
        (lose_dead, {"ledger", "no_job"}, True),
        (miscount, {"bytes"}, True),
        (miscount_dead, {"dead_bytes"}, True),
        (miscount_letters, {"dead_jobs", "dead_bytes"}, True),
        (miscount_acks, {"ledger"}, True),
        (strand, {"stranded"}, False),
        (double, {"double"}, False),
        (stray_text, {"no_letter"}, True),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_damage_is_named_and_repaired(
    bench: Bench, damage: Callable[[Bench], None], kinds: set[str], mended: bool
) -> None:
    """Exit code 1 and every difference by its kind, nothing changed; after --repair, where it can be, all is right."""
    damage(bench)
    before = bench.cli("HGETALL", "state")
    found = bench.queue.audit()
    assert not found.ok
    assert kinds <= {one.kind for one in found.differences}
    assert not any(one.repaired for one in found.differences)
    assert bench.cli("HGETALL", "state") == before
    assert bench.queue.audit(repair=True).ok == mended
    if mended:
        assert bench.queue.stats().dead == bench.cli("ZCARD", "dead")
        assert bench.queue.audit().differences == []
        assert bench.queue.recount().ok


def test_damage_through_the_program(bench: Bench) -> None:
    """Exit code 1 and a line for each difference; 0 once it is repaired."""
    lose_active(bench)
    miscount(bench)
    code, (found,), text = run(bench.server, bench.name)
    assert (code, found["ok"]) == (1, False)
    assert "NOT RIGHT" in text
    assert all(one["kind"] in text for one in found["differences"])
    code, (found,), _ = run(bench.server, bench.name, "--repair")
    assert code == 0
    assert {one["kind"] for one in found["differences"]} == {"no_job", "bytes", "ledger"}
    assert all(one["repaired"] for one in found["differences"])


def test_healthy_on_each_server(server: Server, queue_name: str) -> None:
    """Scripts and cursors are the same everywhere, in small encodings and in large tables."""
    bench = Bench(server, queue_name)
    assert bench.queue.audit().differences == []
    bench.queue.enqueue_many([b"z"] * 1000)
    bench.queue.enqueue_many([b"z"] * 500, delay=1000)
    bench.queue.claim(300)
    found = bench.queue.audit()
    assert (found.differences, found.steady) == ([], True)
    assert found.looked_at >= 1500 + 500 + 300
    miscount(bench)
    lose_ready(bench)
    assert {one.kind for one in bench.queue.audit().differences} == {"bytes", "ledger"}
    assert bench.queue.audit(repair=True).ok


def test_a_busy_queue_shows_no_difference(bench: Bench) -> None:
    """While jobs come and go, nothing that is right is called wrong; entries are looked at whatever moves."""
    ended = threading.Event()

    def work() -> None:
        queue = Queue(bench.name, bench.server.url, limits=LIMITS)
        while not ended.is_set():
            queue.enqueue_many([b"y" * 50] * 20)
            leases = queue.claim(20)
            late = [(one, "a", "b") for one in leases[15:]]
            queue.settle(acks=leases[:10], retries=[(one, 0) for one in leases[10:12]], buries=late)
            queue.purge("ready", "dead")
            queue.settle(acks=leases[12:15])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        audits = [bench.queue.audit() for _ in range(5)]
    finally:
        ended.set()
        thread.join()
    assert [one.differences for one in audits] == [[]] * 5
    assert sum(one.looked_at for one in audits) > 20
    final = bench.queue.audit(repair=True)
    assert final.steady
    assert final.differences == []


def test_many_faults_and_hostile_ids(any_server: Server, queue_name: str) -> None:
    """At most 1,000 of a kind are named, all are removed at once; a member that is no id steers no terminal."""
    queue = Queue(queue_name, any_server.url, limits=LIMITS)
    queue.stats()
    key = f"boundq:{{{queue_name}}}:"
    any_server.cli("ZADD", f"{key}leases", *(word for one in range(2500) for word in (2**50, one * 8 + 800)))
    any_server.cli("HSET", f"{key}jobs", "\x1b]52;c;aGk=\x07\u202e", "evil")
    code, (found,), text = run(any_server, queue_name)
    assert code == 1
    assert 1000 <= len(found["differences"]) < 1300
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    any_server.cli("DEL", f"{key}jobs")
    any_server.cli("HSET", f"{key}errors", *(word for one in range(1500) for word in (one * 8 + 800, "why\n")))
    repaired = queue.audit(repair=True)
    assert repaired.ok
    assert [sum(one.found == part for one in repaired.differences) for part in ("leases", "errors")] == [1000, 1000]
    assert any_server.cli("ZCARD", f"{key}leases") == any_server.cli("HLEN", f"{key}errors") == 0
    assert queue.audit().differences == []


def test_what_cannot_be_repaired_is_named_first(any_server: Server, queue_name: str) -> None:
    """Behind more than are named, an entry that is no id and stays is not lost from sight: the audit is not ok."""
    queue = Queue(queue_name, any_server.url, limits=LIMITS)
    queue.stats()
    key = f"boundq:{{{queue_name}}}:leases"
    any_server.cli("ZADD", key, *(word for one in range(2500) for word in (one, one * 8 + 800)), 2**50, "rubbish")
    found = queue.audit(repair=True)
    assert not found.ok
    assert [one.counted for one in found.differences if not one.repaired] == ["rubbish"]
    assert any_server.cli("ZCARD", key) == 1


def test_asyncio(any_server: Server, queue_name: str) -> None:
    """`AsyncQueue` audits as well."""
    import asyncio

    async def main() -> bool:
        queue = AsyncQueue(queue_name, any_server.url)
        await queue.enqueue_bytes(b"x")
        found = await queue.audit()
        await queue.close()
        return found.ok and found.stats.jobs == 1

    assert asyncio.run(main())
