"""Queue: the shell for threads. Each method is one flow of the core, driven to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from boundq._call import Flow
from boundq._core.audit import Audit
from boundq._core.inspection import Recount
from boundq._core.queue import BaseQueue, Bulk
from boundq._core.selection import select
from boundq._job import JobOptions, Prepared
from boundq._retry import Lost
from boundq._sizes import seconds
from boundq.errors import BoundqError, ConfigError
from boundq.lease import BaseLease
from boundq.limits import Limits
from boundq.model import (
    EnqueueResult,
    Event,
    Job,
    Matching,
    Page,
    Priority,
    Receipt,
    Rejection,
    Restored,
    Retried,
    State,
    Stats,
)
from boundq.sync._link import Hub, Link
from boundq.sync.lease import Lease
from boundq.task import CallOptions, EnqueueOptions, Task

if TYPE_CHECKING:
    from typing import Unpack

    from boundq.aio.queue import AsyncQueue

__all__ = ["Queue"]

R = TypeVar("R")


class Queue(BaseQueue):
    """
    A bounded queue.

    Declaring one does no I/O; the first call connects and, where there is no such queue yet, creates it with these
    limits. Threads may share it, each gets a connection of its own; so may forked children.

    Args:
        name: 1 to 64 of ``A-Za-z0-9._-``.
        url_or_client: ``redis:// rediss:// unix:// redis+sentinel:// redis+cluster:// embedded:``, or a redis-py
            client; None: the environment's ``BOUNDQ_URL``, then ``redis://localhost:6379/0``.
        max_jobs, max_bytes: Shorthand for those two of `Limits`.
        limits: The queue's limits; the server's stand where they differ.
        deadline: Seconds that a call may take, connecting and repeats included.
        create: False: only use a queue that exists.
        middleware: What is done around every enqueue and run, see `Middleware`.
    """

    def enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Receipt:
        """Add a job for a task, or for the name of one; see `Task.enqueue`."""
        return self._enqueuer(task).enqueue(*args, **kwargs)

    def try_enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Receipt | Rejection:
        """As `enqueue`, but a refusal is returned and not raised."""
        return self._enqueuer(task).try_enqueue(*args, **kwargs)

    def enqueue_bytes(self, payload: bytes, **options: Unpack[EnqueueOptions]) -> Receipt:
        """Add a job with a payload of your own; options as in `EnqueueOptions`."""
        outcome = self.try_enqueue_bytes(payload, **options)
        if isinstance(outcome, Rejection):
            raise outcome.error()
        return outcome

    def try_enqueue_bytes(self, payload: bytes, **options: Unpack[EnqueueOptions]) -> Receipt | Rejection:
        """As `enqueue_bytes`, but a refusal is returned and not raised."""
        return self._admit(*self._raw(payload, options))

    def enqueue_many(
        self, jobs: Iterable[bytes | Prepared], *, atomic: bool = False, **options: Unpack[JobOptions]
    ) -> list[EnqueueResult]:
        """
        Add many jobs, a few hundred in a script.

        Args:
            jobs: Payloads, or jobs made with ``task.call(...)``; any iterable, taken as it goes.
            atomic: All or none; one script's worth at most (500 plain jobs of one priority, else 100). Otherwise
                the longest prefix that fits is admitted.
            options: For the payloads among them.

        Returns:
            What happened, one for each job, in order. The deadline holds for each script; an answer that is lost
            is an ``error`` of the jobs concerned, not an exception. So is a payload that cannot be one, and those
            behind it go on; where it is the very first, `ConfigError` is raised.
        """
        link = self._hub.link()
        if atomic:
            prepared = self._together(jobs, options)
            if not prepared:
                return []
            flow = self._admission.enqueue(link.session(self.name), prepared, atomic=True)
            with self._told_if_failed(prepared):
                outcomes = link.drive(self.name, flow, self._deadline)
            return self._all_or_none(prepared, outcomes)
        bulk = Bulk(self._hooks)
        for chunk in self._chunks(jobs, options):
            if isinstance(chunk, ConfigError):
                bulk.wrong(chunk)
                continue
            rest: Sequence[Prepared] = chunk
            while rest and not bulk.stopped(rest):
                try:
                    rest = bulk.answered(rest, self._add(link, rest, self._deadline))
                except BoundqError as error:
                    bulk.failed(rest, error)
                    break
        return bulk.results

    def claim(self, n: int = 1, *, wait: float | timedelta = 0.0, lease: float | timedelta = 30.0) -> list[Lease]:
        """
        Take jobs under a lease.

        Args:
            n: At most so many, 1 to 500.
            wait: Seconds to wait for the first one; 0: do not.
            lease: Seconds until another worker may have them, unless settled or extended.

        Returns:
            None to n leases. A claim is never repeated: `Unavailable` with outcome ``unknown`` means that jobs may
            be leased to nobody until the lease ends.
        """
        flow = self._deliveries.claim(n, lease, seconds(wait, "wait"))
        return [Lease(self, delivery) for delivery in self._run(flow)]

    def settle(
        self,
        *,
        acks: Sequence[BaseLease] = (),
        retries: Sequence[tuple[BaseLease, float | timedelta]] = (),
        releases: Sequence[BaseLease] = (),
        buries: Sequence[tuple[BaseLease, str, str]] = (),
    ) -> list[BaseLease]:
        """
        Settle many leases in one call.

        Args:
            acks: Done.
            retries: Lease and delay in seconds.
            releases: Deliveries given back.
            buries: Lease, reason and error text.

        Returns:
            Those whose lease was gone; nothing was done for them, and their ``cancelled`` says whether the job is
            gone too.
        """
        by_fence, work = self._settlement(acks, retries, releases, buries)
        return self._lost(by_fence, self._run(self._deliveries.settle(work), each=True))

    def extend(self, leases: Sequence[BaseLease], lease: float | timedelta = 30.0) -> list[BaseLease]:
        """Let leases end ``lease`` seconds from now; those that are lost come back."""
        _, lost = self._run(self._deliveries.extend([one.delivery for one in leases], lease))
        return self._extended(leases, lost, lease)

    def cancel(self, job_id: str) -> bool:
        """Take a job out, in whatever state it is; False where there is none of this id."""
        return bool(self._run(self._control.cancel([job_id])))

    def get(self, job_id: str) -> Job | None:
        """One job, None where there is none of this id."""
        return self._run(self._inspection.get(job_id))

    def position(self, job_id: str) -> int | None:
        """How many ready jobs of its priority come before it, at most; None when it is not ready."""
        job = self.get(job_id)
        return job.ahead if job else None

    def peek(
        self, state: State = "ready", n: int = 10, after: str | None = None, priority: Priority | None = None
    ) -> Page:
        """
        One page of the jobs in a state; the page's ``after`` fetches the next.

        Ready and scheduled jobs come by priority, the highest first; ``priority`` shows those of one.
        """
        return self._run(self._inspection.peek(state, n, after, priority), each=True)

    def stats(self) -> Stats:
        """The queue in numbers, without a scan."""
        return self._run(self._inspection.stats())

    def drain(self, timeout: float | timedelta = 60.0) -> bool:
        """
        Wait until the queue holds nothing: ready, scheduled or active. It goes on taking jobs: `seal` it first.

        Returns:
            False when ``timeout`` seconds were over first.
        """
        return self._run(self._inspection.drain(seconds(timeout, "timeout")), each=True)

    def recount(self, *, repair: bool = False) -> Recount:
        """Compare the byte counters with the stored jobs; ``repair`` sets them right if nothing moves meanwhile."""
        return self._run(self._inspection.recount(repair=repair), each=True)

    def audit(self, *, repair: bool = False) -> Audit:
        """
        Hold what the queue says of itself against what is stored: ledger, bytes, and each entry; in bounded steps, on a
        queue that is in use. ``repair`` sets right what can be.
        """
        return self._run(self._auditing.audit(repair=repair), each=True)

    def pause(self, by: str = "") -> bool:
        """Stop claims; admission goes on up to the limits. Whether that changed anything."""
        return self._run(self._control.switch("pause", by))

    def resume(self, by: str = "") -> bool:
        """Allow claims again."""
        return self._run(self._control.switch("resume", by))

    def seal(self, by: str = "") -> bool:
        """Stop admission (`QueueSealed`); claims go on. Whether that changed anything."""
        return self._run(self._control.switch("seal", by))

    def unseal(self, by: str = "") -> bool:
        """Allow admission again."""
        return self._run(self._control.switch("unseal", by))

    def configure(self, limits: Limits, by: str = "") -> bool:
        """Set the limits for everybody, from the next call on. Lower than what is held: only admission stops."""
        return self._run(self._control.configure(limits, by), each=True)

    def retry_dead(self, job_ids: Sequence[str]) -> Retried:
        """
        Put dead letters back to work, each in one step: it is dead or back, never both, and a second call finds none.

        They go through admission: not beyond the limits, not into a sealed queue, not past producers that wait for
        room. Their deliveries start at 0, their age goes on.

        Args:
            job_ids: In this order.

        Returns:
            What became of them; where the queue is full, it stops there, and nothing is raised.
        """
        return self._run(self._control.retry_dead(job_ids), each=True)

    def drop_dead(self, job_ids: Sequence[str]) -> list[str]:
        """Delete dead letters, counted as dropped; the ids of those that were there, and dead."""
        return self._run(self._control.cancel(job_ids, "dropped"), each=True)

    def events(self, n: int = 20) -> list[Event]:
        """The latest changes of limits, pause and seal, 100 at most, the newest first."""
        return self._run(self._control.events(n))

    def purge(
        self,
        *states: State,
        to: str | PathLike[str] | None = None,
        task: str | None = None,
        older_than: float | timedelta | None = None,
        priority: Priority | None = None,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """
        Take jobs out, in bounded steps: all those that waited when it began, or a selection of them.

        Args:
            states: In these states; by default ready and scheduled. The lease of an active one is lost then.
            to: A file to write them to (compressed where it ends in ``.zst``), flushed before anything is deleted;
                `restore` puts them back. One that was begun before, and interrupted, is gone on with. None: they are
                deleted for good.
            task: Only jobs of this task; "" for raw payloads.
            older_than: Only those admitted so many seconds ago, or earlier.
            priority: Only those of this priority.
            limit: So many at most, in the order of `peek`.
            progress: Called after each step with the jobs taken out and looked at.

        Returns:
            How many they were.

        Raises:
            ConfigError: The file holds something else, is complete, or is being worked on.
            DataError: It is damaged.
            OSError: It cannot be written. What is deleted is in it; with room for it, the same call goes on.
        """
        chosen = select(states, task, older_than, priority, limit)
        if to is None and chosen.plain:
            return self._run(self._control.purge(chosen.states), each=True)
        from boundq.sync.archive import purge_chosen, purge_to

        return purge_to(self, to, chosen, progress) if to is not None else purge_chosen(self, chosen, progress)

    def matching(
        self,
        *states: State,
        task: str | None = None,
        older_than: float | timedelta | None = None,
        priority: Priority | None = None,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Matching:
        """How many jobs `purge` would take out with these arguments, and their bytes; looks at each of them."""
        from boundq.sync.archive import count_matching

        return count_matching(self, select(states, task, older_than, priority, limit), progress)

    def restore(
        self,
        path: str | PathLike[str],
        *states: State,
        rate: float | None = None,
        wait: float | timedelta = 0.0,
        until_fill: float = 1.0,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Restored:
        """
        Put the jobs of a purge's file back under the limits, each once, however often it is called or interrupted.

        A job keeps payload, headers, priority, due time, expiry, unique key and age; its first id is in the header
        ``boundq-restored``; its deliveries are counted anew. ``FILE.restored`` notes what is back. Where the queue
        takes no more it stops, and goes on there when it is called again.

        Args:
            path: The file.
            states: Jobs that were in these states; by default all but the dead. A dead letter comes back as a job
                to run.
            rate: Jobs a second at most.
            wait: Seconds to wait for room, each time there is none.
            until_fill: Stop when this share of the limits is taken.
            dry_run: Only say what there is to do.
            progress: Called after each step with the jobs put back and those to put back, all in all.

        Raises:
            ConfigError: Somebody is working on the file, or it was restored into another queue before.
            DataError: It is no file of a purge, or there is no such queue.
            OSError: It cannot be read, or its journal not be written.
        """
        from boundq.sync.archive import restore_from

        return restore_from(
            self,
            path,
            states=states,
            rate=rate,
            wait=wait,
            until_fill=until_fill,
            dry_run=dry_run,
            progress=progress,
        )

    def close(self) -> None:
        """Hang up this process's connections to the server; a later call connects anew."""
        self._hub.close()

    @property
    def sync(self) -> Queue:
        """This queue."""
        return self

    @property
    def aio(self) -> AsyncQueue:
        """The same queue for asyncio."""
        if self._twin is None:
            from boundq.aio.queue import AsyncQueue

            self._twin = self._make_twin(AsyncQueue)
        twin: AsyncQueue = self._twin
        return twin

    def _admit(self, job: Prepared, call: CallOptions) -> Receipt | Rejection:
        if self._hooks is not None:
            with self._hooks.sending(job) as sending:
                sending.outcome = outcome = self._send(sending.job, call)
                return outcome
        if call:
            return self._send(job, call)
        return self._add(self._hub.link(), [job], self._deadline)[0]

    def _send(self, job: Prepared, call: CallOptions) -> Receipt | Rejection:
        wait, seconds = self._call_times(call)
        link = self._hub.link()
        if wait:
            flow = self._admission.enqueue_waiting(link.session(self.name), job, wait)
            return link.drive(self.name, flow, seconds)
        return self._add(link, [job], seconds)[0]

    def _add(self, link: Link, jobs: Sequence[Prepared], seconds: float) -> list[Receipt | Rejection]:
        """The longest prefix that fits, as of `Admission.enqueue`, the short way if it is open."""
        session, deadline = link.session(self.name), time.monotonic() + seconds
        request, failed = self._express.request(session, jobs), None
        if request is not None:
            try:
                if (outcomes := self._express.outcomes(link.express(request, deadline))) is not None:
                    return outcomes
            except Lost as lost:
                failed = lost
        flow = self._express.long_way(session, jobs, numbered=request is not None, failed=failed)
        return link.drive(self.name, flow, deadline - time.monotonic(), failed=failed)

    def _turn(
        self,
        acks: Sequence[BaseLease],
        retries: Sequence[tuple[BaseLease, float | timedelta]],
        buries: Sequence[tuple[BaseLease, str, str]],
        n: int,
        lease: float,
    ) -> tuple[list[BaseLease], list[Lease]]:
        """A worker's round: settle and claim in one exchange."""
        by_fence, work = self._settlement(acks, retries, (), buries)
        lost, claimed = self._run(self._deliveries.settle_and_claim(work, n, lease), each=True)
        return self._lost(by_fence, lost), [Lease(self, delivery) for delivery in claimed]

    def _claim_or_register(self, n: int, lease: float, *, woken: bool) -> tuple[list[Lease], float]:
        """A worker's claim that, where there is nothing, is followed by `_wait`."""
        claimed, pause = self._run(self._deliveries.claim_or_register(n, lease, woken=woken))
        return [Lease(self, delivery) for delivery in claimed], pause

    def _wait_and_claim(self, pause: float, lease: float) -> tuple[list[Lease], float]:
        """As `_wait` and then `_claim_or_register` of one job, in one exchange."""
        claimed, pause = self._run(self._deliveries.wait_and_claim(pause, lease))
        return [Lease(self, delivery) for delivery in claimed], pause

    def _wait(self, pause: float) -> bool:
        return self._run(self._deliveries.wait(pause))

    def _server_ms(self) -> int:
        return self._run(self._inspection.server_ms())

    def _run(self, flow: Flow[R], *, each: bool = False) -> R:
        return self._hub.link().drive(self.name, flow, self._deadline, each=each)

    @cached_property
    def _hub(self) -> Hub:
        return Hub.of(self._target)
