"""
A server at its maxmemory, full to the last byte with other people's keys: a queue on it drains, and is not added to.

Every operation starts at a full server: `Squeezed` tops the memory up before each, so what an ack frees is gone by
the next call. Each test runs through `Queue` and through `AsyncQueue`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError
from redis.retry import Retry

from boundq import JobTooLarge, Limits, QueueFull, QueueSealed, Rejection
from tests._servers import Kind, Server, wait_until
from tests.conftest import FreshServer
from tests.contract._env import Env, FakeClock

LUA = Path(__file__).resolve().parents[2] / "lua"
LIMITS = Limits(max_jobs=20_000, max_bytes="64 MiB", max_dead_jobs=1000)
MAXMEMORY, SLACK = 32 * 2**20, 2**20


class Foreign:
    """Other people's keys on a server."""

    def __init__(self, server: Server) -> None:
        self.client = redis.Redis(unix_socket_path=server.socket_path, retry=Retry(NoBackoff(), 0))
        self.count = 0

    def squeeze(self) -> None:
        """
        Fill the server until it refuses one byte more; then lower the limit a little below that.

        The latter because the server itself frees some memory at times (buffers of idle clients, the Lua heap), and
        a test would be about that otherwise.
        """
        self.client.config_set("maxmemory", MAXMEMORY)
        for size in (2**18, 2**13, 2**8, 1):
            while self._store(size):
                pass
        self.client.config_set("maxmemory", MAXMEMORY - SLACK)

    def release(self) -> None:
        """Delete them all, and lift the limit to what it was."""
        while found := self.client.scan(match="foreign:*", count=10_000)[1]:
            self.client.delete(*found)
        self.client.config_set("maxmemory", MAXMEMORY)

    def refusals(self) -> int:
        """How many commands the server has refused for want of memory."""
        stats: dict[str, Any] = self.client.info("errorstats")
        return int(stats.get("errorstat_OOM", {"count": 0})["count"])

    def _store(self, size: int) -> bool:
        self.count += 1
        try:
            return bool(self.client.set(f"foreign:{self.count}", b"x" * size))
        except OutOfMemoryError:
            return False


class Squeezed:
    """A queue, each of whose operations finds the server full."""

    def __init__(self, queue: Any, foreign: Foreign) -> None:
        self._queue = queue
        self._foreign = foreign

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self._foreign.squeeze()
        operation: Callable[..., Any] = getattr(self._queue, name)
        return operation


@pytest.fixture(params=["sync", "async"])
def env(server_kind: Kind, fresh_server: FreshServer, queue_name: str, request: pytest.FixtureRequest) -> Iterator[Env]:
    """A server of 32 MB, and clients of one shell; at the end the books have to be right."""
    env = Env(queue_name, request.param, fresh_server(server_kind, maxmemory=MAXMEMORY), FakeClock())
    yield env
    env.audit()
    env.close()


@pytest.fixture
def foreign(env: Env) -> Iterator[Foreign]:
    assert env.server is not None
    foreign = Foreign(env.server)
    yield foreign
    foreign.client.close()


def ids_of(results: list[Any]) -> list[str]:
    assert all(result.ok for result in results)
    return [result.receipt.id for result in results]


def stored(env: Env) -> dict[str, Any]:
    """
    Every key of the queue with what is in it, and the number of all keys.

    Without the producers that have enlisted and admitted nothing yet: a new connection enlists at a full server too.
    """
    assert env.server is not None
    read = {b"hash": "HGETALL", b"zset": "ZRANGE", b"list": "LRANGE", b"stream": "XRANGE"}
    rest = {b"hash": (), b"zset": (0, -1, "WITHSCORES"), b"list": (0, -1), b"stream": ("-", "+")}
    found: dict[str, Any] = {"keys": env.command("DBSIZE")}
    for part in (
        *("state", "jobs", "leases", "due0", "due1", "due2", "due3", "dead", "errors", "unique", "windows"),
        *("wake", "room", "turn", "events"),
    ):
        kind = env.command("TYPE", env.key(part))
        if kind != b"none":
            value = env.command(read[kind], env.key(part), *rest[kind])
            # Looking at a hash may move it around in memory, so its order means nothing.
            found[part] = dict(zip(value[::2], value[1::2], strict=True)) if kind == b"hash" else value
    del found["state"][b"producer"]
    found["state"] = {one: said for one, said in found["state"].items() if not said.endswith(b"0 x")}
    return found


def fill(queue: Any) -> tuple[set[str], list[Any], list[Any]]:
    """
    Ten thousand jobs: plain, urgent, unique, with windows, expiring, due soon and due late.

    Returns:
        Their ids, 400 leases, and 100 leases that run out at once.
    """
    ids = ids_of(queue.enqueue_many(b"p" * 100 for _ in range(4000)))
    ids += ids_of(queue.enqueue_many((b"h" * 300 for _ in range(1000)), priority="high"))
    ids += ids_of(queue.enqueue_many(queue.named("work", unique=f"u{n}").call(n) for n in range(500)))
    ids += ids_of(queue.enqueue_many(queue.named("work", unique=f"w{n}", unique_for=60).call(n) for n in range(500)))
    ids += ids_of(queue.enqueue_many((b"e" for _ in range(500)), expires=3600, headers={"trace": "t" * 40}))
    held, lost = queue.claim(400, lease=600), queue.claim(100, lease=0.1)
    ids += ids_of(queue.enqueue_many((b"d" * 50 for _ in range(3000)), delay=0.1))
    ids += ids_of(queue.enqueue_many((b"l" * 50 for _ in range(499)), delay=3600, priority="low"))
    ids.append(queue.named("work").enqueue("last").id)
    assert len(set(ids)) == 10_000
    assert (len(held), len(lost)) == (400, 100)
    return set(ids), held, lost


def test_a_full_server_drains_to_the_last_job(env: Env, foreign: Foreign) -> None:
    """Claim, ack, retry, release, bury, extend, cancel, purge, control and every inspection work; no job is lost."""
    plain = env.queue(limits=LIMITS)
    ids, held, lost = fill(plain)
    queue = Squeezed(plain, foreign)

    def gone(*job_ids: str) -> None:
        assert ids.issuperset(job_ids)
        ids.difference_update(job_ids)

    stats = queue.stats()
    assert (stats.jobs, stats.active, stats.scheduled) == (10_000, 500, 3499)
    assert queue.get(held[0].id).state == "active"
    for state, count in (("ready", 1), ("scheduled", 3), ("active", 500)):
        assert queue.peek(state, count).jobs[0].state == state
    assert queue.extend(held, lease=300) == []
    assert queue.settle(acks=held[:50]) == []
    gone(*(one.id for one in held[:50]))
    assert queue.settle(retries=[(one, 0.05) for one in held[50:150]], releases=held[150:200]) == []
    assert queue.settle(buries=[(one, "handler", "e" * 1000) for one in held[200:300]]) == []
    foreign.squeeze()
    held[300].ack()
    gone(held[300].id)
    foreign.squeeze()
    held[301].retry()
    foreign.squeeze()
    held[302].release()
    foreign.squeeze()
    held[303].bury("handler", "text")
    foreign.squeeze()
    held[304].extend(600)
    assert queue.stats().dead == 101
    assert queue.peek("dead", 100).jobs[0].error == "e" * 1000

    late = [job.id for job in queue.peek("scheduled", 4000).jobs if job.priority == "low"]
    ready = queue.peek("ready", 1).jobs[0].id
    assert plain.get(ready).ahead == 0
    for job_id in (late[0], ready, held[305].id, held[303].id):
        assert queue.cancel(job_id)
        gone(job_id)
    assert not queue.cancel(ready)

    assert queue.pause("test")
    assert queue.claim(1) == []
    assert queue.resume("test")
    assert queue.seal("test")
    assert queue.unseal("test")
    assert queue.configure(Limits(max_jobs=10, max_bytes=1000, max_dead_jobs=60), "test")
    gone(*(one.id for one in held[200:240]))  # the oldest dead letters had to go
    assert (queue.stats().dropped, queue.stats().dead) == (40, 60)
    assert queue.configure(LIMITS, "test")
    assert queue.recount(repair=True).ok
    assert [one.what for one in queue.events(2)] == ["limits", "limits"]
    assert queue.retry_dead([one.id for one in held[240:250]]).back == [one.id for one in held[240:250]]
    assert queue.drop_dead([one.id for one in held[250:260]]) == [one.id for one in held[250:260]]
    gone(*(one.id for one in held[250:260]))
    assert queue.purge("dead") == 40
    gone(*(one.id for one in held[260:300]))

    # The rest: what is left of the leases held; leases that ran out, what came due, what was never touched; the late.
    assert queue.settle(acks=held[304:305] + held[306:]) == []
    gone(*(one.id for one in held[304:305] + held[306:]))
    env.elapse(0.2)  # the short leases
    deliveries: Counter[str] = Counter()
    while leases := queue.claim(200):
        assert queue.settle(acks=leases) == []
        deliveries.update(one.id for one in leases)
    assert deliveries.keys() >= {one.id for one in lost}
    assert set(deliveries.values()) == {1}
    gone(*deliveries)
    assert ids == set(late[1:])
    assert queue.purge("scheduled") == len(ids)

    stats = queue.stats()
    assert (stats.jobs, stats.dead, stats.ready, stats.scheduled, stats.active) == (0, 0, 0, 0, 0)
    assert stats.imbalance == 0
    assert stats.purged == len(ids) + 40
    assert isinstance(env.queue(limits=LIMITS).try_enqueue_bytes(b"x"), Rejection)
    foreign.release()
    assert env.queue(limits=LIMITS).enqueue_bytes(b"x").jobs == 1


TOMORROW = datetime.now(UTC) + timedelta(days=1)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "priority": {"priority": "critical"},
    "delay": {"delay": 60},
    "at": {"at": TOMORROW},
    "unique": {"unique": "new"},
    "window": {"unique": "new", "unique_for": 60},
    "expires": {"expires": 60},
    "headers": {"headers": {"trace": "1"}},
    "all": {
        "priority": "low",
        "delay": 60,
        "unique": "new",
        "unique_for": 60,
        "expires": TOMORROW,
        "headers": {"trace": "1"},
    },
}
WAYS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "payload": lambda queue, options: queue.try_enqueue_bytes(b"x", **options),
    "task": lambda queue, options: queue.named("work", **options).try_enqueue(1, to="ada"),
    "many": lambda queue, options: queue.enqueue_many([b"x"] * 600, **options),
    "atomic": lambda queue, options: queue.enqueue_many([b"x"] * 9, atomic=True, **options),
    "waiting": lambda queue, options: queue.try_enqueue_bytes(b"x", wait=0.01, **options),
}


def test_a_full_server_takes_no_job_and_writes_nothing(env: Env, foreign: Foreign) -> None:
    """Whatever the way in and the options: QueueFull with reason "memory", and every key as it was before."""
    anchor = env.queue(limits=LIMITS)
    anchor.enqueue_many([b"x" * 100] * 500)
    anchor.enqueue_bytes(b"x", delay=60)
    anchor.enqueue_bytes(b"x", unique="held", unique_for=60)
    anchor.settle(buries=[(one, "test", "text") for one in anchor.claim(2)])
    anchor.claim(3)
    anchor.try_enqueue_bytes(b"x")  # this client is a known producer
    foreign.squeeze()
    before = stored(env)

    def refused(what: str, attempt: Callable[[Any], Any]) -> None:
        # A fresh object: a queue that was told "memory" does not ask again for a moment.
        queue = env.queue(limits=LIMITS)
        asked = foreign.refusals()
        outcome = attempt(queue)
        for one in outcome if isinstance(outcome, list) else [outcome]:
            rejection = one.rejection if hasattr(one, "rejection") else one
            assert isinstance(rejection, Rejection), (what, rejection)
            assert rejection.reason == "memory", what
            assert isinstance(rejection.error(), QueueFull), what
        assert foreign.refusals() > asked, f"{what}: the server was not asked"
        assert stored(env) == before, f"{what}: something was written"

    for way, enqueue in WAYS.items():
        for name, options in OPTIONS.items():
            refused(f"{way}, {name}", lambda queue, enqueue=enqueue, options=options: enqueue(queue, options))
    # A key that is held would be answered with its job, had the server looked.
    refused("duplicate", lambda queue: queue.try_enqueue_bytes(b"x", unique="held"))

    queue = env.queue(limits=LIMITS)
    with pytest.raises(QueueFull) as caught:
        queue.enqueue_bytes(b"x")
    assert caught.value.reason == "memory"
    with pytest.raises(QueueFull) as caught:
        env.queue(limits=LIMITS).enqueue_bytes(b"x", wait=0.3)
    assert caught.value.reason == "memory"
    assert stored(env) == before
    foreign.release()


def test_a_producer_that_waits_is_let_in_when_memory_is_free(env: Env, foreign: Foreign) -> None:
    """Waiting for room includes waiting for the server's memory."""
    env.queue(limits=LIMITS).enqueue_bytes(b"x")
    foreign.squeeze()
    asked = foreign.refusals()
    waiting = env.background(lambda: env.queue(limits=LIMITS).enqueue_bytes(b"x", wait=20))
    wait_until(lambda: foreign.refusals() > asked, "the first refusal")
    foreign.release()
    assert waiting.result(timeout=20).jobs == 2


def test_a_queue_at_its_own_limit_says_so(env: Env, foreign: Foreign) -> None:
    """With memory to spare the reason is the queue's own; at a full server it is the memory."""
    small = Limits(max_jobs=3, max_bytes=10_000, max_job_bytes=5000)
    queue = env.queue(limits=small)
    assert queue.try_enqueue_bytes(b"x" * 6000).reason == "job_bytes"
    queue.enqueue_bytes(b"x" * 4000)
    queue.enqueue_bytes(b"x" * 4000)
    with pytest.raises(QueueFull) as caught:
        queue.enqueue_bytes(b"x" * 4000)
    assert (caught.value.reason, caught.value.limit) == ("bytes", 10_000)
    queue.enqueue_bytes(b"x")
    with pytest.raises(QueueFull) as caught:
        queue.enqueue_bytes(b"x")
    assert (caught.value.reason, caught.value.used, caught.value.limit) == ("jobs", 3, 3)
    queue.seal("test")
    with pytest.raises(QueueSealed):
        queue.enqueue_bytes(b"x")
    queue.unseal("test")

    foreign.squeeze()
    with pytest.raises(QueueFull) as caught:
        env.queue(limits=small).enqueue_bytes(b"x")
    assert caught.value.reason == "memory"
    with pytest.raises(JobTooLarge):
        env.queue(limits=small).enqueue_bytes(b"x" * 6000)
    foreign.release()


def test_a_lease_is_extended_at_a_full_server(env: Env, foreign: Foreign) -> None:
    """No job is delivered twice because its worker could not say that it is still at it."""
    plain = env.queue(limits=LIMITS)
    plain.enqueue_many([b"x"] * 300)
    leases = plain.claim(300, lease=1)
    queue = Squeezed(plain, foreign)
    assert queue.extend(leases, lease=60) == []
    env.elapse(1.2)
    assert queue.claim(10) == []
    assert plain.settle(acks=leases) == []
    foreign.release()


def test_a_queue_larger_than_its_server_drains_by_itself(env: Env) -> None:
    """It fills the server, is refused, and new workers empty it: nothing lost, nothing twice, no operator."""
    big = Limits(max_jobs=10**6, max_bytes="1 GiB")
    queue = env.queue(limits=big)
    ids: set[str] = set()
    while True:
        results = queue.enqueue_many([b"x" * 1000] * 500)
        ids.update(result.receipt.id for result in results if result.ok)
        if not results[-1].ok:
            assert results[-1].rejection.reason == "memory"
            break
    assert len(ids) > 10_000

    def work() -> list[str]:
        mine = env.queue(limits=big)
        done: list[str] = []
        while leases := mine.claim(100):
            assert mine.settle(acks=leases) == []
            done += [one.id for one in leases]
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [job_id for worker in [pool.submit(work) for _ in range(4)] for job_id in worker.result()]
    assert len(done) == len(ids)
    assert set(done) == ids
    assert env.queue(limits=big).stats().jobs == 0


def test_only_the_two_enqueue_scripts_may_be_refused() -> None:
    """Each script names its flags; all but the two that admit carry allow-oom, and those two carry nothing."""
    headers = {path.stem: path.read_text(encoding="utf-8").split("\n", 1)[0] for path in LUA.glob("*.lua")}
    assert len(headers) > 10
    bare = {name for name, header in headers.items() if "allow-oom" not in header}
    assert bare == {"enqueue", "enqueue_general"}
    for name, header in headers.items():
        engine, _, flags = header.partition(" flags=")
        assert engine == "#!lua", name
        # Without flags the server refuses a script before it starts: no write of its own comes first.
        assert set(flags.split(",")) <= ({""} if name in bare else {"allow-oom", "no-writes"}), name
