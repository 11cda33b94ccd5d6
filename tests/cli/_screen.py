"""A program on a pseudo-terminal of our own, and its screen as a person would read it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyte

# Generous: the machine may be busy. Nothing waits for this long when all is well.
PATIENCE = 30.0


class Screen:
    """
    ``boundq`` with these words, on a terminal.

    Args:
        words: Of the command line.
        columns, lines: Size of the terminal.
        environment: On top of ours; None takes a variable away.
        program: What to run in its place.
    """

    def __init__(
        self,
        *words: str,
        columns: int = 80,
        lines: int = 24,
        environment: dict[str, str | None] | None = None,
        program: tuple[str, ...] = (sys.executable, "-m", "boundq"),
        cwd: Path | None = None,
    ) -> None:
        self.raw = b""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        self.theirs = theirs  # kept open: a reader of its modes when the program has ended
        _size(theirs, columns, lines)
        self.modes = termios.tcgetattr(theirs)
        env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        for name, value in {"TERM": "xterm-256color", "PYTHONUTF8": "1", **(environment or {})}.items():
            env.pop(name, None)
            if value is not None:
                env[name] = value
        self.process = subprocess.Popen(
            [*program, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: _control(theirs),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)

    @property
    def text(self) -> str:
        """The screen as it is now."""
        self._drain(0.0)
        return "\n".join(self._screen.display)

    @property
    def lines(self) -> list[str]:
        """Likewise, its lines without the blanks at their ends."""
        return [line.rstrip() for line in self.text.split("\n")]

    def line(self, with_text: str) -> str:
        """The first line that has this in it, "" where none has."""
        return next((line for line in self.lines if with_text in line), "")

    def wait(self, condition: Callable[[Self], Any], what: str) -> None:
        """Read on until the screen shows something."""
        end = time.monotonic() + PATIENCE
        while not condition(self):
            if time.monotonic() > end:
                raise TimeoutError(f"waited for {what}; the screen:\n{self.text}")
            self._drain(0.05)

    def shows(self, *texts: str) -> None:
        """Read on until the screen has all these texts."""
        self.wait(lambda screen: all(text in screen.text for text in texts), f"{texts}")

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """The window gets another size; the system tells the program."""
        self._drain(0.0)
        self._screen.resize(lines, columns)
        _size(self.theirs, columns, lines)

    def ends(self) -> int:
        """The exit code, when it has ended and all it wrote is read."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"it does not end; the screen:\n{self.text}")
            self._drain(0.05)
        self._drain(0.0)
        return self.process.returncode

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, the first screen, the cursor."""
        cooked = termios.tcgetattr(self.theirs) == self.modes
        alternate = self.raw.rfind(b"\x1b[?1049l") >= self.raw.rfind(b"\x1b[?1049h")
        cursor = self.raw.rfind(b"\x1b[?25h") >= self.raw.rfind(b"\x1b[?25l")
        return cooked and alternate and cursor

    def _drain(self, seconds: float) -> None:
        while select.select([self._ours], [], [], seconds)[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # nobody has the other end any more
                return
            self.raw += data
            self._stream.feed(data)
            seconds = 0.0


def _size(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def _control(fd: int) -> None:
    """In the child: this terminal is the one that Ctrl-C and a new size come from."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
