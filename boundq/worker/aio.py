"""AsyncWorker: a worker whose ``async def`` tasks run on the event loop that it is started from."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from boundq._core.queue import BaseQueue
from boundq.errors import ConfigError
from boundq.worker.worker import Worker, quieting

__all__ = ["AsyncWorker"]


class AsyncWorker:
    """
    As `Worker`, for a program that has an event loop: its ``async def`` tasks share that loop, and so what lives on it
    (connection pools, caches). Plain functions run in threads. Claiming and settling are done beside the loop.

    Args:
        queues: `AsyncQueue` or `Queue`, with registered tasks.
        options: As of `Worker`.
    """

    def __init__(self, queues: Sequence[BaseQueue], **options: Any) -> None:
        if isinstance(queues, BaseQueue):
            raise ConfigError("queues", queues, "give a list of at least one queue")
        self._worker = Worker([queue.sync for queue in queues], **options)  # type: ignore[attr-defined]  # both have it

    async def run(self) -> int:
        """
        Work until `stop`, SIGTERM or SIGINT (in the main thread), until cancelled, or until ``burst`` or ``max_jobs``
        end it. Running jobs have the grace to finish, in every case.

        Returns:
            The exit code, as of `Worker.run`.
        """
        loop = asyncio.get_running_loop()
        self._worker.use_loop(loop)
        ended: asyncio.Future[int] = loop.create_future()

        def work() -> None:
            code = self._worker.run()
            loop.call_soon_threadsafe(ended.set_result, code)

        with self._signals(loop):
            threading.Thread(target=work, name="boundq-worker", daemon=True).start()
            try:
                return await asyncio.shield(ended)
            except asyncio.CancelledError:
                self.stop()
                await asyncio.shield(ended)
                raise

    def quiet(self) -> None:
        """Claim no more, and go on running; SIGUSR1 does this too. `resume` undoes it."""
        self._worker.quiet()

    def resume(self) -> None:
        """Claim again; SIGUSR2 does this too."""
        self._worker.resume()

    def stop(self) -> None:
        """Claim no more; `run` returns when the running jobs are done or the grace is over."""
        self._worker.stop()

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Any:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[signal.Signals, Callable[..., None]] = {
            **dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._worker._on_signal),
            **{
                number: act
                for number, act in quieting(self.quiet, self.resume).items()
                if signal.getsignal(number) is signal.SIG_DFL
            },
        }
        try:
            for number, handler in handlers.items():
                loop.add_signal_handler(number, handler)
        except NotImplementedError:  # Windows
            yield
            return
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
