"""enqueue_many: the longest prefix or all or none, and what happened to each."""

from __future__ import annotations

import pytest

from boundq import ConfigError, Limits
from tests.contract._env import Env, claim_one, take


def outcomes(results: list) -> list[str]:
    """``ok``, or the reason, or the error's name, for each."""
    return ["ok" if one.ok else one.rejection.reason if one.rejection else type(one.error).__name__ for one in results]


@pytest.mark.everywhere
def test_all_fit(env: Env) -> None:
    """Each job has its own receipt, in order."""
    queue = env.queue()
    given = [b"%d" % number for number in range(1234)]
    results = queue.enqueue_many(given)
    assert outcomes(results) == ["ok"] * 1234
    ids = [int(one.receipt.id) for one in results]
    assert ids == sorted(set(ids))
    assert queue.get(str(ids[777])).payload == b"777"
    assert take(queue) + take(queue) + take(queue) == given


@pytest.mark.parametrize("kind", ["list", "generator", "iterator", "tuple"])
def test_any_iterable(env: Env, kind: str) -> None:
    """Lists, tuples, iterators and generators."""
    queue = env.queue()
    given = [b"%d" % number for number in range(7)]
    jobs = {"list": given, "tuple": tuple(given), "iterator": iter(given), "generator": (one for one in given)}[kind]
    assert outcomes(queue.enqueue_many(jobs)) == ["ok"] * 7
    assert take(queue) == given


@pytest.mark.parametrize("atomic", [True, False])
def test_nothing_to_do(env: Env, atomic: bool) -> None:
    """No jobs, no results, nothing stored."""
    queue = env.queue()
    assert queue.enqueue_many([], atomic=atomic) == []
    assert queue.enqueue_many(iter(()), atomic=atomic) == []
    assert queue.stats().admitted == 0


@pytest.mark.everywhere
def test_longest_prefix(env: Env) -> None:
    """At the limit the first ones are in, all behind them are refused, and nothing in between (R-38)."""
    queue = env.queue(max_jobs=7)
    results = queue.enqueue_many([b"%d" % number for number in range(12)])
    assert outcomes(results) == ["ok"] * 7 + ["jobs"] * 5
    assert (results[7].rejection.used, results[7].rejection.limit) == (7, 7)
    assert queue.stats().jobs == 7
    assert take(queue) == [b"%d" % number for number in range(7)]


def test_prefix_by_bytes(env: Env) -> None:
    """A job that does not fit ends the prefix, although a smaller one behind it would."""
    queue = env.queue()
    held = queue.enqueue_bytes(b"x").bytes
    take(queue)
    queue.configure(Limits(max_bytes=3 * held))
    assert outcomes(queue.enqueue_many([b"x", b"x", b"x" * 300, b"x"])) == ["ok", "ok", "bytes", "bytes"]


def test_rejected_jobs_are_counted_each(env: Env) -> None:
    """The count of rejections is one for each job that was refused by the server."""
    queue = env.queue(max_jobs=2)
    queue.enqueue_many([b"x"] * 5)
    assert queue.stats().rejected["jobs"] == 3


def test_prefix_over_many_chunks(env: Env) -> None:
    """The prefix is one, however many scripts it takes; what comes behind is not sent any more."""
    queue = env.queue(max_jobs=900)
    results = queue.enqueue_many([b"x"] * 2000)
    assert outcomes(results) == ["ok"] * 900 + ["jobs"] * 1100
    assert queue.stats().jobs == 900


@pytest.mark.everywhere
def test_mixed_options_keep_their_order(env: Env) -> None:
    """Payloads, prepared calls, priorities, delays and keys in one batch; the order within a priority is kept."""
    queue = env.queue()

    @queue.task
    def t(number: int) -> None: ...

    jobs = [
        b"0",
        t.call(1),
        t.options(priority="high").call(2),
        t.options(unique="k").call(3),
        t.options(unique="k").call(4),
        b"5",
        t.options(delay=3600).call(6),
        t.options(priority="high").call(7),
    ]
    results = queue.enqueue_many(jobs)
    assert outcomes(results) == ["ok"] * 8
    assert [one.receipt.duplicate for one in results] == [False] * 4 + [True] + [False] * 3
    assert results[4].receipt.id == results[3].receipt.id
    assert take(queue) == [b"[[2],{}]", b"[[7],{}]", b"0", b"[[1],{}]", b"[[3],{}]", b"5"]
    assert queue.stats().scheduled == 1


def test_options_for_the_payloads(env: Env) -> None:
    """Options of the call are those of its payloads; prepared calls keep their own."""
    queue = env.queue()
    results = queue.enqueue_many([b"a", queue.named("t").call(1)], priority="critical", headers={"h": "1"})
    jobs = [queue.get(one.receipt.id) for one in results]
    assert [(job.priority, job.headers) for job in jobs] == [("critical", {"h": "1"}), ("normal", {})]


@pytest.mark.everywhere
@pytest.mark.parametrize("general", [False, True], ids=["plain", "general"])
def test_atomic_fits_or_not(env: Env, general: bool) -> None:
    """All or nothing: with one place too few none is stored, and every job is told so."""
    queue = env.queue(max_jobs=5)
    options = {"expires": 3600} if general else {}
    results = queue.enqueue_many([b"x"] * 6, atomic=True, **options)
    assert outcomes(results) == ["jobs"] * 6
    first = results[0].rejection
    assert (first.used, first.limit, first.requested) == (0, 5, 6)
    assert (queue.stats().jobs, queue.stats().admitted) == (0, 0)
    results = queue.enqueue_many([b"x"] * 5, atomic=True, **options)
    assert outcomes(results) == ["ok"] * 5
    assert len({one.receipt.id for one in results}) == 5


@pytest.mark.parametrize("general", [False, True], ids=["plain", "general"])
def test_atomic_by_bytes(env: Env, general: bool) -> None:
    """All or nothing in bytes, to the byte; ``requested`` is what all of them would take."""
    queue = env.queue()
    options = {"expires": 3600} if general else {}
    batch = queue.enqueue_many([b"x" * 100] * 4, **options)
    total = batch[-1].receipt.bytes
    take(queue)
    queue.configure(Limits(max_bytes=total - 1))
    results = queue.enqueue_many([b"x" * 100] * 4, atomic=True, **options)
    assert outcomes(results) == ["bytes"] * 4
    assert (results[0].rejection.used, results[0].rejection.requested) == (0, total)
    assert queue.stats().jobs == 0
    queue.configure(Limits(max_bytes=total))
    assert outcomes(queue.enqueue_many([b"x" * 100] * 4, atomic=True, **options)) == ["ok"] * 4


def test_atomic_with_a_job_too_large(env: Env) -> None:
    """One that is too large refuses all."""
    queue = env.queue(limits=Limits(max_job_bytes=100))
    results = queue.enqueue_many([b"x", b"x" * 500, b"x"], atomic=True)
    assert outcomes(results) == ["job_bytes"] * 3
    assert queue.stats().jobs == 0


def test_atomic_with_duplicates(env: Env) -> None:
    """A duplicate inside a batch needs no room, and counts once (R-64)."""
    queue = env.queue(max_jobs=2)
    t = queue.named("t", unique="k")
    results = queue.enqueue_many([t.call(1), t.call(2), queue.named("t").call(3)], atomic=True)
    assert outcomes(results) == ["ok"] * 3
    assert [one.receipt.duplicate for one in results] == [False, True, False]
    assert (queue.stats().jobs, queue.stats().admitted) == (2, 2)


def test_atomic_is_one_script(fake: Env) -> None:
    """More than one script can take is refused in words, not split in silence (R-38)."""
    queue = fake.queue()
    with pytest.raises(ConfigError) as raised:
        queue.enqueue_many([b"x"] * 501, atomic=True)
    assert "500" in str(raised.value)
    assert len(queue.enqueue_many([b"x"] * 500, atomic=True)) == 500
    with pytest.raises(ConfigError) as raised:
        queue.enqueue_many([b"x"] * 101, atomic=True, delay=1)
    assert "100" in str(raised.value)
    assert queue.stats().jobs == 500


def test_atomic_is_bounded_in_bytes(fake: Env) -> None:
    """One script is bounded in bytes too, whether or not it is all or nothing: at most some megabytes in a request."""
    queue = fake.queue(limits=Limits(max_bytes="1 GiB"))
    with pytest.raises(ConfigError):
        queue.enqueue_many([b"x" * 250_000] * 100, atomic=True)


def test_too_large_in_the_middle(env: Env) -> None:
    """A job that is too large is refused by itself; those around it are admitted."""
    queue = env.queue(limits=Limits(max_job_bytes=100))
    results = queue.enqueue_many([b"1", b"x" * 500, b"2", b"x" * 600, b"3"])
    assert outcomes(results) == ["ok", "job_bytes", "ok", "job_bytes", "ok"]
    assert [one.rejection.requested for one in results if not one.ok] == [509, 609]
    assert take(queue) == [b"1", b"2", b"3"]


def test_too_large_behind_the_limit(env: Env) -> None:
    """Where the queue is full before the job that is too large, every job is told what became of itself."""
    queue = env.queue(limits=Limits(max_jobs=2, max_job_bytes=100))
    results = queue.enqueue_many([b"1", b"2", b"3", b"4", b"x" * 500, b"5"])
    assert outcomes(results)[:4] == ["ok", "ok", "jobs", "jobs"]
    assert outcomes(results)[4] in ("job_bytes", "jobs"), "either is true of it"
    assert outcomes(results)[5] == "jobs"
    assert queue.stats().jobs == 2
    assert take(queue) == [b"1", b"2"]


def test_too_large_found_by_the_script(env: Env) -> None:
    """The same where the limit was lowered behind the client's back: the script refuses that one job."""
    queue, other = env.queue(), env.queue()
    queue.enqueue_bytes(b"0")
    other.configure(Limits(max_job_bytes=100))
    results = queue.enqueue_many([b"1", b"x" * 500, b"2"])
    assert outcomes(results) == ["ok", "job_bytes", "ok"]
    assert take(queue) == [b"0", b"1", b"2"]


def test_sealed_queue(env: Env) -> None:
    """Every job of a batch is told that the queue is sealed, and by whom."""
    queue = env.queue()
    queue.seal("ops")
    for atomic in (True, False):
        results = queue.enqueue_many([b"1", b"2"], atomic=atomic)
        assert outcomes(results) == ["sealed"] * 2
        assert results[1].rejection.by == "ops"
    assert queue.stats().rejected["sealed"] >= 2


def test_bad_payload_among_good_ones(fake: Env) -> None:
    """A payload that is no bytes is refused by itself; where it is the first, the call raises and nothing is sent."""
    queue = fake.queue()
    first, wrong, last = queue.enqueue_many([b"1", "text", b"2"])
    assert (first.ok, last.ok, type(wrong.error)) == (True, True, ConfigError)
    with pytest.raises(ConfigError):
        queue.enqueue_many(["text", b"2"])
    assert queue.stats().jobs == 2


def test_large_batch_in_bytes(env: Env) -> None:
    """Megabytes of payloads go out in chunks and arrive whole and in order."""
    queue = env.queue()
    given = [bytes([number]) * 200_000 for number in range(20)]
    assert outcomes(queue.enqueue_many(given)) == ["ok"] * 20
    found: list[bytes] = []
    while some := take(queue):
        found += some
    assert found == given


def test_jobs_of_a_batch_are_like_any(env: Env) -> None:
    """Ids out of a batch work in every call that takes one."""
    queue = env.queue()
    first, second, third = (one.receipt.id for one in queue.enqueue_many([b"1", b"2", b"3"]))
    assert queue.position(third) == 2
    assert queue.cancel(second)
    assert claim_one(queue).id == first
    assert claim_one(queue).id == third
