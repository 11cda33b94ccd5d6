"""
Worker: runs the tasks of its queues, plain functions in threads and ``async def`` ones on an event loop.

Each queue has a claimer thread. While there is work, its round is one exchange with the server: settle what is done and
claim the next. With nothing to do it waits on the server; what is done meanwhile is settled by the thread that did it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from os import PathLike
from typing import Any, NamedTuple

from boundq._core.delivery import MOST_JOBS
from boundq._runner import DONE, Run, Verdict, judge, judge_crash, perform, prepare_run
from boundq._sizes import positive_int, seconds
from boundq.errors import BoundqError, ConfigError
from boundq.job_control import CURRENT, CurrentJob
from boundq.lease import BaseLease
from boundq.sync.lease import Lease
from boundq.sync.queue import Queue
from boundq.worker.health import HealthFile, Pulse, Report
from boundq.worker.isolate import Children, Crashed, NoChildren
from boundq.worker.keeper import Keeper, ThreadKeeper
from boundq.worker.slots import LOOP, THREAD, Slots
from boundq.worker.ticker import Ticker

__all__ = ["Worker"]

log = logging.getLogger("boundq.worker")

# So many errors in a row that nobody expected, and the worker gives up, so that a supervisor starts it afresh.
MOST_ERRORS = 10
OK, GAVE_UP = 0, 70
# Seconds that killed child processes may take to be gone before their jobs are given back.
DEATH = 0.3
# A job that may have killed its worker is run alone for so many seconds.
SUSPICION = 5.0


def quieting(quiet: Callable[[], None], resume: Callable[[], None]) -> dict[signal.Signals, Callable[..., None]]:
    """Handlers of the signals for the two; none on Windows, which has no such signals."""
    if not hasattr(signal, "SIGUSR1"):
        return {}
    return {signal.SIGUSR1: lambda *_: quiet(), signal.SIGUSR2: lambda *_: resume()}


class Ended(NamedTuple):
    """A job whose run is over."""

    lease: Lease
    verdict: Verdict


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
        self._lease = seconds(lease, "lease", least=0.1)
        self._grace = seconds(grace, "grace")
        self._burst = burst
        self._most = positive_int(max_jobs, "max_jobs") if max_jobs is not None else None
        self._threads = positive_int(threads, "threads")
        sizes = {THREAD: self._threads, LOOP: positive_int(concurrency, "concurrency")}
        self._slots = Slots(sizes, {queue.name: _kinds(queue) for queue in self._queues}, weights or {})
        self._keeper: Keeper = ThreadKeeper(self._lease)
        self._health = HealthFile(health_file) if health_file is not None else None
        self._tell_health: Callable[[Report], None] | None = self._write_health if self._health else None
        self._stopping = threading.Event()
        self._children = Children(isolate, self._stopping, self.give_up) if isolate else None
        self._quiet = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[Claimer, Lease, CurrentJob]] = {}
        self._idle = threading.Condition(self._lock)
        self._gave_up = False
        self._pool = ThreadPoolExecutor(self._threads, "boundq-job")
        self._tasks: set[asyncio.Task[None]] = set()
        self._settlers = ThreadPoolExecutor(2, "boundq-settle")  # for the loop: the others may all be taken by handlers
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
            self._keeper.start(self._lost)
            Ticker(self._queues, self._stopping).start()
            claimers = [Claimer(self, queue) for queue in self._queues]
            threads = [
                threading.Thread(target=one.run, name=f"boundq-{one.queue.name}", daemon=True) for one in claimers
            ]
            for thread in threads:
                thread.start()
            pulse = self._pulse(claimers)
            for claimer, thread in zip(claimers, threads, strict=True):
                # A join without end would keep signals waiting. One that waits on the server claims no more.
                while thread.is_alive() and not (self._stopping.is_set() and (claimer.waits or self._grace_is_over())):
                    thread.join(0.05)
            self._wait_for_running()
            self._give_back()
            for claimer in claimers:
                claimer.settle_rest()
            if pulse:
                pulse.stop()
            self._keeper.stop()
            self._pool.shutdown(wait=not self.running, cancel_futures=True)
            self._settlers.shutdown(wait=not self.running)
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

    def start(self, claimer: Claimer, leases: Sequence[Lease]) -> None:
        """Run what was claimed. Its slots are reserved; they are given back as the jobs end."""
        queue, kinds = claimer.queue, self._slots.kinds(claimer.queue.name)
        held: list[tuple[BaseLease, float | None]] = []
        begun = []
        for lease in leases:
            run = prepare_run(queue.tasks, lease)
            kind = _kind(run.task.function) if isinstance(run, Run) else THREAD if THREAD in kinds else LOOP
            job = CurrentJob(queue.name, lease, lambda one, ends: queue.extend([one], ends))
            held.append((lease, self._patience(run, kind)))
            begun.append((lease, job, run, kind))
        for _, _, _, kind in begun:
            self._slots.give(kinds - {kind})
        with self._lock:
            self.claimed += len(begun)
            for lease, job, _, _ in begun:
                self._running[queue.name, lease.id] = (claimer, lease, job)
        self._keeper.hold(queue, held)
        coroutines = []
        for lease, job, run, kind in begun:
            if kind == LOOP and self._loop is not None and isinstance(run, Run):
                coroutines.append(self._run_async(claimer, lease, job, run))
            else:
                # In a context of its own: what a handler sets in context variables is not there for the next one.
                self._pool.submit(contextvars.copy_context().run, self._run_sync, claimer, lease, job, run, kind)
        if coroutines and self._loop is not None:
            self._loop.call_soon_threadsafe(self._start_tasks, self._loop, coroutines)  # one wake-up for all of them

    def _start_tasks(self, loop: asyncio.AbstractEventLoop, coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
        for coroutine in coroutines:
            task = loop.create_task(coroutine)
            self._tasks.add(task)  # the loop itself holds them weakly
            task.add_done_callback(self._tasks.discard)

    def _patience(self, run: Run | Verdict, kind: str) -> float | None:
        """Seconds for which the lease is extended: the timeout. The event loop keeps its own, so that goes first."""
        if isinstance(run, Verdict) or run.task.timeout is None:
            return None
        if kind == THREAD and self._children is not None:
            return None  # it begins when a child has the job (`_perform`)
        return run.task.timeout + (self._lease if kind == LOOP else 0)

    def _run_sync(self, claimer: Claimer, lease: Lease, job: CurrentJob, run: Run | Verdict, kind: str) -> None:
        verdict = run if isinstance(run, Verdict) else DONE
        try:
            if isinstance(run, Run):
                verdict = self._perform(claimer.queue, lease, job, run)
        except BaseException as error:  # ours, not the handler's: the job is not done
            log.exception(
                *("queue %s: unexpected error in the run of job %s", claimer.queue.name, lease.id),
                extra=_ids(claimer.queue.name, lease),
            )
            assert isinstance(run, Run)
            verdict = judge(run.task, lease.attempt, error)
        finally:
            self._end(claimer, lease, job, verdict, kind)

    def _perform(self, queue: Queue, lease: Lease, job: CurrentJob, run: Run) -> Verdict:
        """Run a plain function: in this thread, or in a child process while this thread waits."""
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
            self._release(queue, [lease])
            self.give_up()
            return DONE  # which does not count: the job is not ours any more

    async def _run_async(self, claimer: Claimer, lease: Lease, job: CurrentJob, run: Run) -> None:
        verdict = DONE
        CURRENT.set(job)
        loop, handle = asyncio.get_running_loop(), asyncio.current_task()
        assert handle is not None
        job.ender = lambda: loop.call_soon_threadsafe(handle.cancel)
        try:
            with claimer.queue._around_run(job):
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
            if verdict is DONE and not job.cancelled and claimer.note(Ended(lease, verdict)):
                self._count(claimer, lease, job, verdict, LOOP)
            else:  # settling talks to the server: not on the loop
                self._settlers.submit(self._end, claimer, lease, job, verdict, LOOP)

    def _end(self, claimer: Claimer, lease: Lease, job: CurrentJob, verdict: Verdict, kind: str) -> None:
        """A run is over: settle it, now or with the next claim, and give its slot back."""
        try:
            self._keep_until_settled(lease)
            if not job.cancelled:
                if verdict.kind != "ack":
                    _tell(claimer.queue.name, lease, verdict)
                claimer.ended(Ended(lease, verdict))
        except Exception:
            log.exception(
                *("queue %s: job %s could not be settled; it may run again", claimer.queue.name, lease.id),
                extra=_ids(claimer.queue.name, lease),
            )
        finally:
            self._count(claimer, lease, job, verdict, kind)

    def _keep_until_settled(self, lease: Lease) -> None:
        """It was extended a third of its length ago at most; settling is tried until it ends."""
        lease.ends = max(lease.ends, time.monotonic() + self._lease * 2 / 3)

    def _count(self, claimer: Claimer, lease: Lease, job: CurrentJob, verdict: Verdict, kind: str) -> None:
        """A run is over, and somebody settles it: its slot is free."""
        with self._lock:
            self._running.pop((claimer.queue.name, lease.id), None)
            if verdict.kind == "ack" and not job.cancelled:
                self.done += 1
            else:
                self.failed += 1
            self._idle.notify_all()
        self._slots.give({kind})

    def _lost(self, queue: str, job_id: str, timed_out: bool) -> None:
        """A lease is gone, or its job's time is over: the handler learns it, the log says it once."""
        with self._lock:
            found = self._running.get((queue, job_id))
        if not found or found[2].cancelled:
            return
        claimer, lease, job = found
        job.cancel()
        if timed_out:
            # A thread cannot be ended: what it still does will not count. A child process has just been killed.
            task = claimer.queue.tasks[lease.task]
            killed = self._children is not None and _kind(task.function) == THREAD
            said = "killed: ran longer than its timeout of" if killed else "the handler took longer than"
            verdict = judge(task, lease.attempt, TimeoutError(f"{said} {task.timeout:g} s"))
            _tell(queue, lease, verdict)
            claimer.ended(Ended(lease, verdict))
        else:
            log.warning(
                *("queue %s: the lease of job %s is lost (LeaseLost); its result will not count", queue, job_id),
                extra=_ids(queue, lease),
            )

    def _wait_for_running(self) -> None:
        while self.running and not self._grace_is_over():
            with self._idle:
                self._idle.wait(0.1)

    def _grace_is_over(self) -> bool:
        return self._stopping.is_set() and time.monotonic() - self._stopped_at >= self._grace

    def _give_back(self) -> None:
        """What the grace did not suffice for goes back to the head of its priority, its delivery not spent."""
        with self._lock:
            left = list(self._running.values())
        by_queue: dict[Queue, list[BaseLease]] = {}
        for claimer, lease, job in left:
            if not job.cancelled:
                job.cancel()
                self._keeper.drop(claimer.queue.name, [lease.id])
                by_queue.setdefault(claimer.queue, []).append(lease)
        if self._children is not None:
            # Another worker may have them at once: not while our children, which were killed just now, still run them.
            with self._idle:
                self._idle.wait_for(lambda: not any(one in left for one in self._running.values()), DEATH)
        for queue, leases in by_queue.items():
            log.warning("queue %s: %d jobs not done within the grace are given back", queue.name, len(leases))
            self._release(queue, leases)

    def _release(self, queue: Queue, leases: Sequence[BaseLease]) -> None:
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
        thread = threading.Thread(target=loop.run_forever, name="boundq-loop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            self._loop = None

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


class Claimer:
    """
    One queue's rounds: settle what is done, claim the next, start it.

    Args:
        worker: Whose.
        queue: Which.
    """

    def __init__(self, worker: Worker, queue: Queue) -> None:
        self.queue = queue
        self._worker = worker
        self._lock = threading.Lock()
        self._ended: list[Ended] = []
        self._waiting = False  # on the server: what is done meanwhile is settled by who did it
        self._pause = 0.0  # for how long to wait on the server, when there was nothing
        self._woken = False
        self._errors = 0
        self._down = False
        self._round_at = time.monotonic()
        self._asked = False
        self._over = False

    def run(self) -> None:
        """Rounds until the worker stops; in a thread of its own."""
        gate = self.queue._hub.gate
        gate.on_shut.append(self._shut)
        try:
            self._rounds()
        finally:
            gate.on_shut.remove(self._shut)
            self._over = True
            with self._lock:
                self._waiting = True  # from now on who is done settles by himself
            self._settle_ended()

    @property
    def waits(self) -> bool:
        """Whether it is waiting on the server, or has ended: it will not claim once the worker is stopping."""
        return self._waiting

    def _rounds(self) -> None:
        worker = self._worker
        while not worker.stopping:
            self._round_at = time.monotonic()
            if worker.is_quiet:
                self._rest()
                continue
            slots = worker._slots.take(self.queue.name, MOST_JOBS, 0.2)
            if not slots:
                self._settle_ended()  # all slots are busy: what is done need not wait for a free one
                continue
            if worker.stopping or worker.is_quiet:
                worker._slots.give(worker._slots.kinds(self.queue.name), slots)
                continue
            leases: list[Lease] = []
            try:
                leases, suspect = self._set_apart(self._round(slots))
                if leases:
                    worker.start(self, leases)
                self._up()
                if suspect:
                    self._watch(suspect)
            except BoundqError as error:
                self._trouble(error)
            except Exception:
                self._unexpected()
                leases = []
            finally:
                worker._slots.give(worker._slots.kinds(self.queue.name), slots - len(leases))
            if leases:
                continue
            if not worker._burst:
                self._wait_for_work()
            elif not self._down and not self._ended and not worker.running:
                return
            else:
                with worker._idle:
                    worker._idle.wait(0.1)

    def _set_apart(self, leases: list[Lease]) -> tuple[list[Lease], Lease | None]:
        """
        Among jobs whose worker died with them, one that has no run left after this one: it runs without company.

        Whichever of them it was that took the worker down, the others get their last run without it.
        """
        tasks = self.queue.tasks
        for lease in leases:
            task = tasks.get(lease.task)
            if task and lease.expired_leases and 1 < lease.attempt == task.retries + 1:
                others = [one for one in leases if one is not lease]
                if others:
                    self.queue.settle(releases=others)
                return [lease], lease
        return leases, None

    def _watch(self, suspect: Lease) -> None:
        """Claim nothing while it runs, for some seconds: what kills its process does so soon."""
        worker, key = self._worker, (self.queue.name, suspect.id)
        with self._lock:
            self._waiting = True
        self._settle_ended()
        ends = time.monotonic() + SUSPICION
        while not worker.stopping and key in worker._running and time.monotonic() < ends:
            with worker._idle:
                worker._idle.wait(0.1)
        with self._lock:
            self._waiting = worker.stopping

    def _rest(self) -> None:
        """Claim nothing while the worker is quiet; who is done settles by himself."""
        worker = self._worker
        with self._lock:
            self._waiting = True
        self._settle_ended()
        while worker.is_quiet and not worker.stopping:
            self._round_at = time.monotonic()
            worker._stopping.wait(0.1)
        with self._lock:
            self._waiting = worker.stopping

    def last_round(self) -> tuple[float, bool | None] | None:
        """When the loop last ended a round, and whether the server is away, None before the first; None: it is over."""
        return None if self._over else (self._round_at, self._down if self._asked else None)

    def ended(self, ended: Ended) -> None:
        """A job's run is over."""
        if not self.note(ended):
            self._settle([ended])

    def note(self, ended: Ended) -> bool:
        """A job's run is over: whether the next round settles it."""
        with self._lock:
            if not self._waiting:
                self._ended.append(ended)
            return not self._waiting

    def settle_rest(self) -> None:
        """At the end: what is done and not settled yet."""
        self._settle_ended()

    def _round(self, slots: int) -> list[Lease]:
        ended = self._take_ended()
        if ended:
            lost, leases = self._settle_and_claim(ended, slots)
            self._tell_lost(lost)
            return leases
        leases, self._pause = self.queue._claim_or_register(slots, self._worker._lease, woken=self._woken)
        self._woken = False
        return leases

    def _wait_for_work(self) -> None:
        """
        Wait on the server, holding no slot; meanwhile who is done settles by himself.

        The claim is not sent along with the wait, as design.md has it. That saves a round trip, 12 to 20 % of the time
        from enqueue to handler (measured in turns), but the server would run it when the wait ends, whatever has become
        of us: a worker that was frozen, is quiet or stops would still be given jobs.
        """
        with self._lock:
            if self._ended or not self._pause or self._worker.stopping:
                return
            self._waiting = True
        try:
            self.queue._wait(self._pause)
            self._woken = True
        except BoundqError as error:
            self._trouble(error)
        finally:
            self._pause = 0.0
            with self._lock:
                self._waiting = self._worker.stopping

    def _settle_and_claim(self, ended: list[Ended], slots: int) -> tuple[list[BaseLease], list[Lease]]:
        self._let_go(ended)
        try:
            return self.queue._turn(*_sorted(ended), slots, self._worker._lease)
        except BoundqError:
            with self._lock:
                self._ended = ended + self._ended  # not lost: with the next round
            raise

    def _settle_ended(self) -> None:
        if ended := self._take_ended():
            self._settle(ended)

    def _settle(self, ended: list[Ended]) -> None:
        """Settle now; while the server is away, until the leases end."""
        self._let_go(ended)
        while True:
            try:
                acks, retries, buries = _sorted(ended)
                self._tell_lost(self.queue.settle(acks=acks, retries=retries, buries=buries))
                return
            except BoundqError as error:
                self._trouble(error)
                alive = [one for one in ended if one.lease.remaining > 0]
                for one in ended:
                    if one not in alive:
                        log.error(
                            *(
                                "queue %s: job %s is done but not settled; it may run again",
                                self.queue.name,
                                one.lease.id,
                            ),
                            extra=_ids(self.queue.name, one.lease),
                        )
                ended = alive
                if not ended:
                    return

    def _let_go(self, ended: Sequence[Ended]) -> None:
        """Their leases need not be kept any more. Before they are settled: then the same job may be claimed anew."""
        self._worker._keeper.drop(self.queue.name, [one.lease.id for one in ended])

    def _take_ended(self) -> list[Ended]:
        with self._lock:
            ended, self._ended = self._ended[:MOST_JOBS], self._ended[MOST_JOBS:]
        return ended

    def _tell_lost(self, lost: Sequence[BaseLease]) -> None:
        for lease in lost:
            log.warning(
                *("queue %s: the lease of job %s was lost while it ran (LeaseLost)", self.queue.name, lease.id),
                extra=_ids(self.queue.name, lease),
            )

    def _up(self) -> None:
        self._errors = 0
        self._asked = True
        if self._down:
            self._down = False
            log.info("queue %s: the server is back", self.queue.name, extra={"queue": self.queue.name})

    def _shut(self, reason: str) -> None:
        """The server has failed twice in a row: said now, and not when a call gives up at its deadline."""
        self._away(f"queue {self.queue.name}: the server is unavailable ({reason})")

    def _trouble(self, error: BoundqError) -> None:
        """The library's own back-off bounds the commands."""
        self._away(str(error))
        self._round_at = time.monotonic()
        self._worker._stopping.wait(0.2)

    def _away(self, what: str) -> None:
        """One line when it begins."""
        with self._lock:
            known, self._down = self._down, True
        self._asked = True
        if not known:
            log.warning("%s; trying on", what, extra={"queue": self.queue.name})

    def _unexpected(self) -> None:
        self._errors += 1
        log.exception("queue %s: unexpected error, %d of %d in a row", self.queue.name, self._errors, MOST_ERRORS)
        if self._errors >= MOST_ERRORS:
            self._worker.give_up()
        self._worker._stopping.wait(0.2)


def _sorted(
    ended: Sequence[Ended],
) -> tuple[list[BaseLease], list[tuple[BaseLease, float | timedelta]], list[tuple[BaseLease, str, str]]]:
    """Acks, retries and buries."""
    acks: list[BaseLease] = []
    retries: list[tuple[BaseLease, float | timedelta]] = []
    buries: list[tuple[BaseLease, str, str]] = []
    for lease, verdict in ended:
        if verdict.kind == "ack":
            acks.append(lease)
        elif verdict.kind == "retry":
            retries.append((lease, verdict.delay))
        else:
            buries.append((lease, verdict.reason, verdict.error))
    return acks, retries, buries


def _tell(queue: str, lease: Lease, verdict: Verdict) -> None:
    """One bounded line for each failure, with ids and no payload."""
    what = f"retried in {verdict.delay:.1f} s" if verdict.kind == "retry" else f"buried ({verdict.reason})"
    first = verdict.error.strip().splitlines()[-1][:300] if verdict.error.strip() else ""
    log.warning(
        *("queue %s: job %s (%s), attempt %d, is %s: %s", queue, lease.id, lease.task, lease.attempt, what, first),
        extra=_ids(queue, lease),
    )


def _ids(queue: str, lease: BaseLease) -> dict[str, object]:
    """For structured logs: which job a line is about."""
    return {"queue": queue, "job_id": lease.id, "task": lease.task, "attempt": lease.attempt}


def _kind(function: Any) -> str:
    return LOOP if inspect.iscoroutinefunction(function) else THREAD


def _kinds(queue: Queue) -> set[str]:
    return {_kind(task.function) for task in queue.tasks.values()} or {THREAD}
