"""Pause, seal, configure: what one client sets holds for all from their next call on."""

from __future__ import annotations

import pytest

from boundq import ConfigError, Limits, QueueSealed
from tests.contract._env import Env, claim_one, take


@pytest.mark.everywhere
def test_pause_stops_claims_only(env: Env) -> None:
    """A paused queue gives out nothing, takes jobs up to its limits, and lets go of what is active (R-51)."""
    queue, other = env.queue(max_jobs=3), env.queue(max_jobs=3)
    queue.enqueue_bytes(b"1")
    lease = claim_one(other)
    assert queue.pause("ada: database is down")
    assert other.claim(10) == []
    other.enqueue_bytes(b"2")
    other.enqueue_bytes(b"3")
    assert other.try_enqueue_bytes(b"4").reason == "jobs"
    lease.extend()
    lease.ack()
    stats = other.stats()
    assert stats.paused_by == "ada: database is down"
    assert stats.paused_since == pytest.approx(env.now(), abs=5)
    assert queue.resume()
    assert other.stats().paused_since is None
    assert other.stats().paused_by == ""
    assert take(other) == [b"2", b"3"]


def test_pause_keeps_expired_leases(env: Env) -> None:
    """While paused, a lease that runs out is not given to another; after the resume it is."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    queue.claim(lease=0.1)
    queue.pause()
    env.elapse(0.3)
    assert queue.claim() == []
    queue.resume()
    assert claim_one(queue).attempt == 2


@pytest.mark.everywhere
def test_seal_stops_admission_only(env: Env) -> None:
    """A sealed queue refuses every enqueue, and claim, ack, retry go on (R-81)."""
    queue, other = env.queue(), env.queue()
    queue.enqueue_many([b"1", b"2"])
    other.stats()
    assert queue.seal("deploy")
    with pytest.raises(QueueSealed) as raised:
        other.enqueue_bytes(b"3")
    assert (raised.value.queue, raised.value.reason, raised.value.by) == (env.name, "sealed", "deploy")
    assert raised.value.since == pytest.approx(env.now(), abs=5)
    for options in ({"delay": 5}, {"unique": "k"}, {"priority": "high"}, {"wait": 0.2}):
        with pytest.raises(QueueSealed):
            other.enqueue_bytes(b"3", **options)
    claim_one(other).retry()
    assert sorted(take(other)) == [b"1", b"2"]
    assert other.stats().sealed_by == "deploy"
    assert queue.unseal()
    other.enqueue_bytes(b"3")
    assert other.stats().sealed_since is None


def test_sealed_queue_answers_a_held_key(env: Env) -> None:
    """Sealed is about new jobs: nothing is admitted, not even where a duplicate would add nothing."""
    queue = env.queue()
    queue.enqueue_bytes(b"1", unique="k")
    queue.seal()
    assert queue.try_enqueue_bytes(b"2", unique="k").reason == "sealed"
    assert queue.stats().admitted == 1


@pytest.mark.parametrize(("on", "off"), [("pause", "resume"), ("seal", "unseal")])
def test_switches_say_whether_they_changed_anything(env: Env, on: str, off: str) -> None:
    """The second pause is none, and does not take over the first one's name."""
    queue = env.queue()
    assert not getattr(queue, off)()
    assert getattr(queue, on)("first")
    assert not getattr(queue, on)("second")
    stats = queue.stats()
    assert "first" in (stats.paused_by, stats.sealed_by)
    assert getattr(queue, off)("third")
    assert not getattr(queue, off)()


@pytest.mark.parametrize("by", ["", "ž" * 150, "x" + "ž" * 100, "x" * 1000, "5", "²", "-", "a\nb\x1b[31m"], ids=ascii)
def test_any_name_for_who_did_it(env: Env, by: str) -> None:
    """Whatever text says who did it, nothing breaks: it is kept, cut to a bound at a character."""
    queue = env.queue()
    assert queue.pause(by)
    assert queue.seal(by)
    stats = queue.stats()
    assert by.startswith(stats.paused_by)
    assert stats.paused_by == stats.sealed_by
    assert min(len(by.encode()), 199) <= len(stats.paused_by.encode()) <= 200
    assert queue.try_enqueue_bytes(b"x").by == stats.sealed_by


@pytest.mark.everywhere
def test_configure_holds_for_everybody(env: Env) -> None:
    """New limits are those of every client's next call (R-60), and stats show them."""
    queue, other = env.queue(max_jobs=1), env.queue(max_jobs=1)
    other.enqueue_bytes(b"1")
    assert other.try_enqueue_bytes(b"2").reason == "jobs"
    wanted = Limits(
        max_jobs=2,
        max_bytes=123_456,
        max_job_bytes=1000,
        max_dead_jobs=3,
        max_dead_bytes=7000,
        dead_ttl=3600.5,
        max_deliveries=4,
        max_age=86400,
    )
    assert queue.configure(wanted, "ada")
    assert not queue.configure(wanted, "ada"), "it was so already"
    assert other.stats().limits == wanted
    other.enqueue_bytes(b"2")
    assert other.try_enqueue_bytes(b"x" * 1000).reason == "job_bytes"


def test_configure_wants_limits(fake: Env) -> None:
    """Anything but `Limits` is refused by name."""
    with pytest.raises(ConfigError) as raised:
        fake.queue().configure({"max_jobs": 5})
    assert raised.value.setting == "limits"


@pytest.mark.everywhere
def test_changes_are_recorded(env: Env) -> None:
    """Each change is one entry of the queue's events: what, by whom, from, to; and nothing else is."""
    queue = env.queue(max_jobs=5)
    queue.enqueue_bytes(b"x")
    queue.pause("ada")
    queue.pause("bob")
    queue.resume("ada")
    queue.seal("ada")
    queue.unseal("bob")
    queue.configure(Limits(max_jobs=6), "cyd")
    take(queue)
    entries = [
        {key.decode(): value.decode() for key, value in zip(fields[::2], fields[1::2], strict=True)}
        if isinstance(fields, list)
        else {key.decode(): value.decode() for key, value in fields.items()}
        for _, fields in env.command("XRANGE", env.key("events"), "-", "+")
    ]
    assert [(entry["event"], entry["by"]) for entry in entries] == [
        *(("pause", "ada"), ("resume", "ada"), ("seal", "ada"), ("unseal", "bob"), ("limits", "cyd")),
    ]
    assert (entries[-1]["from"], entries[-1]["to"]) == ("max_jobs=5", "max_jobs=6")
