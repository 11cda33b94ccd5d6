"""
Worker: runs the tasks of its queues, plain functions in threads and ``async def`` ones on an event loop.

Each queue has a claimer (claimer.py), which settles and claims. This is what they share: the slots, the threads and
the loop, who runs at the moment, and how all of it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any

from boundq._core.delivery import MOST_JOBS
from boundq._runner import DONE, Run, Verdict, judge, judge_crash, perform, prepare_run
from boundq._sizes import positive_int, seconds
from boundq.errors import BoundqError, ConfigError
from boundq.job_control import CURRENT, CurrentJob
from boundq.lease import BaseLease
from boundq.sync.lease import Lease
from boundq.sync.queue import Queue
from boundq.worker.claimer import MOST_ERRORS, Claimer
from boundq.worker.crew import Crew
from boundq.worker.health import HealthFile, Pulse, Report
from boundq.worker.isolate import Children, Crashed, NoChildren
from boundq.worker.keeper import Keeper, ThreadKeeper
from boundq.worker.pace import STALE_SECONDS, Pace
from boundq.worker.slots import LOOP, THREAD, Slots
from boundq.worker.started import Ended, Key, Started, about, key_of
from boundq.worker.ticker import Ticker

__all__ = ["Worker"]

log = logging.getLogger("boundq.worker")

OK, GAVE_UP = 0, 70
# Seconds that child processes which were killed, and tasks which were cancelled, may take to be gone.
DEATH = 0.3


def quieting(quiet: Callable[[], None], resume: Callable[[], None]) -> dict[signal.Signals, Callable[..., None]]:
    """Handlers of the signals for the two; none on Windows, which has no such signals."""
    if not hasattr(signal, "SIGUSR1"):
        return {}
    return {signal.SIGUSR1: lambda *_: quiet(), signal.SIGUSR2: lambda *_: resume()}


class Worker:
    """
    Runs the tasks of some queues until it is told to stop.

    A job that fails is retried with back-off, then buried; one that cannot be run is buried with the reason; the loop
    goes on. Leases are extended while handlers run, up to the task's ``timeout``.

    Args:
        queues: Queues whose tasks are registered.
        threads: Plain functions that run at once, over all queues.
        concurrency: ``async def`` tasks that run at once, over all queues.
        lease: Seconds after which another worker may have the jobs of this one, should it die.
        grace: Seconds that running jobs have to finish after a stop; the rest is given back then.
        burst: Stop when the queues have nothing ready.
        max_jobs: Stop after about so many jobs; None: do not.
        weights: By queue name, 1.0 where nothing is said: whose turn it is when slots are scarce.
        isolate: Run plain functions not in the threads, but in as many child processes, which can be killed: at their
            ``timeout``, when the lease is lost or the job is cancelled, at the end of the grace. They import the tasks
            by themselves: give the targets, as for ``boundq worker``, e.g. ``["shop:emails"]``.
        health_file: Written once a second, for ``boundq health``.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        *,
        threads: int = 8,
        concurrency: int = 100,
        lease: float | timedelta = 30.0,
        grace: float | timedelta = 30.0,
        burst: bool = False,
        max_jobs: int | None = None,
        weights: Mapping[str, float] | None = None,
        isolate: Sequence[str] = (),
        health_file: str | PathLike[str] | None = None,
    ) -> None:
        if isinstance(queues, Queue) or not queues:
            raise ConfigError("queues", queues, "give a list of at least one queue")
        self._queues = list(queues)
        names = [queue.name for queue in self._queues]
        if len(set(names)) < len(names):
            raise ConfigError("queues", names, "give each queue once")
        for name, weight in (weights or {}).items():
            if name not in names:
                raise ConfigError("weights", name, f"no queue of this name here; there are {', '.join(names)}")
            seconds(weight, f"weight of {name}", least=0.001)
        self.lease = seconds(lease, "lease", least=0.1)
        self._grace = seconds(grace, "grace")
        self.burst = burst
        self._most = positive_int(max_jobs, "max_jobs") if max_jobs is not None else None
        self._threads = positive_int(threads, "threads")
        sizes = {THREAD: self._threads, LOOP: positive_int(concurrency, "concurrency")}
        self._slots = Slots(sizes, {queue.name: _kinds(queue) for queue in self._queues}, weights or {})
        self._keeper: Keeper = ThreadKeeper(self.lease, queues=self._queues)
        self._health = HealthFile(health_file) if health_file is not None else None
        self._tell_health: Callable[[Report], None] | None = self._write_health if self._health else None
        self._stopping = threading.Event()
        self._children = Children(isolate, self._stopping, self.give_up) if isolate else None
        self._quiet = threading.Event()
        self._lock = threading.Lock()
        self._told_lost: deque[Key] = deque(maxlen=1000)
        self._running: dict[Key, Started] = {}
        self._idle = threading.Condition(self._lock)
        self._closed = False  # the grace is over: nothing more is begun
        self._gave_up = False
        # Plain jobs that no thread has begun yet. For each there is a call of `_run_next` in the crew's queue.
        self._unbegun: deque[Started] = deque()
        self.crew = Crew(self._threads + len(self._queues), "boundq-job")  # one for each claimer's rounds
        self._settlers = Crew(2, "boundq-settle")  # the others may all be taken by handlers
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped_at = 0.0
        self.claimed = 0
        self.done = 0
        self.failed = 0

    def run(self) -> int:
        """
        Work until `stop`, SIGTERM or SIGINT (in the main thread), or until ``burst`` or ``max_jobs`` end it.

        SIGUSR1 is `quiet` and SIGUSR2 is `resume`, where the program has no handlers of its own for them.

        Returns:
            The exit code: 0 stopped, 70 given up after ten unexpected errors in a row, or without child processes.
        """
        with self._signals(), self._event_loop(), self._children or contextlib.nullcontext():
            self.crew.start()
            self._settlers.start()
            self._keeper.start(self._lost)
            Ticker(self._queues, self._stopping).start()
            claimers = [self._claimer(queue) for queue in self._queues]
            for claimer in claimers:
                claimer.start()
            pulse = self._pulse(claimers)
            for claimer in claimers:
                # A wait without end would keep signals waiting.
                while not claimer.over.wait(0.05):
                    if self.stopping or self.is_quiet:
                        for one in claimers:
                            one.withdraw()
                    if self._stopping.is_set() and (claimer.waits or self._grace_is_over()):
                        break
                    self._give_back_stale()
            self._wait_for_running()
            self._give_back()
            for claimer in claimers:
                claimer.settle_ended()
            if pulse:
                pulse.stop()
            self._keeper.stop()
            wait = not self.running and all(claimer.over.is_set() for claimer in claimers)
            self.crew.stop(wait=wait)
            self._settlers.stop(wait=wait)
        if self._health:
            self._health.remove()
        return GAVE_UP if self._gave_up else OK

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run ``async def`` tasks on this running loop, instead of one of our own; before `run`."""
        self._loop = loop

    def keep_leases_with(self, keeper: Keeper) -> None:
        """Have the leases kept by another than a thread of this process; before `run`."""
        self._keeper = keeper

    def tell_health_to(self, tell: Callable[[Report], None]) -> None:
        """Tell somebody once a second how this worker is; before `run`."""
        self._tell_health = tell

    def quiet(self) -> None:
        """Claim no more, and go on running: before a stop, so that little is left to do then. `resume` undoes it."""
        if not self._quiet.is_set():
            self._quiet.set()
            log.info("quiet: nothing more is claimed; %d jobs run", len(self._running))  # no lock: it may be a signal

    def resume(self) -> None:
        """Claim again."""
        if self._quiet.is_set():
            self._quiet.clear()
            log.info("no longer quiet: jobs are claimed again")

    def stop(self) -> None:
        """Claim no more; `run` returns when the running jobs are done or the grace is over."""
        if not self._stopping.is_set():
            self._stopped_at = time.monotonic()
            self._stopping.set()

    @property
    def running(self) -> int:
        """How many jobs run now."""
        with self._lock:
            return len(self._running)

    # For the claimers.

    @property
    def stopping(self) -> bool:
        """Whether nothing is to be claimed any more."""
        return self._stopping.is_set() or (self._most is not None and self.claimed >= self._most)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be claimed for the time being."""
        return self._quiet.is_set()

    def give_up(self) -> None:
        """Too many errors: end, so that a supervisor starts afresh."""
        self._gave_up = True
        self.stop()

    def take_slots(self, claimer: Claimer) -> int:
        """Slots for a claim, of each kind that the queue needs; 0 when there is none yet. See `Slots.take`."""
        queue = claimer.queue.name
        self._slots.allow_ahead(queue, claimer.pace.ahead)
        left = MOST_JOBS if self._most is None else min(MOST_JOBS, max(self._most - self.claimed, 1))
        return self._slots.take(queue, left, 0.2)

    def take_free_slot(self, claimer: Claimer) -> bool:
        """A slot of each kind that the queue needs, if there is one at once."""
        return self._slots.take(claimer.queue.name, 1, 0.0) > 0

    def give_slots(self, queue: str, count: int) -> None:
        """Those that the claim did not need."""
        self._slots.give(self._slots.kinds(queue), count)

    def runs(self, queue: Queue, lease: Lease) -> bool:
        """Whether this delivery runs now."""
        return (queue.name, lease.id, lease.delivery.fence) in self._running

    def wait_for_an_end(self, seconds: float = 0.1) -> None:
        """Until a job ends, for so many seconds at most."""
        with self._idle:
            self._idle.wait(seconds)

    def wait_for_stop(self, seconds: float) -> None:
        """So long, unless the worker is told to stop."""
        self._stopping.wait(seconds)

    def let_go(self, queue: Queue, leases: Sequence[BaseLease]) -> None:
        """Keep these leases no longer."""
        self._keeper.drop(queue.name, leases)

    def take_on(self, claimer: Claimer, lease: Lease) -> Started | None:
        """
        A job for the claimer's own thread to run, by `run_here`; None where it is none for a thread, or none is free.

        The rest, `took_on`, is left to the thread that goes on with the rounds, so that the job begins at once.
        """
        if THREAD not in self._slots.kinds(claimer.queue.name):
            return None
        one = self._prepared(claimer, lease, time.monotonic())
        if one.kind != THREAD or len(self._running) >= self._threads:
            return None
        self._keep([one])
        return one if self._register([one]) else None

    def took_on(self, one: Started, slots: int) -> None:
        """What is left to do of `take_on`: give back the slots that the claim did not need."""
        kinds = self._slots.kinds(one.queue)
        self._slots.give(kinds, slots - 1)
        self._slots.give(kinds - {one.kind})

    def start(self, claimer: Claimer, leases: Sequence[Lease]) -> None:
        """Run what was claimed. Its slots are reserved; they are given back as the jobs end."""
        queue, now = claimer.queue, time.monotonic()
        started = [self._prepared(claimer, lease, now) for lease in leases]
        self._keep(started)
        if not self._register(started):
            self.let_go(queue, leases)
            self.release(queue, leases)
            self.give_slots(queue.name, len(leases))
            return
        on_loop = [one for one in started if one.kind == LOOP and isinstance(one.run, Run)]
        in_threads = [one for one in started if one.kind == THREAD or not isinstance(one.run, Run)]
        self._unbegun.extend(in_threads)
        for _ in in_threads:
            self.crew.submit(self._run_next)
        if on_loop and self._loop is not None:
            coroutines = [self._run_async(one) for one in on_loop]
            self._loop.call_soon_threadsafe(self._start_tasks, self._loop, coroutines)  # one wake-up for all of them
        kinds = self._slots.kinds(queue.name)
        for kind in kinds:
            self._slots.give({kind}, sum(one.kind != kind for one in started))

    def _claimer(self, queue: Queue) -> Claimer:
        kind = THREAD if THREAD in self._slots.kinds(queue.name) else LOOP
        again = all(task.retries > 0 for task in queue.tasks.values())
        pace = Pace(allowed=again and self._children is None and self._most is None)
        return Claimer(self, queue, kind, pace)

    def _prepared(self, claimer: Claimer, lease: Lease, now: float) -> Started:
        queue = claimer.queue
        run = prepare_run(queue.tasks, lease)
        kind = _kind(run.task.function) if isinstance(run, Run) else claimer.kind
        job = CurrentJob(queue.name, lease, lambda one, ends: queue.extend([one], ends))
        return Started(claimer, lease, job, run, kind, now)

    def _register(self, started: Sequence[Started]) -> bool:
        """Whether they may begin: not when the grace is over."""
        with self._lock:
            if self._closed:
                return False
            self.claimed += len(started)
            self._running.update((one.key, one) for one in started)
            return True

    def _keep(self, started: Sequence[Started]) -> None:
        """Have the leases kept; before the jobs begin: a handler may hold the interpreter lock from its first line."""
        self._keeper.hold(started[0].claimer.queue, [(one.lease, self._patience(one)) for one in started])

    def _start_tasks(self, loop: asyncio.AbstractEventLoop, coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
        for coroutine in coroutines:
            task = loop.create_task(coroutine)
            self._tasks.add(task)  # the loop itself holds them weakly
            task.add_done_callback(self._tasks.discard)

    def _patience(self, one: Started) -> float | None:
        """Seconds for which the lease is extended: the timeout. The event loop keeps its own, so that goes first."""
        if isinstance(one.run, Verdict) or one.run.task.timeout is None:
            return None
        if one.kind == THREAD and self._children is not None:
            return None  # it begins when a child has the job (`_perform`)
        return one.run.task.timeout + (self.lease if one.kind == LOOP else 0)

    def _run_next(self) -> None:
        """The next plain job, if it has not been given back meanwhile."""
        try:
            one = self._unbegun.popleft()
        except IndexError:
            return
        self.run_here(one)

    def run_here(self, one: Started) -> None:
        """Run a plain function in this thread."""
        # In a context of its own: what a handler sets in context variables is not there for the next one.
        contextvars.copy_context().run(self._run_sync, one)

    def _run_sync(self, one: Started) -> None:
        verdict = DONE
        try:
            if isinstance(one.run, Verdict):
                verdict = one.run
            elif not one.job.cancelled:
                began = time.monotonic()
                verdict = self._perform(one, one.run)
                one.claimer.pace.ran(time.monotonic() - began)
        except BaseException as error:  # ours, not the handler's: the job is not done
            log.exception("queue %s: unexpected error in the run of job %s", one.queue, one.lease.id, extra=one.about)
            assert isinstance(one.run, Run)
            verdict = judge(one.run.task, one.lease.attempt, error)
        finally:
            self._end(one, verdict)

    def _perform(self, one: Started, run: Run) -> Verdict:
        """Run a plain function: in this thread, or in a child process while this thread waits."""
        queue, lease, job = one.claimer.queue, one.lease, one.job
        if self._children is None:
            token = CURRENT.set(job)
            try:
                return perform(run, lease.attempt, queue._around_run(job))
            finally:
                CURRENT.reset(token)

        def began() -> None:
            if run.task.timeout is not None:
                self._keeper.hold(queue, [(lease, run.task.timeout)])

        try:
            return self._children.run(queue.name, lease.delivery, job, began)
        except Crashed as error:
            return judge_crash(run.task, lease.attempt, str(error))
        except NoChildren as error:
            log.error("queue %s: job %s is given back: %s", queue.name, lease.id, error)
            job.cancel()
            self.release(queue, [lease])
            self.give_up()
            return DONE  # which does not count: the job is not ours any more

    async def _run_async(self, one: Started) -> None:
        run, job, lease = one.run, one.job, one.lease
        assert isinstance(run, Run)
        CURRENT.set(job)
        loop, handle = asyncio.get_running_loop(), asyncio.current_task()
        assert handle is not None
        job.ender = lambda: loop.call_soon_threadsafe(handle.cancel)
        verdict = DONE
        try:
            if job.cancelled:
                return
            with one.claimer.queue._around_run(job):
                if run.task.timeout is None:
                    await run.task.function(*run.args, **run.kwargs)
                else:
                    async with asyncio.timeout(run.task.timeout):
                        await run.task.function(*run.args, **run.kwargs)
        except BaseException as error:
            # Where job.cancelled, that is why: its lease is lost, or the grace is over.
            verdict = judge(run.task, lease.attempt, error)
        finally:
            self._keep_until_settled(lease)
            if verdict is DONE and not job.cancelled and one.claimer.note(Ended(lease, verdict)):
                self._count(one, verdict)
            else:  # settling talks to the server: not on the loop
                self._settlers.submit(functools.partial(self._end, one, verdict))

    def _end(self, one: Started, verdict: Verdict) -> None:
        """A run is over: settle it, now or with the next claim, and give its slot back."""
        try:
            self._keep_until_settled(one.lease)
            if not one.job.cancelled:
                if verdict.kind != "ack":
                    _tell(one, verdict)
                one.claimer.ended(Ended(one.lease, verdict))
        except Exception:
            log.exception(
                *("queue %s: job %s could not be settled; it may run again", one.queue, one.lease.id), extra=one.about
            )
        finally:
            self._count(one, verdict)

    def _keep_until_settled(self, lease: Lease) -> None:
        """It was extended a third of its length ago at most; settling is tried until it ends."""
        lease.ends = max(lease.ends, time.monotonic() + self.lease * 2 / 3)

    def _count(self, one: Started, verdict: Verdict) -> None:
        """A run is over, and somebody settles it: its slot is free."""
        with self._lock:
            self._running.pop(one.key, None)
            if verdict.kind == "ack" and not one.job.cancelled:
                self.done += 1
            else:
                self.failed += 1
            self._idle.notify_all()
        self._slots.give({one.kind})

    def _lost(self, queue: str, job_id: str, fence: int, timed_out: bool) -> None:
        """A lease is gone, or its job's time is over: the handler learns it, the log says it once."""
        with self._lock:
            one = self._running.get((queue, job_id, fence))
        if one is None or one.job.cancelled:
            return
        one.job.cancel()
        if timed_out:
            # A thread cannot be ended: what it still does will not count. A child process has just been killed.
            task = one.claimer.queue.tasks[one.lease.task]
            said = "killed: ran longer than its timeout of" if self._dies(one) else "the handler took longer than"
            verdict = judge(task, one.lease.attempt, TimeoutError(f"{said} {task.timeout:g} s"))
            _tell(one, verdict)
            # Whoever keeps the leases must not wait for the server here.
            self._settlers.submit(functools.partial(one.claimer.ended, Ended(one.lease, verdict)))
        else:
            self.tell_lost(queue, one.lease)

    def tell_lost(self, queue: str, lease: BaseLease) -> None:
        """Say it once: whoever extends the lease may learn it at the same moment as whoever settles the job."""
        key = key_of(queue, lease)
        with self._lock:
            if key in self._told_lost:
                return
            self._told_lost.append(key)
        log.warning(
            *("queue %s: the lease of job %s is lost (LeaseLost); its result does not count", queue, lease.id),
            extra=about(queue, lease),
        )

    def _dies(self, one: Started) -> bool:
        """Whether its handler is killed when it is cancelled."""
        return self._children is not None and one.kind == THREAD

    def _wait_for_running(self) -> None:
        while self.running and not self._grace_is_over():
            if self._stopping.is_set():
                self._give_back_unbegun()
            else:
                self._give_back_stale()
            self.wait_for_an_end()

    def _give_back_stale(self) -> None:
        """What was claimed ahead, and has waited too long for a thread."""
        with contextlib.suppress(IndexError):
            stale = self._unbegun[0]
            if time.monotonic() - stale.at > STALE_SECONDS:
                self._slow_down(stale.claimer)  # before its slots are free: it may be waiting for them
                for claimer in self._give_back_unbegun():
                    self._slow_down(claimer)

    def _slow_down(self, claimer: Claimer) -> None:
        """What it claimed ahead was not begun in time."""
        claimer.pace.slow()
        self._slots.allow_ahead(claimer.queue.name, 0)

    def _give_back_unbegun(self) -> Collection[Claimer]:
        """What no thread has begun goes back to the head of its priority, for whoever has a thread; whose it was."""
        left = []
        with contextlib.suppress(IndexError):
            while True:
                left.append(self._unbegun.popleft())
        by_claimer: dict[Claimer, list[Started]] = {}
        for one in left:
            if not one.job.cancelled:
                by_claimer.setdefault(one.claimer, []).append(one)
        for claimer, some in by_claimer.items():
            leases = [one.lease for one in some]
            self.let_go(claimer.queue, leases)
            self.release(claimer.queue, leases)
        with self._lock:
            for one in left:
                self._running.pop(one.key, None)
            self._idle.notify_all()
        self._slots.give({THREAD}, len(left))
        return by_claimer

    def _grace_is_over(self) -> bool:
        return self._stopping.is_set() and time.monotonic() - self._stopped_at >= self._grace

    def _give_back(self) -> None:
        """What the grace did not suffice for goes back to the head of its priority, its delivery not spent."""
        with self._lock:
            self._closed = True
            left = list(self._running.values())
        by_queue: dict[Queue, list[BaseLease]] = {}
        for one in left:
            if not one.job.cancelled:
                one.job.cancel()
                self.let_go(one.claimer.queue, [one.lease])
                by_queue.setdefault(one.claimer.queue, []).append(one.lease)
        if self._children is not None:
            # Another worker may have them at once: not while our children, which were killed just now, still run them.
            with self._idle:
                self._idle.wait_for(lambda: not any(one.key in self._running for one in left), DEATH)
        for queue, leases in by_queue.items():
            log.warning("queue %s: %d jobs not done within the grace are given back", queue.name, len(leases))
            self.release(queue, leases)

    def release(self, queue: Queue, leases: Sequence[BaseLease]) -> None:
        """Give deliveries back; where the server is away, it does so itself when the leases end."""
        try:
            queue.settle(releases=leases)
        except BoundqError as error:
            log.warning("they come back when their leases end: %s", error)

    def _pulse(self, claimers: Sequence[Claimer]) -> Pulse | None:
        """Begin to tell how it is, if anybody wants to know."""
        if self._tell_health is None:
            return None
        loops = {claimer.queue.name: claimer.last_round for claimer in claimers}
        pulse = Pulse(self._state, loops, self._loop, self._tell_health)
        pulse.start()
        return pulse

    def _state(self) -> str:
        return "stopping" if self.stopping else "quiet" if self.is_quiet else "running"

    def _write_health(self, report: Report) -> None:
        assert self._health is not None
        self._health.started(1, os.getpid())
        self._health.heard(1, report)
        self._health.write(report["state"])

    @contextlib.contextmanager
    def _event_loop(self) -> Iterator[None]:
        """A loop in a thread, where a queue has ``async def`` tasks and the caller has none for them."""
        if self._loop is not None or not any(LOOP in self._slots.kinds(queue.name) for queue in self._queues):
            yield
            return
        loop = self._loop = asyncio.new_event_loop()
        ending = threading.Event()
        thread = threading.Thread(target=self._run_loop, args=(loop, ending), name="boundq-loop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            loop.call_soon_threadsafe(loop.stop)
            thread.join(DEATH if self.running else None)
            if not thread.is_alive():  # else a handler holds it up, and the grace is over
                _end_tasks(loop)
                loop.close()
            self._loop = None

    def _run_loop(self, loop: asyncio.AbstractEventLoop, ending: threading.Event) -> None:
        """Run the event loop until we end it ourselves: handlers that stop it stop the jobs of all."""
        errors = 0
        while not ending.is_set():
            try:
                loop.run_forever()
            except BaseException:  # SystemExit of a task that a handler has started
                log.exception("unexpected error on the event loop")
            if not ending.is_set():
                errors += 1
                log.error("a handler has stopped the worker's event loop, %d of %d; it runs on", errors, MOST_ERRORS)
                if errors >= MOST_ERRORS:
                    self.give_up()
                    return

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        for number, act in quieting(self.quiet, self.resume).items():
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, act)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: Any) -> None:
        if self._stopping.is_set():
            self._grace = 0.0  # a second signal: give back now
        self.stop()


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What the grace did not suffice for, and what handlers have left behind, is cancelled."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    for _ in range(2):  # a stop that came when the loop had been stopped already is still to be heard
        with contextlib.suppress(RuntimeError):
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=DEATH))
            return


def _tell(one: Started, verdict: Verdict) -> None:
    """One bounded line for each failure, with ids and no payload."""
    what = f"retried in {verdict.delay:.1f} s" if verdict.kind == "retry" else f"buried ({verdict.reason})"
    first = verdict.error.strip().splitlines()[-1][:300] if verdict.error.strip() else ""
    lease = one.lease
    log.warning(
        *("queue %s: job %s (%s), attempt %d, is %s: %s", one.queue, lease.id, lease.task, lease.attempt, what, first),
        extra=one.about,
    )


@functools.lru_cache(1024)
def _kind(function: Any) -> str:
    return LOOP if inspect.iscoroutinefunction(function) else THREAD


def _kinds(queue: Queue) -> set[str]:
    return {_kind(task.function) for task in queue.tasks.values()} or {THREAD}
