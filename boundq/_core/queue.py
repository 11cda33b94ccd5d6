"""What `Queue` and `AsyncQueue` share: the declaration, the tasks, the flows. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from boundq._core.admission import MOST_BYTES, MOST_GENERAL, MOST_PLAIN, Admission
from boundq._core.audit import Auditing
from boundq._core.base import Core
from boundq._core.control import Control
from boundq._core.delivery import Deliveries, Delivery, Lost, Settlement
from boundq._core.express import Express
from boundq._core.inspection import Inspection
from boundq._job import JobOptions, Prepared, prepare
from boundq._keys import check_name
from boundq._poll import busy_poll_seconds
from boundq._sizes import seconds
from boundq._target import target_of
from boundq.errors import BoundqError, ConfigError, Unavailable
from boundq.lease import BaseLease
from boundq.limits import Limits
from boundq.middleware import Hooks, Middleware
from boundq.model import EnqueueResult, Receipt, Rejection
from boundq.schedule import make_schedule
from boundq.task import CallOptions, EnqueueOptions, Enqueuer, Task

if TYPE_CHECKING:
    from typing import Unpack

    from boundq.job_control import CurrentJob

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="BaseQueue")

DEADLINE_SECONDS = 5.0


class BaseQueue:
    """The declaration of a queue, and its registered tasks."""

    def __init__(
        self,
        name: str,
        url_or_client: Any = None,
        *,
        max_jobs: int | None = None,
        max_bytes: int | str | None = None,
        limits: Limits | None = None,
        deadline: float | timedelta = DEADLINE_SECONDS,
        create: bool = True,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        chosen = limits if limits is not None else Limits()
        if not isinstance(chosen, Limits):
            raise ConfigError("limits", limits, "give a Limits(...)")
        if max_jobs is not None:
            chosen = replace(chosen, max_jobs=max_jobs)
        if max_bytes is not None:
            chosen = replace(chosen, max_bytes=max_bytes)
        self._core = Core(name, chosen if create else None)
        self.name = name
        self.limits = chosen
        self._deadline = seconds(deadline, "deadline", least=0.001)
        self._target = target_of(url_or_client)
        busy_poll_seconds()  # a wrong setting is said here, not at some later call
        self._admission = Admission(self._core)
        self._express = Express(self._core, self._admission)
        self._deliveries = Deliveries(self._core)
        self._inspection = Inspection(self._core)
        self._control = Control(self._core)
        self._hooks = Hooks(name, middleware) if middleware else None
        self._auditing = Auditing(self._core)
        self.tasks: dict[str, Task[..., Any]] = {}
        self._twin: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        retries: int = 3,
        timeout: float | timedelta | None = None,
        every: float | timedelta | None = None,
        cron: str | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(  # type: ignore[misc]  # mypy does not see that Any takes what the overload unpacks
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retries: int = 3,
        timeout: float | timedelta | None = None,
        every: float | timedelta | None = None,
        cron: str | None = None,
        **options: Any,
    ) -> Any:
        """
        Register a function as a task: ``@queue.task`` or ``@queue.task(retries=5, timeout=30)``.

        Args:
            function: The function, when used without parentheses.
            name: Under which workers know it; the function's name by default.
            retries: How often a failed run is tried again before the job is buried.
            timeout: Seconds one run may take.
            every: Seconds after which the workers enqueue it again and again, without arguments; 1 at least.
            cron: A cron expression instead, in UTC (extra ``cron``). One job for each tick, however many workers run;
                at a full queue the tick is left out.
            options: Defaults for every job of this task, see `EnqueueOptions`.

        Raises:
            ConfigError: The name is taken, or an option makes no sense.
        """

        schedule = make_schedule(every, cron)
        defaults = cast(EnqueueOptions, options)  # as the overload says

        def register(function: Callable[P, R]) -> Task[P, R]:
            chosen = check_name(name if name is not None else function.__name__, "task name")
            if chosen in self.tasks:
                raise ConfigError("task name", chosen, f"queue {self.name!r} has a task of this name already")
            prepare(self.name, chosen, b"", _job_part(defaults))  # a bad default is an error now, not at an enqueue
            task = Task(self._home(), function, chosen, defaults, retries=retries, timeout=timeout, schedule=schedule)
            self.tasks[chosen] = task
            return task

        return register if function is None else register(function)

    def named(self, task: str, **options: Unpack[EnqueueOptions]) -> Enqueuer[...]:
        """A task by name, for producers that do not import its code: ``queue.named("send", delay=5).enqueue(42)``."""
        return Enqueuer(self._home(), check_name(task, "task name"), options)

    def _make_twin(self, kind: type[T]) -> T:
        """The same declaration in the other shell; tasks and what is known of the server are shared."""
        twin = kind.__new__(kind)
        shared = {name: value for name, value in self.__dict__.items() if name not in ("_hub", "_combiners", "_latest")}
        twin.__dict__.update(shared, _twin=self)
        return twin

    def _sibling(self: T, name: str) -> T:
        """Another queue of the same server, if there is one."""
        return type(self)(name, self._target, deadline=self._deadline, create=False)

    def _home(self) -> Any:
        return self

    def _enqueuer(self, task: Task[..., Any] | str) -> Enqueuer[...]:
        if isinstance(task, str):
            return self.named(task)
        if not isinstance(task, Task):
            raise ConfigError("task", task, "give a task or the name of one")
        return Enqueuer(self._home(), task.name, task.defaults)

    def _raw(self, payload: bytes, options: EnqueueOptions) -> tuple[Prepared, CallOptions]:
        """A raw payload's job, and the options of the call."""
        call: CallOptions = {}
        for key in ("wait", "deadline"):
            if key in options:
                call[key] = options[key]
        return prepare(self.name, "", payload, _job_part(options)), call

    def _call_times(self, call: CallOptions) -> tuple[float, float]:
        """Seconds to wait for room, and for the call."""
        wait, deadline = call.get("wait"), call.get("deadline")
        return (
            seconds(wait, "wait") if wait is not None else 0.0,
            seconds(deadline, "deadline", least=0.001) if deadline is not None else self._deadline,
        )

    def _settlement(
        self,
        acks: Sequence[BaseLease],
        retries: Sequence[tuple[BaseLease, float | timedelta]],
        releases: Sequence[BaseLease],
        buries: Sequence[tuple[BaseLease, str, str]],
    ) -> tuple[dict[tuple[str, int], BaseLease], Settlement]:
        leases = [*acks, *(one for one, _ in retries), *releases, *(one for one, _, _ in buries)]
        work = Settlement(
            [one.delivery for one in acks],
            [(one.delivery, seconds(delay, "delay")) for one, delay in retries],
            [one.delivery for one in releases],
            [(one.delivery, reason, text) for one, reason, text in buries],
        )
        return {(one.id, one.delivery.fence): one for one in leases}, work

    def _lost(self, by_fence: dict[tuple[str, int], BaseLease], lost: Sequence[Lost]) -> list[BaseLease]:
        for lease in by_fence.values():
            lease.settled = True
        for one in lost:
            by_fence[one.delivery.id, one.delivery.fence].cancelled = one.cancelled
        return [by_fence[one.delivery.id, one.delivery.fence] for one in lost]

    def _extended(
        self, leases: Sequence[BaseLease], lost: Sequence[Delivery], lease: float | timedelta
    ) -> list[BaseLease]:
        gone = {(one.id, one.fence) for one in lost}
        ends = time.monotonic() + seconds(lease, "lease")
        for one in leases:
            if (one.id, one.delivery.fence) not in gone:
                one.ends = ends
        return [one for one in leases if (one.id, one.delivery.fence) in gone]

    def _together(self, jobs: Iterable[bytes | Prepared], options: JobOptions) -> list[Prepared]:
        return self._announced(
            [job if isinstance(job, Prepared) else prepare(self.name, "", job, options) for job in jobs]
        )

    def _announced(self, jobs: list[Prepared]) -> list[Prepared]:
        """As the hooks leave them."""
        return jobs if self._hooks is None else [self._hooks.before_enqueue(job) for job in jobs]

    def _around_run(self, job: CurrentJob) -> AbstractContextManager[None]:
        """What a worker runs a handler in."""
        return nullcontext() if self._hooks is None else self._hooks.running(job)

    @contextmanager
    def _told_if_failed(self, jobs: Sequence[Prepared]) -> Iterator[None]:
        """The hooks learn of an error that ends the admission of these."""
        try:
            yield
        except BaseException as error:
            if self._hooks is not None:
                self._hooks.failed(jobs, error)
            raise

    def _all_or_none(self, jobs: Sequence[Prepared], outcomes: Sequence[Receipt | Rejection]) -> list[EnqueueResult]:
        """Results of an atomic admission: one refusal stands for all."""
        results = results_of(outcomes)
        if len(results) < len(jobs):
            results = [results[-1]] * len(jobs)
        if self._hooks is not None:
            self._hooks.answered(jobs, results)
        return results

    def _chunks(self, jobs: Iterable[bytes | Prepared], options: JobOptions) -> Iterator[list[Prepared] | ConfigError]:
        """
        Jobs in scripts' worth: in order, plain ones of one priority together, none too long.

        What cannot be a job comes as an error in its place; raised where it is the very first.
        """
        chunk: list[Prepared] = []
        size, begun = 0, False
        for job in jobs:
            try:
                ready = job if isinstance(job, Prepared) else prepare(self.name, "", job, options)
            except ConfigError as error:
                if not begun:
                    raise
                if chunk:
                    yield chunk
                    chunk, size = [], 0
                yield error
                continue
            begun = True
            if self._hooks is not None:
                ready = self._hooks.before_enqueue(ready)
            if chunk:
                most = MOST_GENERAL if ready.general else MOST_PLAIN
                alike = ready.general == chunk[0].general and (ready.general or ready.level == chunk[0].level)
                if not alike or len(chunk) >= most or size + ready.size > MOST_BYTES:
                    yield chunk
                    chunk, size = [], 0
            chunk.append(ready)
            size += ready.size
        if chunk:
            yield chunk


def _job_part(options: EnqueueOptions) -> JobOptions:
    return {key: value for key, value in options.items() if key not in CallOptions.__annotations__}  # type: ignore[return-value]  # the rest of the union


def results_of(outcomes: Sequence[Receipt | Rejection]) -> list[EnqueueResult]:
    """Outcomes of an admission, one for each."""
    return [
        EnqueueResult(receipt=one) if isinstance(one, Receipt) else EnqueueResult(rejection=one) for one in outcomes
    ]


class Bulk:
    """
    The bookkeeping of `enqueue_many`: what was said of each job so far, and whether to go on.

    A job that is too large, or none, is refused by itself. After any other refusal, or an error, no later job is sent,
    and each gets the same answer: the order of what is in the queue is the caller's.

    Args:
        hooks: To be told of each answer.
    """

    def __init__(self, hooks: Hooks | None) -> None:
        self.results: list[EnqueueResult] = []
        self._stop: EnqueueResult | None = None
        self._hooks = hooks

    def stopped(self, chunk: Sequence[Prepared]) -> bool:
        """Whether the chunk is not to be sent; it is answered then."""
        if self._stop is not None:
            self._add(chunk, [self._stop] * len(chunk))
        return self._stop is not None

    def answered(self, chunk: Sequence[Prepared], outcomes: Sequence[Receipt | Rejection]) -> Sequence[Prepared]:
        """Take the outcomes of a chunk; what of it is still to be sent."""
        results = results_of(outcomes)
        self._add(chunk[: len(results)], results)
        last = outcomes[-1]
        rest = chunk[len(outcomes) :]
        if isinstance(last, Rejection) and last.reason != "job_bytes":
            self._stop = results[-1]
            self._add(rest, [self._stop] * len(rest))
            return ()
        return rest

    def wrong(self, error: ConfigError) -> None:
        """What cannot be a job; those behind it may be."""
        self.results.append(self._stop or EnqueueResult(error=error))

    def failed(self, chunk: Sequence[Prepared], error: BoundqError) -> None:
        """The answer to this chunk was lost, or an error."""
        self._add(chunk, [EnqueueResult(error=error)] * len(chunk))
        self._stop = EnqueueResult(error=Unavailable(error.queue, "not_sent", "reset", "an earlier chunk failed"))

    def _add(self, chunk: Sequence[Prepared], results: Sequence[EnqueueResult]) -> None:
        self.results += results
        if self._hooks is not None:
            self._hooks.answered(chunk, results)
