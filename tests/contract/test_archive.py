"""Purge into a file and restore from it: nothing is lost, nothing comes back twice, and the limits hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boundq import ConfigError, DataError, Limits
from boundq.sync import archive
from tests.contract._env import Env


@pytest.fixture(autouse=True)
def _has_a_sync_twin(env: Env) -> None:
    if env.server is None and env.shell == "async":
        pytest.skip("files are worked on by the queue's sync twin, for which an asyncio fakeredis has no client")


def payloads(env: Env, queue: object) -> list[bytes]:
    """What the queue gives out until it is empty."""
    found = []
    while leases := queue.claim(100):  # type: ignore[attr-defined]  # either shell
        found += [lease.payload for lease in leases]
        queue.settle(acks=leases)  # type: ignore[attr-defined]  # likewise
    return found


@pytest.mark.everywhere
def test_purged_jobs_come_back_as_they_were(env: Env, tmp_path: Path) -> None:
    """Payload, task, headers, priority and order; the old id is in a header, and the age goes on."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"%d" % number for number in range(1250)])
    queue.enqueue_bytes(b"urgent", priority="critical", headers={"a": "b"})
    later = queue.enqueue_bytes(b"later", delay=3600)
    created = queue.get(later.id).created
    assert queue.purge(to=file) == 1252
    stats = queue.stats()
    assert (stats.jobs, stats.bytes, stats.purged) == (0, 0, 1252)
    said = queue.restore(file)
    assert (said.restored, said.before, said.left, said.damaged, said.reason) == (1252, 0, 0, [], "")
    (scheduled,) = queue.peek("scheduled").jobs
    assert (scheduled.payload, scheduled.created, scheduled.headers) == (
        b"later",
        created,
        {"boundq-restored": later.id},
    )
    (first,) = queue.claim()
    assert (first.payload, first.headers["a"], first.priority) == (b"urgent", "b", "critical")
    first.ack()
    assert payloads(env, queue) == [b"%d" % number for number in range(1250)]


def test_restoring_twice_equals_once(env: Env, tmp_path: Path) -> None:
    """Also where the jobs are done meanwhile; what is back counts as before."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"1", b"2"])
    queue.purge(to=file)
    assert queue.restore(file).restored == 2
    assert payloads(env, queue) == [b"1", b"2"]
    again = queue.restore(file)
    assert (again.restored, again.before) == (0, 2)
    assert queue.stats().jobs == 0


def test_restore_obeys_the_limits_and_goes_on(env: Env, tmp_path: Path) -> None:
    """It stops at a full queue, says how many are left, and does the rest when it is called again."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"%d" % number for number in range(5)])
    queue.purge(to=file)
    queue.configure(Limits(max_jobs=3))
    said = queue.restore(file)
    assert (said.restored, said.left) == (3, 2)
    assert "full" in said.reason
    assert payloads(env, queue) == [b"0", b"1", b"2"]
    assert queue.restore(file).restored == 2
    assert payloads(env, queue) == [b"3", b"4"]


@pytest.mark.parametrize("crash", ["before", "after", "half a line"])
def test_purge_interrupted_loses_and_doubles_nothing(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    """A crash before or after the deletion, or in the middle of a line: the same file is gone on with."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"%d" % number for number in range(1250)])
    sync = queue.inner.sync if env.shell == "async" else queue
    remove, calls = sync._remove, []

    def dying(ids: list[str]) -> list[str]:
        calls.append(len(ids))
        if len(calls) == 2:
            if crash == "after":
                remove(ids)
            raise KeyboardInterrupt
        return remove(ids)

    monkeypatch.setattr(sync, "_remove", dying)
    with pytest.raises(KeyboardInterrupt):
        archive.purge_to(sync, file, ["ready"])
    monkeypatch.undo()
    if crash == "half a line":
        with open(file, "a") as out:
            out.write('{"id": "9')
    archive.purge_to(sync, file, ["ready"])
    assert queue.stats().jobs == 0
    assert queue.restore(file).restored == 1250
    assert sorted(payloads(env, queue), key=int) == [b"%d" % number for number in range(1250)]


def test_damaged_line_is_reported_and_the_rest_goes_on(env: Env, tmp_path: Path) -> None:
    """By its number; the other jobs come back."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"1", b"2", b"3"])
    queue.purge(to=file)
    lines = file.read_text().splitlines()
    lines[2] = lines[2][:20]
    file.write_text("\n".join(lines) + "\n")
    said = queue.restore(file)
    assert (said.restored, said.damaged) == (2, [3])
    assert payloads(env, queue) == [b"1", b"3"]


def test_dead_letters_and_unique_keys(env: Env, tmp_path: Path) -> None:
    """Dead letters come back as jobs; a job with a unique key of its own keeps it."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_bytes(b"x", unique="k")
    queue.purge(to=file)
    queue.restore(file)
    assert queue.enqueue_bytes(b"y", unique="k").duplicate
    (lease,) = queue.claim()
    lease.bury("bad")
    assert queue.purge("dead", to=tmp_path / "dead") == 1
    assert queue.restore(tmp_path / "dead").restored == 1
    assert payloads(env, queue) == [b"x"]


def test_files_that_are_none(env: Env, tmp_path: Path) -> None:
    """A file of another queue, or of nothing of ours, is refused and not touched; a missing queue makes no file."""
    queue, other = env.queue(), env.queue(env.other("other"))
    queue.enqueue_bytes(b"x")
    other.enqueue_bytes(b"y")
    queue.purge(to=tmp_path / "jobs")
    with pytest.raises(ConfigError):
        other.purge(to=tmp_path / "jobs")
    (tmp_path / "text").write_text("hello\n")
    for call in (lambda: other.purge(to=tmp_path / "text"), lambda: other.restore(tmp_path / "text")):
        with pytest.raises(DataError):
            call()
    assert (tmp_path / "text").read_text() == "hello\n"
    assert other.stats().jobs == 1
    assert json.loads((tmp_path / "jobs").read_text().splitlines()[0])["queue"] == queue.name
