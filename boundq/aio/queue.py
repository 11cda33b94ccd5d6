"""AsyncQueue: the shell for asyncio. Each method is one flow of the core, driven to its end."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
from boundq._sizes import seconds
from boundq.aio._combine import Combiner, add
from boundq.aio._link import Hub, Link
from boundq.aio.lease import AsyncLease
from boundq.errors import BoundqError, ConfigError
from boundq.lease import BaseLease
from boundq.limits import Limits
from boundq.middleware import Hooks
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
from boundq.task import CallOptions, EnqueueOptions, Task

if TYPE_CHECKING:
    from typing import Unpack

    from boundq.sync.queue import Queue

__all__ = ["AsyncQueue"]

R = TypeVar("R")


class AsyncQueue(BaseQueue):
    """
    A bounded queue, for asyncio; mirrors `Queue` name for name.

    Declaring one does no I/O; the first call connects and, where there is no such queue yet, creates it with these
    limits. Any number of tasks may share it, in several event loops; each loop has one connection, and one more for
    each task that waits. Concurrent enqueues are merged into one script.

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

    async def enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Receipt:
        """Add a job for a task, or for the name of one; see `Task.enqueue`."""
        return await self._enqueuer(task).aenqueue(*args, **kwargs)

    async def try_enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Receipt | Rejection:
        """As `enqueue`, but a refusal is returned and not raised."""
        return await self._enqueuer(task).atry_enqueue(*args, **kwargs)

    async def enqueue_bytes(self, payload: bytes, **options: Unpack[EnqueueOptions]) -> Receipt:
        """Add a job with a payload of your own; options as in `EnqueueOptions`."""
        outcome = await self.try_enqueue_bytes(payload, **options)
        if isinstance(outcome, Rejection):
            raise outcome.error()
        return outcome

    async def try_enqueue_bytes(self, payload: bytes, **options: Unpack[EnqueueOptions]) -> Receipt | Rejection:
        """As `enqueue_bytes`, but a refusal is returned and not raised."""
        return await self._admit(*self._raw(payload, options))

    async def enqueue_many(
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
        link = await self._hub.link()
        with link.session(self.name) as session:
            if atomic:
                prepared = self._together(jobs, options)
                if not prepared:
                    return []
                flow = self._admission.enqueue(session, prepared, atomic=True)
                with self._told_if_failed(prepared):
                    outcomes = await link.drive(self.name, flow, self._deadline)
                return self._all_or_none(prepared, outcomes)
            bulk = Bulk(self._hooks)
            for chunk in self._chunks(jobs, options):
                if isinstance(chunk, ConfigError):
                    bulk.wrong(chunk)
                    continue
                rest: Sequence[Prepared] = chunk
                while rest and not bulk.stopped(rest):
                    try:
                        deadline = time.monotonic() + self._deadline
                        rest = bulk.answered(rest, await add(self._express, link, session, rest, deadline))
                    except BoundqError as error:
                        bulk.failed(rest, error)
                        break
        return bulk.results

    async def claim(
        self, n: int = 1, *, wait: float | timedelta = 0.0, lease: float | timedelta = 30.0
    ) -> list[AsyncLease]:
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
        return [AsyncLease(self, delivery) for delivery in await self._run(flow)]

    async def settle(
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
        return self._lost(by_fence, await self._run(self._deliveries.settle(work), each=True))

    async def extend(self, leases: Sequence[BaseLease], lease: float | timedelta = 30.0) -> list[BaseLease]:
        """Let leases end ``lease`` seconds from now; those that are lost come back."""
        _, lost = await self._run(self._deliveries.extend([one.delivery for one in leases], lease))
        return self._extended(leases, lost, lease)

    async def cancel(self, job_id: str) -> bool:
        """Take a job out, in whatever state it is; False where there is none of this id."""
        return bool(await self._run(self._control.cancel([job_id])))

    async def get(self, job_id: str) -> Job | None:
        """One job, None where there is none of this id."""
        return await self._run(self._inspection.get(job_id))

    async def position(self, job_id: str) -> int | None:
        """How many ready jobs of its priority come before it, at most; None when it is not ready."""
        job = await self.get(job_id)
        return job.ahead if job else None

    async def peek(
        self, state: State = "ready", n: int = 10, after: str | None = None, priority: Priority | None = None
    ) -> Page:
        """
        One page of the jobs in a state; the page's ``after`` fetches the next.

        Ready and scheduled jobs come by priority, the highest first; ``priority`` shows those of one.
        """
        return await self._run(self._inspection.peek(state, n, after, priority), each=True)

    async def stats(self) -> Stats:
        """The queue in numbers, without a scan."""
        return await self._run(self._inspection.stats())

    async def drain(self, timeout: float | timedelta = 60.0) -> bool:  # noqa: ASYNC109  # mirrors Queue's name
        """
        Wait until the queue holds nothing: ready, scheduled or active. It goes on taking jobs: `seal` it first.

        Returns:
            False when ``timeout`` seconds were over first.
        """
        return await self._run(self._inspection.drain(seconds(timeout, "timeout")), each=True)

    async def recount(self, *, repair: bool = False) -> Recount:
        """Compare the byte counters with the stored jobs; ``repair`` sets them right if nothing moves meanwhile."""
        return await self._run(self._inspection.recount(repair=repair), each=True)

    async def audit(self, *, repair: bool = False) -> Audit:
        """
        Hold what the queue says of itself against what is stored: ledger, bytes, and each entry; in bounded steps, on a
        queue that is in use. ``repair`` sets right what can be.
        """
        return await self._run(self._auditing.audit(repair=repair), each=True)

    async def pause(self, by: str = "") -> bool:
        """Stop claims; admission goes on up to the limits. Whether that changed anything."""
        return await self._run(self._control.switch("pause", by))

    async def resume(self, by: str = "") -> bool:
        """Allow claims again."""
        return await self._run(self._control.switch("resume", by))

    async def seal(self, by: str = "") -> bool:
        """Stop admission (`QueueSealed`); claims go on. Whether that changed anything."""
        return await self._run(self._control.switch("seal", by))

    async def unseal(self, by: str = "") -> bool:
        """Allow admission again."""
        return await self._run(self._control.switch("unseal", by))

    async def configure(self, limits: Limits, by: str = "") -> bool:
        """Set the limits for everybody, from the next call on. Lower than what is held: only admission stops."""
        return await self._run(self._control.configure(limits, by), each=True)

    async def retry_dead(self, job_ids: Sequence[str]) -> Retried:
        """
        Put dead letters back to work, each in one step: it is dead or back, never both, and a second call finds none.

        They go through admission: not beyond the limits, not into a sealed queue, not past producers that wait for
        room. Their deliveries start at 0, their age goes on.

        Args:
            job_ids: In this order.

        Returns:
            What became of them; where the queue is full, it stops there, and nothing is raised.
        """
        return await self._run(self._control.retry_dead(job_ids), each=True)

    async def drop_dead(self, job_ids: Sequence[str]) -> list[str]:
        """Delete dead letters, counted as dropped; the ids of those that were there, and dead."""
        return await self._run(self._control.cancel(job_ids, "dropped"), each=True)

    async def events(self, n: int = 20) -> list[Event]:
        """The latest changes of limits, pause and seal, 100 at most, the newest first."""
        return await self._run(self._control.events(n))

    async def purge(
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
            return await self._run(self._control.purge(chosen.states), each=True)
        return await asyncio.to_thread(  # the disk would hold the event loop up
            self.sync.purge,
            *states,
            to=to,
            task=task,
            older_than=older_than,
            priority=priority,
            limit=limit,
            progress=progress,
        )

    async def matching(
        self,
        *states: State,
        task: str | None = None,
        older_than: float | timedelta | None = None,
        priority: Priority | None = None,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Matching:
        """How many jobs `purge` would take out with these arguments, and their bytes; looks at each of them."""
        return await asyncio.to_thread(
            self.sync.matching,
            *states,
            task=task,
            older_than=older_than,
            priority=priority,
            limit=limit,
            progress=progress,
        )

    async def restore(
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
        return await asyncio.to_thread(
            self.sync.restore,
            path,
            *states,
            rate=rate,
            wait=wait,
            until_fill=until_fill,
            dry_run=dry_run,
            progress=progress,
        )

    async def close(self) -> None:
        """Hang up this event loop's connections to the server; a later call connects anew."""
        await self._hub.close()

    @property
    def sync(self) -> Queue:
        """The same queue for threads."""
        if self._twin is None:
            from boundq.sync.queue import Queue

            self._twin = self._make_twin(Queue)
        twin: Queue = self._twin
        return twin

    @property
    def aio(self) -> AsyncQueue:
        """This queue."""
        return self

    def _admit(self, job: Prepared, call: CallOptions) -> Awaitable[Receipt | Rejection]:
        if self._hooks is not None:
            return self._send_announced(self._hooks, job, call)
        if not call and (link := self._hub.here()) is not None:
            return self._combiner(link).enqueue(job, self._deadline)
        return self._send(job, call)

    async def _send_announced(self, hooks: Hooks, job: Prepared, call: CallOptions) -> Receipt | Rejection:
        with hooks.sending(job) as sending:
            sending.outcome = outcome = await self._send(sending.job, call)
            return outcome

    async def _send(self, job: Prepared, call: CallOptions) -> Receipt | Rejection:
        wait, seconds_left = self._call_times(call)
        link = await self._hub.link()
        if wait:
            with link.session(self.name) as session:
                flow = self._admission.enqueue_waiting(session, job, wait)
                return await link.drive(self.name, flow, seconds_left)
        return await self._combiner(link).enqueue(job, seconds_left)

    def _combiner(self, link: Link) -> Combiner:
        latest = self._latest
        if latest is not None and latest[0] is link:  # nearly always there is but one loop
            return latest[1]
        combiner = self._combiners.get(link)
        if combiner is None:
            combiner = self._combiners[link] = Combiner(self._express, link, self._deadline)
        self._latest = link, combiner
        return combiner

    async def _run(self, flow: Flow[R], *, each: bool = False) -> R:
        link = await self._hub.link()
        return await link.drive(self.name, flow, self._deadline, each=each)

    _latest: tuple[Link, Combiner] | None = None

    @cached_property
    def _hub(self) -> Hub:
        return Hub.of(self._target)

    @cached_property
    def _combiners(self) -> weakref.WeakKeyDictionary[Link, Combiner]:
        return weakref.WeakKeyDictionary()
