"""Tasks: declared, called, enqueued from either side, with options and defaults."""

from __future__ import annotations

import msgspec
import pytest

from boundq import ConfigError, QueueFull, Rejection
from tests.contract._env import Env, claim_one, take


def test_decorator_without_parentheses(env: Env) -> None:
    """``@queue.task`` registers the function under its name; calling it runs it here and now."""
    queue = env.queue()

    @queue.task
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert add(1) == 3
    assert (add.name, add.retries, add.timeout, add.__name__) == ("add", 3, None, "add")
    assert getattr(add, "inner", add).__doc__ == "Adds."
    assert set(queue.tasks) == {"add"}
    assert queue.stats().admitted == 0, "calling it enqueues nothing"


def test_decorator_with_parentheses(env: Env) -> None:
    """Name, retries, time-out and defaults of its jobs."""
    queue = env.queue()

    @queue.task(name="other", retries=0, timeout=30, priority="high", headers={"h": "1"})
    def add(a: int) -> int:
        return a

    assert (add.name, add.retries, add.timeout) == ("other", 0, 30.0)
    job = queue.get(add.enqueue(1).id)
    assert (job.task, job.priority, job.headers) == ("other", "high", {"h": "1"})


def test_options_replace_defaults(env: Env) -> None:
    """Options of a call replace those of the declaration, one by one, and last for that call."""
    queue = env.queue()

    @queue.task(priority="high", headers={"h": "1"})
    def t(a: int) -> None: ...

    special = queue.get(t.options(priority="low", delay=60).enqueue(1).id)
    assert (special.priority, special.headers, special.state) == ("low", {"h": "1"}, "scheduled")
    usual = queue.get(t.enqueue(1).id)
    assert (usual.priority, usual.state) == ("high", "ready")
    none = queue.get(t.options(headers=None).enqueue(1).id)
    assert none.headers == {}


def test_defaults_hold_through_the_queue(env: Env) -> None:
    """``queue.enqueue(task)`` uses the task's defaults; its bare name knows none."""
    queue = env.queue()

    @queue.task(priority="critical")
    def t(a: int) -> None: ...

    assert queue.get(queue.enqueue(t, 1).id).priority == "critical"
    assert queue.get(queue.enqueue("t", 1).id).priority == "normal"
    assert queue.get(queue.named("t", priority="low").enqueue(1).id).priority == "low"


def test_try_enqueue_of_a_task(env: Env) -> None:
    """A task's ``try_enqueue`` returns the refusal, its ``enqueue`` raises it."""
    queue = env.queue(max_jobs=1)
    t = queue.named("t")
    t.enqueue(1)
    assert isinstance(t.try_enqueue(2), Rejection)
    with pytest.raises(QueueFull):
        t.enqueue(2)


def test_call_is_not_sent(env: Env) -> None:
    """``task.call(...)`` is a job for `enqueue_many`; it may be used twice."""
    queue = env.queue()
    call = queue.named("t", priority="high").call(1, x=2)
    assert queue.stats().admitted == 0
    assert all(one.ok for one in queue.enqueue_many([call, call]))
    assert take(queue) == [b'[[1],{"x":2}]'] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"timeout": 0},
        {"timeout": "30"},
        {"priority": "urgent"},
        {"delay": -1},
        {"colour": "red"},
        {"wait": -1},
        {"deadline": "soon"},
        {"name": "a b"},
    ],
    ids=str,
)
def test_bad_default_is_an_error_at_once(fake: Env, options: dict) -> None:
    """A mistake in a declaration shows where it is made, not at the first enqueue."""
    with pytest.raises(ConfigError):
        fake.queue().task(**options)(lambda: None)


def test_name_is_taken_once(fake: Env) -> None:
    """Two tasks of one name in one queue are a mistake."""
    queue = fake.queue()
    queue.task(name="t")(lambda: None)
    with pytest.raises(ConfigError) as raised:
        queue.task(name="t")(lambda: None)
    assert "t" in str(raised.value)
    fake.queue(fake.other("b")).task(name="t")(lambda: None)


@pytest.mark.parametrize("thing", [None, 5, lambda: None], ids=["none", "int", "function"])
def test_enqueue_of_what_is_no_task(fake: Env, thing: object) -> None:
    """A plain function is no task: it has no name that a worker knows."""
    with pytest.raises(ConfigError):
        fake.queue().enqueue(thing, 1)


@pytest.mark.everywhere
def test_one_task_from_both_sides(real: Env) -> None:
    """
    A task has `enqueue` and `aenqueue`, whichever queue class it was declared on.

    Not on fakeredis: its client is for threads or for asyncio, and serves only the shell that it was made for.
    """
    queue = real.queue()
    declared = queue.task(name="t")(lambda a: None)
    task = getattr(declared, "inner", declared)
    first = task.enqueue(1)  # of the real Task, both ways
    second = real.run(task.aenqueue(2))
    assert (first.jobs, second.jobs) == (1, 2)
    assert [msgspec.json.decode(payload)[0] for payload in take(queue)] == [[1], [2]]
    real.run((queue.inner if real.shell == "async" else queue.aio).close())


def test_twins_share_tasks_and_knowledge(real: Env) -> None:
    """``queue.aio.sync`` is the queue itself; tasks declared on one are known to the other. Real, as above."""
    queue = real.queue()
    inner = getattr(queue, "inner", queue)
    assert inner.aio.sync is inner or inner.sync.aio is inner
    assert inner.aio.aio is inner.aio
    inner.task(name="t")(lambda: None)
    assert inner.aio.tasks is inner.sync.tasks
    assert set(inner.aio.tasks) == {"t"}
    inner.sync.enqueue("t")
    lease = claim_one(queue)
    lease.ack()
    real.run(inner.aio.close())


def test_twin_on_a_client_of_the_other_kind(fake: Env) -> None:
    """A client that can serve one shell only says so, in words, when the other is asked."""
    queue = fake.queue()
    task = queue.named("t")
    task = getattr(task, "inner", task)
    enqueue = (lambda: fake.run(task.aenqueue(1))) if fake.shell == "sync" else (lambda: task.enqueue(1))
    with pytest.raises(ConfigError):
        enqueue()
