"""Purge into a file and restore from it: nothing is lost, nothing comes back twice, and the limits hold."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from boundq import ConfigError, DataError, Limits, Queue, Unavailable
from boundq._archive import journal as journals
from boundq._archive import lines as files
from boundq._archive import purged
from boundq._envelope import stamp
from boundq._job import JobOptions, prepare
from boundq.sync import archive
from tests.contract._env import Env

NAMES = ["jobs.ndjson", "jobs.zst"]


@pytest.fixture(autouse=True)
def _has_a_sync_twin(env: Env) -> None:
    if env.server is None and env.shell == "async":
        pytest.skip("files are worked on by the queue's sync twin, for which an asyncio fakeredis has no client")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs in a step, so that a few jobs make several."""
    for name in ("STEP", "MOST_PLAIN", "MOST_GENERAL"):
        monkeypatch.setattr(archive, name, 3)


def payloads(queue: Any) -> list[bytes]:
    """What the queue gives out until it is empty."""
    found = []
    while leases := queue.claim(100):
        found += [lease.payload for lease in leases]
        queue.settle(acks=leases)
    return found


def queue_of_threads(queue: Any) -> Queue:
    """The queue for what is to crash in this thread."""
    found: Queue = queue if isinstance(queue, Queue) else queue.inner.sync
    return found


def numbered(n: int) -> list[bytes]:
    return [b"%d" % number for number in range(n)]


# ---------------------------------------------------------------- there and back


@pytest.mark.everywhere
@pytest.mark.parametrize("name", NAMES)
def test_purged_jobs_come_back_as_they_were(env: Env, tmp_path: Path, name: str) -> None:
    """Payload, task, headers, priority, due time, expiry and order; the first id is in a header, the age goes on."""
    queue, file = env.queue(), tmp_path / name
    queue.enqueue_many(numbered(1250))
    queue.enqueue_bytes(b"urgent", priority="critical", headers={"a": "b"})
    later = queue.enqueue_bytes(b"later", delay=3600, expires=7200)
    before = queue.get(later.id)
    assert queue.purge(to=file) == 1252
    stats = queue.stats()
    assert (stats.jobs, stats.bytes, stats.purged) == (0, 0, 1252)
    said = queue.restore(file)
    assert (said.restored, said.before, said.left, said.damaged, said.reason) == (1252, 0, 0, [], "")
    assert not said.unfinished
    (scheduled,) = queue.peek("scheduled").jobs
    assert scheduled.headers == {"boundq-restored": later.id}
    assert (scheduled.payload, scheduled.created, scheduled.due, scheduled.expires) == (
        before.payload,
        before.created,
        before.due,
        before.expires,
    )
    (first,) = queue.claim()
    assert (first.payload, first.headers["a"], first.priority) == (b"urgent", "b", "critical")
    first.ack()
    assert payloads(queue) == numbered(1250)


def test_first_id_is_kept_over_several_purges(env: Env, tmp_path: Path) -> None:
    """A job that is purged and restored twice still has the id it had first."""
    queue = env.queue()
    first = queue.enqueue_bytes(b"x").id
    for turn in "ab":
        assert queue.purge(to=tmp_path / turn) == 1
        assert queue.restore(tmp_path / turn).restored == 1
    (job,) = queue.peek().jobs
    assert job.id != first
    assert job.headers == {"boundq-restored": first}


def test_restoring_twice_equals_once(env: Env, tmp_path: Path) -> None:
    """Also where the jobs are done meanwhile; what is back counts as before."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(2))
    queue.purge(to=file)
    assert queue.restore(file).restored == 2
    assert payloads(queue) == numbered(2)
    again = queue.restore(file)
    assert (again.restored, again.before) == (0, 2)
    assert queue.stats().jobs == 0


def test_restore_obeys_the_limits_and_goes_on(env: Env, tmp_path: Path) -> None:
    """It stops at a full queue, says how many are left, and does the rest when it is called again."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(5))
    queue.purge(to=file)
    queue.configure(Limits(max_jobs=3))
    said = queue.restore(file)
    assert (said.restored, said.left) == (3, 2)
    assert "full" in said.reason
    again = queue.restore(file)
    assert (again.restored, again.before, again.left) == (0, 3, 2)
    assert payloads(queue) == numbered(3)
    assert queue.restore(file).restored == 2
    assert payloads(queue) == [b"3", b"4"]


def test_restore_waits_for_room(env: Env, tmp_path: Path) -> None:
    """With ``wait`` it goes on as room is made, in order, until it is through."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(12))
    queue.purge(to=file)
    queue.configure(Limits(max_jobs=5))
    restoring = env.background(lambda: env.queue().restore(file, wait=60))
    found: list[bytes] = []
    while len(found) < 12:
        found += payloads(queue)
    assert found == numbered(12)
    said = restoring.result(60)
    assert (said.restored, said.left, said.reason) == (12, 0, "")


def test_restore_leaves_room(env: Env, tmp_path: Path) -> None:
    """``until_fill``: only so much of the limits is used, whatever came in meanwhile."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(10))
    queue.purge(to=file)
    queue.configure(Limits(max_jobs=10))
    queue.enqueue_bytes(b"new")
    said = queue.restore(file, until_fill=0.5)
    assert (said.restored, said.left) == (4, 6)
    assert "filled to 50%" in said.reason


def test_restore_keeps_to_a_rate(env: Env, tmp_path: Path) -> None:
    """Not faster than asked for, by the clock."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(40))
    queue.purge(to=file)
    start = time.monotonic()
    seen: list[int] = []
    said = queue.restore(file, rate=50, progress=lambda done, total: seen.append(done))
    assert said.restored == 40
    assert time.monotonic() - start >= (40 - 10) / 50  # the last step is not waited after
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 10


def test_job_that_is_too_large_now_is_left_out(env: Env, tmp_path: Path) -> None:
    """It is counted, the others come back, and it does when the limit is raised."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"a", b"x" * 5000, b"b"])
    queue.purge(to=file)
    queue.configure(Limits(max_job_bytes=1000))
    said = queue.restore(file)
    assert (said.restored, said.large, said.left) == (2, 1, 0)
    assert payloads(queue) == [b"a", b"b"]
    queue.configure(Limits())
    assert queue.restore(file).restored == 1
    assert payloads(queue) == [b"x" * 5000]


def test_dry_run_changes_nothing(env: Env, tmp_path: Path) -> None:
    """It says what there is to do; no job, no journal is made."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(7))
    queue.purge(to=file)
    said = queue.restore(file, dry_run=True)
    assert (said.restored, said.left, said.before) == (0, 7, 0)
    assert queue.stats().jobs == 0
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]


def test_dead_letters_come_back_when_they_are_asked_for(env: Env, tmp_path: Path) -> None:
    """As jobs to run; a restore of everything leaves them in the file, and says so."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many([b"bad", b"good"])
    (lease,) = queue.claim()
    lease.bury("why", "a text")
    assert queue.purge("ready", "dead", to=file) == 2
    assert queue.stats().dead == 0
    said = queue.restore(file)
    assert (said.restored, said.dead, said.left) == (1, 1, 0)
    assert payloads(queue) == [b"good"]
    said = queue.restore(file, "dead")
    assert (said.restored, said.before, said.dead) == (1, 1, 0)
    assert payloads(queue) == [b"bad"]


def test_unique_keys(env: Env, tmp_path: Path) -> None:
    """A job comes back with its key; where another job holds it by now, that one stands for it."""
    queue = env.queue()
    for turn in "ab":
        queue.enqueue_bytes(b"x", unique="k")
        queue.purge(to=tmp_path / turn)
    assert queue.restore(tmp_path / "a").restored == 1
    assert queue.enqueue_bytes(b"y", unique="k").duplicate
    said = queue.restore(tmp_path / "b")
    assert (said.restored, said.duplicates) == (1, 1)
    assert payloads(queue) == [b"x"]


def test_restore_into_another_queue(env: Env, tmp_path: Path) -> None:
    """A file's jobs are once in all queues together, so the second one is refused, and told what to do."""
    queue, other, file = env.queue(), env.queue(env.other("b")), tmp_path / "jobs"
    queue.enqueue_many(numbered(3))
    queue.purge(to=file)
    assert other.restore(file).restored == 3
    assert payloads(other) == numbered(3)
    with pytest.raises(ConfigError, match="go on there"):
        queue.restore(file)


# ---------------------------------------------------------------- selections


def test_filters_against_an_independent_selection(env: Env, tmp_path: Path) -> None:
    """Task, age, priority, state and limit choose what a plain loop over everything chooses."""
    queue = env.queue()
    tasks, levels = ("send", "render", ""), ("low", "normal", "critical")
    made: list[tuple[str, str, str, bool, bool]] = []
    hour_ago = stamp(round(env.now() * 1000) - 3_600_000)
    for number in range(72):
        task, level = tasks[number % 3], levels[number // 3 % 3]
        delayed, old = number % 4 == 0, number % 5 < 2
        options: JobOptions = {"priority": level, **({"delay": 500} if delayed else {})}  # type: ignore[typeddict-item]
        job = prepare(env.name, task, b"[[], {}]", options)
        if old:
            job = msgspec.structs.replace(job, created=hour_ago)
        (result,) = queue.enqueue_many([job])
        made.append((result.receipt.id, task, level, delayed, old))
    choices: list[dict[str, Any]] = [
        {"task": "send"},
        {"task": ""},
        {"priority": "critical"},
        {"older_than": 1800},
        {"task": "render", "priority": "low"},
    ]
    left = list(made)
    for place, choice in enumerate(choices):
        for states in (("ready",), ("scheduled",), ()):
            old_only = "older_than" in choice
            chosen = {
                job[0]
                for job in left
                if job[1] == choice.get("task", job[1])
                and job[2] == choice.get("priority", job[2])
                and (job[4] or not old_only)
                and (not states or job[3] == (states == ("scheduled",)))
            }
            assert queue.matching(*states, **choice).jobs == len(chosen)
            if chosen and states:
                assert queue.matching(*states, **choice, limit=1).jobs == 1
            file = tmp_path / f"{place}{''.join(states)}"
            assert queue.purge(*states, to=file, **choice) == len(chosen)
            entries = [json.loads(line) for line in file.read_text().splitlines()]
            assert {entry["id"] for entry in entries if "id" in entry} == chosen
            left = [job for job in left if job[0] not in chosen]
    found = {job.id for state in ("ready", "scheduled") for job in queue.peek(state, n=100).jobs}
    assert found == {job[0] for job in left}


def test_limit_holds_over_interruptions_and_takes_in_order(env: Env, tmp_path: Path) -> None:
    """So many at most, those that would have come first; without a file as well."""
    queue = env.queue()
    queue.enqueue_many(numbered(10))
    assert queue.purge(to=tmp_path / "jobs", limit=4) == 4
    assert queue.purge(limit=3) == 3
    assert payloads(queue) == [b"7", b"8", b"9"]
    assert queue.restore(tmp_path / "jobs").restored == 4
    assert payloads(queue) == numbered(4)


def test_matching_counts_jobs_and_bytes(env: Env) -> None:
    """The bytes are those of the envelopes: version, flags, time, name, payload."""
    queue = env.queue()
    queue.enqueue_many([b"x" * 100] * 3)
    found = queue.matching()
    assert (found.jobs, found.bytes) == (3, 3 * (8 + 1 + 100))
    assert queue.matching("dead").jobs == 0


def test_active_jobs_are_purged_when_asked_for(env: Env, tmp_path: Path) -> None:
    """By default they are not; when they are, their leases are lost."""
    queue = env.queue()
    queue.enqueue_many(numbered(2))
    (lease,) = queue.claim()
    assert queue.purge(to=tmp_path / "a") == 1
    assert queue.stats().active == 1
    assert queue.purge("active", to=tmp_path / "b") == 1
    assert queue.settle(acks=[lease]) == [lease]
    assert queue.restore(tmp_path / "b").restored == 1
    assert payloads(queue) == [b"0"]


def test_job_that_is_claimed_in_between_stays(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_steps: None
) -> None:
    """A worker was faster than the deletion: the job is the worker's, and does not come back from the file."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(9))
    take, claimed = archive._take, []

    def late(source: Any, mark: str, number: int, which: str, ids: Any) -> Any:
        if number == 1 and ids:
            claimed.extend(queue.claim(2))
        return take(source, mark, number, which, ids)

    monkeypatch.setattr(archive, "_take", late)
    assert queue.purge(to=file) == 7
    assert [lease.payload for lease in claimed] == [b"0", b"1"]
    assert queue.settle(acks=claimed) == []
    assert queue.restore(file).restored == 7
    assert payloads(queue) == numbered(9)[2:]


def test_purged_heads_leave_no_holes(env: Env, tmp_path: Path) -> None:
    """The oldest ready job is found at once after a purge of those before it: nothing is stepped over again."""
    queue = env.queue()
    queue.enqueue_many(numbered(1500))
    queue.purge(to=tmp_path / "jobs", limit=1400)
    assert queue.stats().oldest_age > 0 or env.server is None
    assert int(env.command("HGET", env.key("state"), "head1")) == 1400
    assert payloads(queue) == numbered(1500)[1400:]


# ---------------------------------------------------------------- crashes


class Crash(BaseException):
    """The process ends here."""


class Bomb:
    """Counts the steps that leave a trace, and ends the process before or after one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._steps = 0
        self._at: int | None = None
        self._after = False
        for module, name in (
            (purged, "write"),
            (journals, "write"),
            (archive, "_take"),
            (archive, "_admit_once"),
            (journals.Journal, "back"),
        ):
            patch.setattr(module, name, self._wrapped(getattr(module, name)))

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._steps += 1
            here = self._steps == self._at
            if here and not self._after:
                raise Crash
            result = function(*args, **kwargs)
            if here:
                raise Crash
            return result

        return call

    def runs_through(self, work: Callable[[], Any], at: int, after: bool) -> bool:
        """Whether the work came to its end before its step number ``at``."""
        self._steps, self._at, self._after = 0, at, after
        try:
            work()
        except Crash:
            return False
        finally:
            self._at = None
        return True


@pytest.fixture
def bomb(monkeypatch: pytest.MonkeyPatch, small_steps: None) -> Bomb:
    return Bomb(monkeypatch)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", NAMES)
def test_crash_at_each_step_loses_and_doubles_nothing(
    env: Env, tmp_path: Path, bomb: Bomb, name: str, after: bool
) -> None:
    """
    A purge, and a restore, that die before, or after, each write, deletion and admission in turn, while a worker does a
    job between any two attempts: each job is done, or in the file and then back, exactly once.
    """
    queue = env.queue()
    sync = queue_of_threads(queue)
    for at in count(1):
        file, done = tmp_path / f"{at}{name}", list[bytes]()

        def work(n: int, done: list[bytes] = done) -> None:
            leases = queue.claim(n)
            done.extend(lease.payload for lease in leases)
            queue.settle(acks=leases)

        queue.enqueue_many(numbered(10))
        queue.enqueue_many([b"10", b"11"], delay=0.001, priority="high")
        through = bomb.runs_through(lambda f=file: archive.purge_to(sync, f, CHOSEN, None), at, after)
        work(2)
        if not through:
            with suppress(ConfigError):  # it had been finished, to the last word
                archive.purge_to(sync, file, CHOSEN, None)
        assert queue.stats().jobs == 0
        back = bomb.runs_through(lambda f=file: sync.restore(f), at, after)
        work(12)
        if not back:
            sync.restore(file)
        work(12)
        assert sorted(done, key=int) == numbered(12), f"step {at}"
        if through and back:
            assert at > 12
            return


CHOSEN = archive.select(("ready", "scheduled"))


def test_unfinished_file_can_be_restored(env: Env, tmp_path: Path, bomb: Bomb) -> None:
    """Whatever was deleted comes back, and what was not is left where it is; then the purge may go on."""
    queue = env.queue()
    sync = queue_of_threads(queue)
    for at in count(1):
        file = tmp_path / f"{at}jobs"
        queue.enqueue_many(numbered(8))
        if bomb.runs_through(lambda f=file: archive.purge_to(sync, f, CHOSEN, None), at, after=True):
            break
        if at > 1:
            said = queue.restore(file)
            assert said.unfinished == (b'"end"' not in file.read_bytes())
            assert said.reason == ""
        assert sorted(payloads(queue), key=int) == numbered(8), f"step {at}"
    assert at > 6


def test_somebody_else_purged_in_between(env: Env, tmp_path: Path, bomb: Bomb) -> None:
    """Then the queue remembers the other purge; what is still there is kept, what is not counts as deleted."""
    queue, file = env.queue(), tmp_path / "jobs"
    sync = queue_of_threads(queue)
    queue.enqueue_many(numbered(9))
    assert not bomb.runs_through(lambda: archive.purge_to(sync, file, CHOSEN, None), 5, after=False)
    assert queue.purge(to=tmp_path / "other", limit=1) == 1
    archive.purge_to(sync, file, CHOSEN, None)
    assert queue.restore(file).restored + queue.restore(tmp_path / "other").restored >= 9
    assert sorted(set(payloads(queue)), key=int) == numbered(9)


def test_lost_answers(env: Env, tmp_path: Path, proxy: Any, small_steps: None) -> None:
    """The reply to any call of a purge or a restore is lost: its second sending is recognised."""
    if env.server is None:
        pytest.skip("a fake server has no connection that could be cut")
    queue, line = env.queue(), proxy(env.server)
    other = Queue(env.name, line.url)
    for place in range(12):
        file = tmp_path / f"{place}"
        queue.enqueue_many(numbered(8))
        line.cut(reply_of="EVALSHA", after=place)
        assert other.purge(to=file) == 8
        line.heal()
        line.cut(reply_of="EVALSHA", after=place)
        said = other.restore(file)
        line.heal()
        assert (said.restored, said.left, said.unsure) == (8, 0, 0)
        assert payloads(queue) == numbered(8)
    other.close()


def test_lost_request_while_a_worker_is_faster(
    env: Env, tmp_path: Path, proxy: Any, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue knows that a first sending was not done: a job that a worker did meanwhile does not come back."""
    if env.server is None:
        pytest.skip("a fake server has no connection that could be cut")
    queue, line, file = env.queue(), proxy(env.server), tmp_path / "jobs"
    other = Queue(env.name, line.url)
    queue.enqueue_many(numbered(9))
    take = archive._take

    def late(source: Any, mark: str, number: int, which: str, ids: Any) -> Any:
        if number == 1 and ids:
            queue.settle(acks=queue.claim(2))
            line.cut(request_of="EVALSHA")
        return take(source, mark, number, which, ids)

    monkeypatch.setattr(archive, "_take", late)
    assert other.purge(to=file) == 7
    assert other.restore(file).restored == 7
    assert payloads(queue) == numbered(9)[2:]
    other.close()


def test_forgotten_producer_is_said(env: Env, tmp_path: Path, bomb: Bomb) -> None:
    """After a crash, and a queue that has forgotten the restore, a step may be in twice; it is counted."""
    queue, file = env.queue(), tmp_path / "jobs"
    sync = queue_of_threads(queue)
    queue.enqueue_many(numbered(4))
    queue.purge(to=file)
    at = next(at for at in count(1) if not bomb.runs_through(lambda: sync.restore(file), at, True) and at >= 3)
    assert at == 3
    producers = [field for field in env.command("HKEYS", env.key("state")) if re.fullmatch(rb"p\d+", field)]
    env.command("HDEL", env.key("state"), *producers)
    said = queue.restore(file)
    assert said.unsure in (1, 3)
    assert set(payloads(queue)) == set(numbered(4))


# ---------------------------------------------------------------- files that are none, or damaged


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_none(env: Env, tmp_path: Path, name: str) -> None:
    """A file of another queue, of other filters, a complete one, or of nothing of ours: refused and not touched."""
    queue, other = env.queue(), env.queue(env.other("other"))
    queue.enqueue_many(numbered(3))
    other.enqueue_bytes(b"y")
    file = tmp_path / name
    queue.purge(to=file)
    whole = file.read_bytes()
    with pytest.raises(ConfigError, match="finished"):
        queue.purge(to=file)
    with pytest.raises(ConfigError, match="holds jobs of queue"):
        other.purge(to=file)
    assert file.read_bytes() == whole
    for content in (b"hello\n", b"hello", b"\x00" * 5000, b'{"a": 1}\n', files.seal({"boundq": 1}), b"x" + whole):
        file.write_bytes(content)
        for call in (lambda: other.purge(to=file), lambda: other.restore(file)):
            with pytest.raises(DataError, match="no file of a purge"):
                call()
        assert file.read_bytes() == content
    file.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        other.restore(file)
    newer = {"boundq": 9, "queue": "q", "uid": "u", "version": "9", "created": "", "before_ms": 0, "filters": {}}
    file.write_bytes(files.seal(newer))
    with pytest.raises(DataError, match="format 9"):
        queue.restore(file)
    with pytest.raises(FileNotFoundError):
        queue.restore(tmp_path / "nowhere")
    assert other.stats().jobs == 1


def test_missing_queue_makes_no_file(env: Env, tmp_path: Path) -> None:
    """Nothing is left behind by a mistaken name."""
    queue = env.queue(create=False)
    with pytest.raises(DataError, match="no such queue"):
        queue.purge(to=tmp_path / "jobs")
    assert list(tmp_path.iterdir()) == []


def test_other_filters_are_refused(env: Env, tmp_path: Path, bomb: Bomb) -> None:
    """A file that was begun with some filters is gone on with by the same ones only."""
    queue, file = env.queue(), tmp_path / "jobs"
    sync = queue_of_threads(queue)
    queue.enqueue_many(numbered(5))
    assert not bomb.runs_through(lambda: archive.purge_to(sync, file, CHOSEN, None), 4, after=True)
    with pytest.raises(ConfigError, match="other filters"):
        queue.purge(to=file, task="send")
    assert queue.purge(to=file) == 5
    assert queue.restore(file).restored == 5


@pytest.mark.parametrize("name", NAMES)
def test_truncated_at_every_byte(env: Env, tmp_path: Path, name: str, small_steps: None) -> None:
    """Either it is no file of a purge, or all jobs before the cut can be restored, and the place is named."""
    queue, file = env.queue(), tmp_path / name
    queue.enqueue_many(numbered(5))
    queue.purge(to=file)
    whole, most = file.read_bytes(), 0
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        try:
            said = queue.restore(file, dry_run=True)
        except DataError:
            assert most == 0
            continue
        assert said.left >= most, f"at byte {end}"
        most = said.left
        assert said.unfinished or said.left == 5
        if not said.left:
            continue  # a bare header is begun anew, which the queue would take for another purge
        try:
            queue.purge(to=file)
        except (ConfigError, DataError):  # what is missing was deleted: nobody may go on behind it
            continue
        assert queue.restore(file, dry_run=True).left == said.left, f"at byte {end}"
        assert said.left == 5  # nothing is missing but the word that it was finished
    assert most == 5


@pytest.mark.parametrize("name", NAMES)
def test_each_flipped_byte_is_noticed(env: Env, tmp_path: Path, name: str, small_steps: None) -> None:
    """One bit in any place: at most the line, or the frame, is lost, and it is named."""
    queue, file = env.queue(), tmp_path / name
    queue.enqueue_many(numbered(7))
    queue.purge(to=file)
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            said = queue.restore(file, dry_run=True)
        except DataError:
            continue  # the header
        assert said.left >= 4, f"byte {place}"
        # A few bits of a frame mean nothing.
        assert said.damaged or (said.left == 7 and not said.unfinished), f"byte {place}"


def test_damaged_lines_are_reported_and_the_rest_comes_back(env: Env, tmp_path: Path) -> None:
    """By their numbers: cut short, not as written, not JSON, too long, no job."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(8))
    queue.purge(to=file)
    lines = file.read_bytes().splitlines()
    lines[3] = lines[3][:40]
    lines[4] = lines[4].replace(b"normal", b"urgent")
    lines[5] = b"\xff\x00" * 50
    lines[6] = files.seal({"id": "no id", "envelope": "AAAA"})[:-1]
    lines.insert(7, b"x" * (files.MOST_LINE + 5))
    file.write_bytes(b"\n".join(lines) + b"\n")
    said = queue.restore(file)
    assert [one.split(" (")[0] for one in said.damaged] == ["line 4", "line 5", "line 6", "line 7", "line 8"]
    assert said.restored == 4
    assert payloads(queue) == [b"0", b"5", b"6", b"7"]


def test_damaged_frame_takes_no_other_with_it(env: Env, tmp_path: Path, small_steps: None) -> None:
    """The frames before and behind it are used."""
    queue, file = env.queue(), tmp_path / "jobs.zst"
    queue.enqueue_many(numbered(9))
    queue.purge(to=file)
    whole = bytearray(file.read_bytes())
    starts = [place for place in range(len(whole)) if whole[place : place + 4] == b"\x28\xb5\x2f\xfd"]
    assert len(starts) == 5  # header, three batches, the end
    whole[starts[2] + 12] ^= 0xFF
    file.write_bytes(whole)
    said = queue.restore(file)
    assert said.restored == 6
    assert [one for one in said.damaged if f"byte {starts[2]}" in one]
    assert payloads(queue) == [b"0", b"1", b"2", b"6", b"7", b"8"]


def test_compressed_by_other_tools(env: Env, tmp_path: Path) -> None:
    """A file that was unpacked, or packed as a whole, is read by what it is, whatever its name."""
    import zstandard

    queue = env.queue()
    queue.enqueue_many(numbered(700))
    queue.purge(to=tmp_path / "a.zst")
    with open(tmp_path / "a.zst", "rb") as packed:
        plain = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read()
    (tmp_path / "b.zst").write_bytes(plain)
    assert queue.restore(tmp_path / "b.zst", dry_run=True).left == 700
    (tmp_path / "c").write_bytes(zstandard.ZstdCompressor().compress(plain))
    assert queue.restore(tmp_path / "c").restored == 700
    first, job = (json.loads(line) for line in (plain.splitlines()[0], plain.splitlines()[2]))
    assert first["queue"] == queue.name
    assert zlib.crc32(b"{" + plain.splitlines()[2][18:]) == int(job["crc"], 16)


def test_journal_that_is_damaged_or_of_another_file(env: Env, tmp_path: Path) -> None:
    """It is not guessed at: the error says what to do."""
    queue = env.queue()
    for turn in "ab":
        queue.enqueue_many(numbered(3))
        queue.purge(to=tmp_path / turn)
        queue.restore(tmp_path / turn)
        payloads(queue)
    journal = tmp_path / "a.restored"
    text = journal.read_bytes()
    journal.write_bytes((tmp_path / "b.restored").read_bytes())
    with pytest.raises(ConfigError, match="another file"):
        queue.restore(tmp_path / "a")
    for place in range(0, len(text) - 1, 7):
        damaged = bytearray(text)
        damaged[place] ^= 1
        journal.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            queue.restore(tmp_path / "a")
    for end in range(len(text)):  # cut off, as by a crash: what the journal does not know the queue does
        journal.write_bytes(text[:end])
        if b'"plan"' in text[:end]:
            assert queue.restore(tmp_path / "a").unsure == 0
    assert set(payloads(queue)) <= set(numbered(3))


def test_journal_line_without_its_newline_does_not_count(tmp_path: Path) -> None:
    """A crash may leave all of a line but its newline: what was cut off is read by nobody, now or later."""
    file = tmp_path / "jobs"
    journal = journals.Journal(file, "uid", "emails")
    journal.plan(["8"], 1, b"n1")
    journal.back(1)
    journal.close()
    noted = tmp_path / "jobs.restored"
    noted.write_bytes(noted.read_bytes()[:-1])
    again = journals.Journal(file, "uid", "emails")
    assert (again.done, again.open) == (set(), journals.Plan(["8"], 1, "n1"))
    again.close()
    noted.write_bytes(noted.read_bytes()[:-1])
    last = journals.Journal(file, "uid", "emails")
    assert (last.done, last.open) == (set(), None)
    last.close()


def test_journal_on_a_disk_that_is_full(tmp_path: Path) -> None:
    """A line of which a part was written is an error at once; nothing is appended to it, and nothing read into it."""
    file = tmp_path / "jobs"
    journal = journals.Journal(file, "uid", "emails")
    journal.plan(["8"], 1, b"n1")
    size = (tmp_path / "jobs.restored").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.back(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.close()
    again = journals.Journal(file, "uid", "emails")
    assert (again.done, again.open) == (set(), journals.Plan(["8"], 1, "n1"))
    again.close()


def test_garbage_envelopes(env: Env, tmp_path: Path) -> None:
    """Bytes that somebody else put there come back as they were; those that can be no job are named."""
    queue, file = env.queue(), tmp_path / "jobs"
    ids = [receipt.receipt.id for receipt in queue.enqueue_many(numbered(3))]
    jobs = env.key("jobs")
    sizes = [len(env.command("HGET", jobs, one)) for one in ids]
    garbage = bytes([9]) + b"\xff" * (sizes[1] - 1)
    env.command("HSET", jobs, ids[1], garbage)
    assert queue.purge(to=file) == 3
    assert queue.restore(file).restored == 3
    (one,) = (job for job in queue.peek().jobs if job.error)
    assert one.payload == garbage


def test_two_at_once_are_refused(env: Env, tmp_path: Path) -> None:
    """A file, and its journal, are one process's at a time; others are told so."""
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(3))
    with files.locked(file), pytest.raises(ConfigError, match="working on it"):
        queue.purge(to=file)
    assert queue.stats().jobs == 3
    queue.purge(to=file)
    with files.locked(file), pytest.raises(ConfigError, match="working on it"):
        queue.restore(file)
    with files.locked(tmp_path / "jobs.restored"), pytest.raises(ConfigError, match="working on it"):
        queue.restore(file)
    assert queue.restore(file).restored == 3


@pytest.mark.parametrize("call", ["purge", "matching"])
@pytest.mark.parametrize(
    "options",
    [{"priority": "urgent"}, {"limit": 0}, {"task": "no name"}, {"older_than": -1}, {"older_than": "2h"}],
    ids=str,
)
def test_selections_that_make_no_sense(env: Env, call: str, options: dict[str, Any]) -> None:
    """An error that says what would be right, before anything is looked at."""
    with pytest.raises(ConfigError):
        getattr(env.queue(), call)(**options)


@pytest.mark.parametrize("options", [{"rate": 0}, {"until_fill": 0}, {"until_fill": 1.5}, {"wait": -1}], ids=str)
def test_restores_that_make_no_sense(env: Env, tmp_path: Path, options: dict[str, Any]) -> None:
    """Likewise."""
    with pytest.raises(ConfigError):
        env.queue().restore(tmp_path / "jobs", **options)


@pytest.fixture
def no_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)


def test_without_the_library(env: Env, tmp_path: Path, no_zstd: None) -> None:
    """A compressed file is refused with the command that helps, and a plain one does."""
    queue = env.queue()
    queue.enqueue_bytes(b"x")
    with pytest.raises(ConfigError, match=r"boundq\[zstd\]"):
        queue.purge(to=tmp_path / "jobs.zst")
    assert queue.purge(to=tmp_path / "jobs") == 1


def test_unreachable_server_leaves_what_can_be_gone_on_with(env: Env, tmp_path: Path) -> None:
    """An error in the middle says so; the same call goes on."""
    if env.server is None:
        pytest.skip("a fake server cannot be away")
    queue, file = env.queue(), tmp_path / "jobs"
    queue.enqueue_many(numbered(10))
    gone = Queue(env.name, "unix:///nowhere.sock", deadline=0.5)
    with pytest.raises(Unavailable):
        gone.purge(to=file)
    assert not file.exists()
