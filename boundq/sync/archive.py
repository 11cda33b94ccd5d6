"""Purge and restore: jobs out of a queue, first into a file; and back, under the limits, each once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from boundq._archive.journal import Journal, noted
from boundq._archive.lines import locked
from boundq._archive.purged import MOST_ENVELOPE, Entry, Reading, Writing
from boundq._core.control import Took
from boundq._core.inspection import due_ms
from boundq._core.selection import Selection, Walk, select
from boundq._envelope import pack, seal_headers, task_of, unpack
from boundq._job import Prepared
from boundq._session import Session
from boundq._sizes import seconds
from boundq.errors import ConfigError, DataError
from boundq.model import PRIORITIES, Matching, Receipt, Rejection, Restored, State

if TYPE_CHECKING:
    from boundq.sync.queue import Queue

__all__ = ["count_matching", "purge_chosen", "purge_to", "queue_of", "restore_from"]

Progress = Callable[[int, int], None]
# The header under which a restored job keeps the id that it had first.
RESTORED = "boundq-restored"
# Jobs, and bytes of envelopes, in one step of a purge. The script's answer has a bit for each job and stays so small
# that the state hash keeps it in its compact form.
STEP, STEP_BYTES = 200, 4 * 2**20
# Jobs, and bytes, in one step of a restore: plain ones, and ones with a due time, an expiry or a unique key.
MOST_PLAIN, MOST_GENERAL, MOST_BYTES = 500, 100, 2**20
# A restore that waits for room, or keeps to a rate, looks again after so many seconds.
LOOK_SECONDS = 0.1
# Fewer bytes are no envelope: it cannot be said when such a job was created.
LEAST_ENVELOPE = 9


def count_matching(queue: Queue, chosen: Selection, progress: Progress | None) -> Matching:
    """How many jobs a purge would take, and their bytes."""
    jobs = size = 0
    for _, page, looked_at in _pages(queue, chosen, _before(queue, chosen)):
        for job in page[: chosen.limit - jobs if chosen.limit is not None else None]:
            jobs, size = jobs + 1, size + len(job.envelope)
        if progress is not None:
            progress(jobs, looked_at)
        if jobs == chosen.limit:
            break
    return Matching(jobs, size)


def purge_chosen(queue: Queue, chosen: Selection, progress: Progress | None) -> int:
    """Take the jobs out for good; how many."""
    moved = 0

    def so_far() -> int:
        return moved

    for state, batch, looked_at in _batches(queue, chosen, _before(queue, chosen), so_far):
        moved += _take(queue, "", 0, state, [str(job.id) for job in batch]).removed
        if progress is not None:
            progress(moved, looked_at)
    return moved


def purge_to(queue: Queue, path: str | os.PathLike[str], chosen: Selection, progress: Progress | None) -> int:
    """Move the jobs into the file; a purge into it that was interrupted is gone on with. How many were moved now."""
    before = _before(queue, chosen)  # asks the queue, so that one that does not exist makes no file
    target = Writing(Path(path), queue.name, chosen.filters(), before)
    moved = 0
    try:
        if target.begun:
            moved += target.settle(_fate_in_file(queue, str(path), target))
        else:
            _take(queue, target.header.uid, 0, "begin", ())
        for state, batch, looked_at in _batches(queue, chosen, target.header.before_ms, lambda: target.moved):
            number = target.begin(batch)
            took = _take(queue, target.header.uid, number, state, list(target.open))
            if took.last == number and took.sure:
                kept = took.kept(list(target.open))
            else:  # the answer to a first sending was lost, and somebody else has purged since
                kept = [job_id for job_id, job in target.open.items() if _is_here(queue, job)]
            moved += target.settle(kept)
            if progress is not None:
                progress(moved, looked_at)
        target.end()
    finally:
        target.close()
    return moved


def restore_from(
    queue: Queue,
    path: str | os.PathLike[str],
    *,
    states: Sequence[State],
    rate: float | None,
    wait: float | timedelta,
    until_fill: float,
    dry_run: bool,
    progress: Progress | None,
) -> Restored:
    """Put the jobs of a file back, under the queue's limits, each once over all restores of it."""
    chosen = select(states or ("ready", "scheduled", "active")).states
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError("rate", rate, "it must be jobs a second, more than 0")
    if not 0 < until_fill <= 1:
        raise ConfigError("until_fill", until_fill, "it must be a share of the limits, more than 0 and at most 1")
    patience = seconds(wait, "wait")
    source = Path(path)
    with locked(source, shared=True) as file:
        first = Reading(source, file)
        uid = first.header.uid
        if dry_run:
            done = noted(source, uid, queue.name)
            return _Restore(queue, source, chosen, done).survey(first)
        journal = Journal(source, uid, queue.name)
        try:
            work = _Restore(queue, source, chosen, journal.done)
            said = work.survey(first, journal.open.plan if journal.open else ())
            return work.run(journal, Reading(source, file), said, rate, patience, until_fill, progress)
        finally:
            journal.close()


def queue_of(path: str | os.PathLike[str]) -> str:
    """The queue that the jobs of a purge's file came from."""
    with locked(Path(path), shared=True) as file:
        return Reading(Path(path), file).header.queue


class _Restore:
    """
    One restore.

    Args:
        queue: Into which.
        path: The file.
        states: Which of its jobs.
        done: Ids of those that are back already.
    """

    def __init__(self, queue: Queue, path: Path, states: Sequence[State], done: set[str]) -> None:
        self._queue = queue
        self._path = path
        self._states = states
        self._done = done
        self._kept: Sequence[str] = ()
        self._planned: dict[str, Prepared] = {}
        self._session = Session()
        self._resent = False

    def survey(self, reading: Reading, planned: Sequence[str] = ()) -> Restored:
        """What there is to do: all of the file is looked at once."""
        left = before = dead = 0
        wanted, seen, hopeless = set(planned), set[str](), list[str]()

        def look(jobs: Iterator[Entry]) -> None:
            nonlocal left, before, dead
            for job in jobs:
                job_id = str(job.id)
                if job_id in seen:
                    continue
                seen.add(job_id)
                if job_id in wanted and (prepared := _prepared(self._queue.name, job)) is not None:
                    self._planned[job_id] = prepared
                if job_id in self._done:
                    before += 1
                elif job.state not in self._states:
                    dead += job.state == "dead"
                elif len(job.envelope) < LEAST_ENVELOPE:
                    hopeless.append(f"job {job_id}: its {len(job.envelope)} bytes were no job in the queue either")
                else:
                    left += 1

        look(reading.jobs())
        if reading.open:
            self._kept = self._open_batch(reading)
            look(reading.settle(self._kept))
        return Restored(
            left=left,
            before=before,
            dead=dead,
            unfinished=not reading.finished,
            damaged=[*map(str, reading.lines.damaged), *hopeless],
        )

    def run(
        self,
        journal: Journal,
        reading: Reading,
        said: Restored,
        rate: float | None,
        patience: float,
        until_fill: float,
        progress: Progress | None,
    ) -> Restored:
        """Put back what is left."""
        self._resent = journal.open is not None
        restored = duplicates = unsure = large = 0
        total, reason, full = said.left, "", False
        begun = moved_on = time.monotonic()
        steps = self._steps(journal, reading, rate)
        part = step = next(steps, [])
        while step:
            if journal.open is None:
                room = self._room(until_fill) if full or until_fill < 1 else len(step)
                part = step[:room]
            outcomes: Sequence[Receipt | Rejection] = ()
            if part:
                outcomes, again = self._admit(journal, part)
                unsure += again
                back = [one for one in outcomes if isinstance(one, Receipt)]
                restored, step = restored + len(back), step[len(back) :]
                duplicates += sum(one.duplicate for one in back)
                if progress is not None:
                    progress(restored, total)
            last = outcomes[-1] if outcomes else None
            if isinstance(last, Rejection) and last.reason == "job_bytes":
                step, large, last = step[1:], large + 1, None
            full = not part or isinstance(last, Rejection)
            if not full:
                moved_on, step = time.monotonic(), step or next(steps, [])
                if rate is not None and step:
                    begun = self._keep_to(rate, restored, begun)
                continue
            if part and back:
                moved_on = time.monotonic()
            reason = str(last.error()) if isinstance(last, Rejection) else self._filled(until_fill)
            if not self._wait_for_room(moved_on + patience, until_fill):
                break
            reason = ""
        if journal.open is not None and not self._resent:
            journal.back(0)  # refused: nobody has to ask again what became of it
        return msgspec.structs.replace(
            said,
            restored=restored,
            left=total - restored - large,
            large=large,
            duplicates=duplicates,
            unsure=unsure,
            reason=reason,
        )

    def _steps(self, journal: Journal, reading: Reading, rate: float | None) -> Iterator[list[tuple[str, Prepared]]]:
        """What is to be put back, in scripts' worth; first what a crash has left undecided."""
        planned: set[str] = set()
        if journal.open is not None:
            ids = journal.open.plan
            if set(ids) <= self._planned.keys():
                planned.update(ids)
                yield [(job_id, self._planned[job_id]) for job_id in ids]
            else:  # the file has been damaged since
                journal.back(0)
                self._resent = False
        most = max(int(rate / 5), 1) if rate is not None else MOST_PLAIN
        step, size, seen = list[tuple[str, Prepared]](), 0, set[str]()
        for job in self._all(reading):
            job_id = str(job.id)
            if job.state not in self._states or job_id in seen or job_id in self._done or job_id in planned:
                continue
            seen.add(job_id)
            ready = _prepared(self._queue.name, job)
            if ready is None:
                continue
            if step:
                first = step[0][1]
                alike = ready.general == first.general and (ready.general or ready.level == first.level)
                fits = len(step) < min(MOST_GENERAL if ready.general else MOST_PLAIN, most)
                if not alike or not fits or size + ready.size > MOST_BYTES:
                    yield step
                    step, size = [], 0
            step.append((job_id, ready))
            size += ready.size
        if step:
            yield step

    def _all(self, reading: Reading) -> Iterator[Entry]:
        yield from reading.jobs()
        yield from reading.settle(self._kept)

    def _admit(self, journal: Journal, part: list[tuple[str, Prepared]]) -> tuple[Sequence[Receipt | Rejection], int]:
        """
        Send jobs, once over all processes that try: what became of them, and how many may be in twice now.

        Where none was admitted the plan stays open, and the next attempt keeps its number.
        """
        queue, session, unsure = self._queue, self._session, 0
        jobs = [job for _, job in part]
        if self._resent and journal.open is not None:
            session.resume(journal.open.producer, journal.open.number.encode())
        while True:
            if journal.open is None:
                if session.producer == 0:
                    queue._run(queue._core.attach(session, producer=True))
                session.next_number()
                journal.plan([job_id for job_id, _ in part], session.producer, session.number)
            outcomes = _admit_once(queue, session, jobs, self._resent)
            if outcomes:
                break
            if outcomes is None:
                # The queue has forgotten who asks. After a crash nobody can say whether the first sending was done.
                session.producer = 0
                unsure += len(part) if self._resent else 0
            journal.back(0)
            self._resent = False
        first = outcomes[0]
        if isinstance(first, Receipt) or first.reason == "job_bytes":
            journal.back(sum(isinstance(one, Receipt) for one in outcomes))
        if not (isinstance(first, Rejection) and first.reason == "memory"):
            self._resent = False  # at maxmemory the server does not even say what became of a first sending
        return outcomes, unsure

    def _keep_to(self, rate: float, restored: int, begun: float) -> float:
        """Wait so long that the rate is kept; what was missed before is not made up for."""
        begun = max(begun, time.monotonic() - restored / rate)
        while (early := begun + restored / rate - time.monotonic()) > 0:
            time.sleep(min(early, LOOK_SECONDS))
        return begun

    def _wait_for_room(self, until: float, until_fill: float) -> bool:
        """Wait for room, or for another reason to try again; False when the time is over first."""
        pause = LOOK_SECONDS
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * 2, 1.0)
            if self._room(until_fill) > 0:
                return True
        return False

    def _room(self, until_fill: float) -> int:
        """About how many jobs may be put back until the queue is filled so far."""
        stats = self._queue.stats()
        jobs = int(until_fill * stats.limits.max_jobs) - stats.jobs
        size = int(until_fill * int(stats.limits.max_bytes)) - stats.bytes
        each = stats.bytes / stats.jobs if stats.jobs else 1
        return max(min(jobs, int(size / each)), 0)

    def _filled(self, until_fill: float) -> str:
        return f"queue {self._queue.name!r} is filled to {until_fill:.0%} of its limits"

    def _open_batch(self, reading: Reading) -> Sequence[str]:
        """Which jobs of the last batch of an unfinished purge are still in the queue that they came from."""
        header, queue = reading.header, self._queue
        origin = queue if header.queue == queue.name else queue._sibling(header.queue)
        try:
            return _fate(origin, header.uid, reading.batch, reading.open)
        except DataError as error:
            if error.reason != "missing":
                raise
            return ()  # no such queue: they are nowhere else


def _fate(queue: Queue, uid: str, number: int, batch: dict[str, Entry]) -> Sequence[str]:
    """Which jobs of the last batch of a file were not taken out of the queue. After this nobody takes it any more."""
    took = _take(queue, uid, number + 1, "ask", ())
    if took.last == number:
        return took.kept(list(batch))
    if took.last > number:  # the file has lost its end
        return ()
    if took.last >= 0:
        return list(batch)
    # Not known: somebody else has purged since. Better twice than lost.
    return [job_id for job_id, job in batch.items() if _is_here(queue, job)]


def _fate_in_file(queue: Queue, path: str, target: Writing) -> Sequence[str]:
    """Likewise, for a purge that is to go on: what the queue knows of has to be in the file."""
    number, uid, whole = target.batch, target.header.uid, target.complete and not target.torn
    took = _take(queue, uid, number + 1, "ask", ())
    if took.last > number or (took.last == number > 0 and not target.complete) or (took.last < 0 and not whole):
        raise _lost_its_end(queue, path, took.last, number)
    target.batch += 1  # the question has used this number up
    return _fate(queue, uid, number, target.open)


def _lost_its_end(queue: Queue, path: str, last: int, number: int) -> DataError:
    known = f"batch {last} was purged into it, and it ends within batch {number}: it has lost its end"
    guess = "it is cut off, and the queue does not remember any more how far this purge had come"
    detail = known if last >= 0 else guess
    return DataError(queue.name, path, "undecodable", f"{detail}; restore it, and purge into another file")


def _is_here(queue: Queue, job: Entry) -> bool:
    """Whether the job is in the queue: this very one, and not one of the same id on another server."""
    found = queue.get(str(job.id))
    return found is not None and job.envelope.endswith(found.payload)


def _take(queue: Queue, mark: str, number: int, which: str, job_ids: Sequence[str]) -> Took:
    return queue._run(queue._control.take(mark, number, which, job_ids))


def _admit_once(
    queue: Queue, session: Session, jobs: Sequence[Prepared], resent: bool
) -> Sequence[Receipt | Rejection] | None:
    return queue._run(queue._admission.once(session, jobs, resent=resent))


def _before(queue: Queue, chosen: Selection) -> int:
    """Jobs created later are too young, Unix milliseconds by the server's clock."""
    now, _ = queue._run(queue._inspection.admitted_until_now())
    return now - (chosen.older_than or 0)


def _pages(queue: Queue, chosen: Selection, before_ms: int) -> Iterator[tuple[State, list[Entry], int]]:
    walk = Walk(queue._inspection, chosen, before_ms)
    while not walk.over:
        state, page = queue._run(walk.step(), each=True)
        yield state, [_entry(queue.name, state, *job) for job in page], walk.looked_at


def _batches(
    queue: Queue, chosen: Selection, before_ms: int, moved: Callable[[], int]
) -> Iterator[tuple[State, list[Entry], int]]:
    """The jobs to purge, in batches of one state; up to the limit, whatever turns out to be gone already."""
    batch: list[Entry] = []
    size, of, looked_at = 0, chosen.states[0], 0

    def room() -> int:
        return STEP if chosen.limit is None else min(STEP, chosen.limit - moved())

    for state, page, looked_at in _pages(queue, chosen, before_ms):
        if state != of and batch:
            yield of, batch, looked_at
            batch, size = [], 0
        of = state
        for job in page:
            if room() <= 0:
                return
            batch.append(job)
            size += len(job.envelope)
            if len(batch) >= room() or size >= STEP_BYTES:
                yield of, batch, looked_at
                batch, size = [], 0
    if batch and room() > 0:
        yield of, batch, looked_at


def _entry(queue: str, state: State, job_id: str, score: int, raw: bytes, note: bytes) -> Entry:
    if len(raw) > MOST_ENVELOPE:
        detail = f"its envelope has {len(raw)} bytes, a file takes {MOST_ENVELOPE}; cancel it, or purge others"
        raise DataError(queue, f"job {job_id}", "unserialisable", detail)
    return Entry(
        id=job_id,
        state=state,
        priority=PRIORITIES[int(job_id) % 4],
        task=(task_of(raw) or b"").decode("ascii", "replace"),
        due=due_ms(score) if state == "scheduled" else None,
        note=note,
        envelope=raw,
    )


def _prepared(queue: str, job: Entry) -> Prepared | None:
    """The job as it was: payload, headers, priority, due time, expiry, unique key, age; None where it is no job."""
    raw, level = job.envelope, int(job.id or 0) % 4
    if len(raw) < LEAST_ENVELOPE:
        return None
    due = b"%d" % job.due if job.state == "scheduled" and job.due else b""
    try:
        stored = unpack(queue, str(job.id), raw)
        mark = stored.unique.encode() if stored.unique else b""
        whole = pack(
            raw[2:8],
            stored.task.encode(),
            stored.payload,
            expires=stored.expires_ms.to_bytes(6, "big") if stored.expires_ms is not None else None,
            unique=mark,
            headers=seal_headers({RESTORED: str(job.id), **stored.headers}),
        )
    except (DataError, ConfigError):  # not readable, or no room for one more header: back as it was
        mark, whole, stored = b"", raw, None
    expires = stored is not None and stored.expires_ms is not None
    return Prepared(
        level=level,
        head=whole[:2],
        rest=whole[8:],
        general=bool(due or mark or expires),
        due=due,
        digest=mark,
        task=stored.task if stored is not None else "",
        created=whole[2:8],
    )
