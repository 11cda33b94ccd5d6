"""Worker: runs the tasks of its queues in threads."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from boundq._runner import DONE, Verdict, judge, prepare_run
from boundq._sizes import positive_int, seconds
from boundq.errors import BoundqError, ConfigError
from boundq.job_control import CURRENT, CurrentJob
from boundq.lease import BaseLease
from boundq.sync.lease import Lease
from boundq.sync.queue import Queue

__all__ = ["Worker"]

log = logging.getLogger("boundq.worker")

# So many errors in a row that nobody expected, and the worker gives up, so that a supervisor starts it afresh.
MOST_ERRORS = 10
OK, GAVE_UP = 0, 70


class Worker:
    """
    Runs the tasks of some queues in threads, until it is told to stop.

    A job that fails is retried with back-off, then buried; one that cannot be run is buried with the reason; the
    loop goes on. Leases are extended while handlers run.

    Args:
        queues: Queues whose tasks are registered.
        threads: Jobs that run at once, over all queues; also the most that are leased.
        lease: Seconds after which another worker may have the jobs of this one, should it die.
        grace: Seconds that running jobs have to finish after a stop; the rest is released then.
        burst: Stop when the queues have nothing ready.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        *,
        threads: int = 8,
        lease: float | timedelta = 30.0,
        grace: float | timedelta = 30.0,
        burst: bool = False,
    ) -> None:
        if isinstance(queues, Queue):
            raise ConfigError("queues", queues, "give a list of queues")
        if not queues:
            raise ConfigError("queues", queues, "give at least one queue")
        self._queues = list(queues)
        self._slots = threading.Semaphore(positive_int(threads, "threads"))
        self._threads = threads
        self._lease = seconds(lease, "lease", least=0.1)
        self._grace = seconds(grace, "grace")
        self._burst = burst
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[Queue, Lease, CurrentJob]] = {}
        self._failed = False
        self.done = 0
        self.failed = 0

    def run(self) -> int:
        """
        Work until `stop`, SIGTERM or SIGINT (in the main thread), or, with ``burst``, until nothing is ready.

        Returns:
            The exit code: 0 stopped, 70 given up after ten unexpected errors in a row.
        """
        with self._signals(), ThreadPoolExecutor(self._threads, "boundq-job") as pool:
            keeper = threading.Thread(target=self._keep_leases, name="boundq-leases", daemon=True)
            keeper.start()
            claimers = [
                threading.Thread(target=self._claim_loop, args=(queue, pool), name=f"boundq-{queue.name}")
                for queue in self._queues
            ]
            for thread in claimers:
                thread.start()
            for thread in claimers:
                thread.join()
            self._finish()
            self._ended.set()
            keeper.join()
            pool.shutdown(wait=not self._left(), cancel_futures=True)
        return GAVE_UP if self._failed else OK

    def stop(self) -> None:
        """Claim no more; `run` returns when the running jobs are done or the grace is over."""
        self._stopping.set()

    def _claim_loop(self, queue: Queue, pool: ThreadPoolExecutor) -> None:
        errors = 0
        down = False
        while not self._stopping.is_set():
            if not self._slots.acquire(timeout=0.2):
                continue
            free = 1
            while free < self._threads and self._slots.acquire(blocking=False):
                free += 1
            leases: list[Lease] = []
            try:
                leases = queue.claim(free, wait=0 if self._burst else 1.0, lease=self._lease)
                if down:
                    log.info("queue %s: the server is back", queue.name)
                errors, down = 0, False
            except BoundqError as error:
                if not down:
                    log.warning("%s; trying on", error)
                down = True
                self._stopping.wait(0.2)
            except Exception:
                errors += 1
                log.exception("queue %s: unexpected error %d of %d in a row", queue.name, errors, MOST_ERRORS)
                if errors >= MOST_ERRORS:
                    self._failed = True
                    self.stop()
                self._stopping.wait(0.2)
            for _ in range(free - len(leases)):
                self._slots.release()
            for lease in leases:
                pool.submit(self._run_one, queue, lease, self._begun(queue, lease))
            if self._burst and not leases and not down:
                if not self._left():
                    return
                self._stopping.wait(0.01)

    def _begun(self, queue: Queue, lease: Lease) -> CurrentJob:
        job = CurrentJob(queue.name, lease, lambda one, ends: queue.extend([one], ends))
        with self._lock:
            self._running[queue.name, lease.id] = (queue, lease, job)
        return job

    def _run_one(self, queue: Queue, lease: Lease, job: CurrentJob) -> None:
        verdict = DONE
        try:
            verdict = self._verdict(queue, lease, job)
            if not job.cancelled:
                self._settle(queue, lease, verdict)
        except Exception:
            log.exception(
                "queue %s: job %s could not be settled; it runs again when its lease ends", queue.name, lease.id
            )
        finally:
            with self._lock:
                self._running.pop((queue.name, lease.id), None)
                if verdict.kind == "ack":
                    self.done += 1
                else:
                    self.failed += 1
            self._slots.release()

    def _verdict(self, queue: Queue, lease: Lease, job: CurrentJob) -> Verdict:
        run = prepare_run(queue.tasks, lease)
        if isinstance(run, Verdict):
            log.error("queue %s: job %s is buried (%s): %s", queue.name, lease.id, run.reason, run.error)
            return run
        token = CURRENT.set(job)
        try:
            run.task.function(*run.args, **run.kwargs)
        except Exception as error:
            verdict = judge(run.task, lease.attempt, error)
            log.warning(
                "queue %s: job %s (%s), attempt %d: %s: %s",
                *(queue.name, lease.id, lease.task, lease.attempt),
                *(
                    f"retried in {verdict.delay:.1f} s" if verdict.kind == "retry" else f"buried ({verdict.reason})",
                    verdict.error,
                ),
            )
            return verdict
        finally:
            CURRENT.reset(token)
        return DONE

    def _settle(self, queue: Queue, lease: Lease, verdict: Verdict) -> None:
        if verdict.kind == "ack":
            lost = queue.settle(acks=[lease])
        elif verdict.kind == "retry":
            lost = queue.settle(retries=[(lease, verdict.delay)])
        else:
            lost = queue.settle(buries=[(lease, verdict.reason, verdict.error)])
        if lost:
            log.warning("queue %s: the lease of job %s was lost while it ran", queue.name, lease.id)

    def _keep_leases(self) -> None:
        """Extend what runs, three times in a lease; tell the handlers of what is lost."""
        while not self._ended.wait(self._lease / 3):
            by_queue: dict[Queue, list[BaseLease]] = {}
            with self._lock:
                for queue, lease, job in self._running.values():
                    if not job.cancelled:
                        by_queue.setdefault(queue, []).append(lease)
            for queue, leases in by_queue.items():
                try:
                    lost = queue.extend(leases, self._lease)
                except BoundqError as error:
                    log.warning("leases could not be extended: %s", error)
                    continue
                for one in lost:
                    self._cancel(queue, one)

    def _cancel(self, queue: Queue, lease: BaseLease) -> None:
        with self._lock:
            found: Any = self._running.get((queue.name, lease.id))
        if found:
            found[2].cancelled = True
            log.warning("queue %s: the lease of job %s is lost; its result will not count", queue.name, lease.id)

    def _finish(self) -> None:
        """Wait for what runs, up to the grace; then give the rest back."""
        began = time.monotonic()
        while self._left() and time.monotonic() - began < self._grace:
            self._ended.wait(0.02)
        with self._lock:
            left = list(self._running.values())
        for queue, lease, job in left:
            job.cancelled = True
            with contextlib.suppress(BoundqError):
                queue.settle(releases=[lease])
            log.warning("queue %s: job %s was not done within the grace and is given back", queue.name, lease.id)

    def _left(self) -> int:
        with self._lock:
            return len(self._running)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: Any) -> None:
        if self._stopping.is_set():
            self._grace = 0.0  # a second signal: give back now
        self.stop()
