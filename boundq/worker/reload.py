"""
``boundq worker --reload``: a process that starts the whole worker anew when one of its source files changes.

It imports none of the user's code, so no mistake in it ends it: a worker that cannot start says why and is tried again
after the next change. A running worker is stopped as by SIGTERM, so its jobs have the grace to finish.

Which files count, the worker tells: the modules that it has imported from below the current folder. Where it could not
import them, any Python file there does.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from boundq.errors import ConfigError

log = logging.getLogger("boundq.worker")

# How often to look whether the worker has ended, and what it needs to stop beyond its grace, in seconds.
LOOK_SECONDS, SPARE_SECONDS = 0.2, 3.0


class Reloader:
    """
    Args:
        command: How to start the worker; the end of a pipe is appended as ``--files FD``, see `tell_files`.
        grace: Seconds that a worker has to stop.

    Raises:
        ConfigError: The library that watches files is missing, or this is Windows.
    """

    def __init__(self, command: Sequence[str], *, grace: float) -> None:
        if os.name != "posix":
            raise ConfigError("reload", True, "it needs a POSIX system: there is no way to ask a process to stop here")
        try:
            import watchfiles
        except ImportError as error:
            raise ConfigError("reload", True, 'it needs the extra: pip install "boundq[reload]"') from error

        counts = self._counts

        class Sources(watchfiles.PythonFilter):
            """Python files, not those of an environment; of them what the worker has imported."""

            def __call__(self, change: watchfiles.Change, path: str) -> bool:
                return super().__call__(change, path) and counts(path)

        self._watch, self._sources = watchfiles.watch, Sources()
        self._command = command
        self._grace = grace
        self._folder = os.path.realpath(os.getcwd())
        self._files: frozenset[str] = frozenset()
        self._process: subprocess.Popen[bytes] | None = None
        self._signals = 0
        self._stopping = threading.Event()

    def run(self) -> int:
        """
        Until SIGTERM or SIGINT.

        Returns:
            The worker's exit code.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            looks = self._watch(
                self._folder,
                watch_filter=self._sources,
                stop_event=self._stopping,
                rust_timeout=round(LOOK_SECONDS * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
            )
            next(looks, None)  # it watches now: no change is missed while the worker starts
            self._start()
            for changes in looks:
                if changes:
                    names = sorted({os.path.relpath(path, self._folder) for _, path in changes})
                    log.info("changed: %s; the worker starts anew", ", ".join(names[:5]))
                    self._stop()
                    self._start()
                elif self._process is not None and (code := self._process.poll()) is not None:
                    self._process = None
                    say = log.info if code == 0 else log.error
                    say("the worker ended with %d; it starts again after the next change", code)
            return self._stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        if self._stopping.is_set():
            return
        self._files = frozenset()
        reading, writing = os.pipe()
        # Compiled files go by size and second: two quick edits of one length would run the first of them.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            # A session of its own: Ctrl-C reaches us, who tell it once.
            self._process = subprocess.Popen(
                [*self._command, "--files", str(writing)], pass_fds=[writing], env=environment, start_new_session=True
            )
        finally:
            os.close(writing)
        threading.Thread(target=self._learn, args=[reading], name="boundq-files", daemon=True).start()

    def _learn(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="surrogateescape") as lines:
            self._files = frozenset(lines.read().split("\0")) - {""}

    def _counts(self, path: str) -> bool:
        return not self._files or os.path.realpath(path) in self._files

    def _stop(self) -> int:
        """Its exit code, when it is gone."""
        process, self._process = self._process, None
        if process is None:
            return 0
        ends = time.monotonic() + self._grace + SPARE_SECONDS
        passed = self._signals
        process.send_signal(signal.SIGTERM)
        while True:
            try:
                return process.wait(0.05)
            except subprocess.TimeoutExpired:
                if self._signals > passed:
                    passed += 1
                    process.send_signal(signal.SIGTERM)
                if time.monotonic() > ends:
                    log.error("the worker does not stop; it is killed")
                    process.kill()

    def _on_signal(self, *_: Any) -> None:
        self._signals += 1
        self._stopping.set()


def tell_files(descriptor: int) -> None:
    """The worker's side: which modules it has imported from below the current folder."""
    folder = os.path.realpath(os.getcwd()) + os.sep
    paths = {os.path.realpath(path) for module in list(sys.modules.values()) if (path := _source(module))}
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\0".join(sorted(path for path in paths if path.startswith(folder))))


def _source(module: Any) -> str | None:
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and path.endswith(".py") else None
