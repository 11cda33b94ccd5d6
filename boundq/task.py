"""Tasks: functions that can be enqueued."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar

import msgspec

from boundq._job import JobOptions, Mould, Prepared, encode_arguments, mould, prepare
from boundq._sizes import seconds
from boundq.errors import ConfigError
from boundq.model import Receipt, Rejection
from boundq.schedule import Schedule

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["EnqueueOptions", "Enqueuer", "Task"]

_ARGUMENTS = msgspec.json.Decoder(tuple[list[Any], dict[str, Any]])
P = ParamSpec("P")
R = TypeVar("R")


class EnqueueOptions(JobOptions, total=False):
    """Options of a job, and of the call: wait: seconds to wait for room; deadline: seconds the call may take."""

    wait: float | timedelta | None
    deadline: float | timedelta | None


class CallOptions(TypedDict, total=False):
    """How the call itself behaves, as `EnqueueOptions` has it."""

    wait: float | timedelta | None
    deadline: float | timedelta | None


class SyncShell(Protocol):
    """What a task needs of a `Queue`."""

    def _admit(self, job: Prepared, call: CallOptions) -> Receipt | Rejection: ...


class AsyncShell(Protocol):
    """What a task needs of an `AsyncQueue`."""

    def _admit(self, job: Prepared, call: CallOptions) -> Awaitable[Receipt | Rejection]: ...


class Home(Protocol):
    """The queue that a task was declared on, of either kind."""

    name: str

    @property
    def sync(self) -> SyncShell: ...
    @property
    def aio(self) -> AsyncShell: ...


class Enqueuer(Generic[P]):
    """
    A task's name with options, ready to be given arguments.

    Arguments are sent as JSON; what JSON cannot hold raises `DataError`, and nothing is sent.
    """

    def __init__(self, home: Home, name: str, options: EnqueueOptions) -> None:
        self._home = home
        self.name = name
        self._job: JobOptions = {}
        self._call: CallOptions = {}
        for key, value in options.items():
            (self._call if key in CallOptions.__annotations__ else self._job)[key] = value  # type: ignore[literal-required]  # keys of the union, split

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Prepared:
        """A job for `Queue.enqueue_many`, not sent yet. ``wait`` and ``deadline`` do not go with it."""
        payload = encode_arguments(self._home.name, self.name, args, kwargs)
        if self._mould is not None:
            return self._mould.cast(payload)
        return prepare(self._home.name, self.name, payload, self._job)

    @functools.cached_property
    def _mould(self) -> Mould | None:
        return mould(self.name, self._job)

    def try_enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Receipt | Rejection:
        """Add a job, or say why not; never raises because of a limit."""
        return self._home.sync._admit(self.call(*args, **kwargs), self._call)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """
        Add a job.

        Raises:
            QueueFull, QueueSealed, JobTooLarge: Refused; certainly not stored.
            Unavailable: No answer; see its ``outcome``.
            DataError: Arguments that JSON cannot hold; nothing was sent.
        """
        return _admitted(self._home.sync._admit(self.call(*args, **kwargs), self._call))

    async def atry_enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Receipt | Rejection:
        """`try_enqueue` for asyncio."""
        return await self._home.aio._admit(self.call(*args, **kwargs), self._call)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """`enqueue` for asyncio."""
        return _admitted(await self._home.aio._admit(self.call(*args, **kwargs), self._call))


class Task(Enqueuer[P], Generic[P, R]):
    """
    A registered function. Calling it runs it here and now; `enqueue` sends it to a worker.

    Attributes:
        name: Under which workers know it.
        retries: How often a failed run is tried again before the job is buried.
        timeout: Seconds one run may take, None for no bound.
        schedule: When workers enqueue it by themselves, None for never.
        defaults: Options of its jobs.
    """

    def __init__(
        self,
        home: Home,
        function: Callable[P, R],
        name: str,
        options: EnqueueOptions,
        *,
        retries: int,
        timeout: float | timedelta | None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(home, name, options)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigError("retries", retries, "it must be a whole number, 0 or more")
        self.function = function
        self.retries = retries
        self.timeout = seconds(timeout, "timeout", least=0.001) if timeout is not None else None
        self.schedule = schedule
        self.defaults = options
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def options(self, **options: Unpack[EnqueueOptions]) -> Enqueuer[P]:
        """
        The task with options for the next jobs: ``send.options(delay=60, unique="a").enqueue(1)``.

        See `EnqueueOptions`; given ones replace those of the declaration.
        """
        return Enqueuer(self._home, self.name, {**self.defaults, **options})

    def __repr__(self) -> str:
        return f"<Task {self.name} of queue {self._home.name}>"


def _admitted(outcome: Receipt | Rejection) -> Receipt:
    if isinstance(outcome, Rejection):
        raise outcome.error()
    return outcome


def run_arguments(payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The arguments out of a payload as `Enqueuer.call` wrote it."""
    return _ARGUMENTS.decode(payload)
