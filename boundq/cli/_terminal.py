"""
A terminal that one program has to itself: keys come one by one, the screen is another one, and both are as they were
when it is left, however that comes about.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

# What a terminal sends for a key; what begins with ESC is waited for so long, in seconds.
_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b" ": "space",
}
_ESCAPE_SECONDS = 0.05


class Ended(BaseException):
    """A signal that ends the program: its number. No `Exception`: nothing on the way may take it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Terminal:
    """
    Standard input and output, as long as it is entered.

    Args:
        console: A rich console on standard output.
    """

    def __init__(self, console: Any) -> None:
        self.console = console
        self._fd = sys.stdin.fileno()
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._suspend = False
        self._ended = False
        # Other threads, and signals, end a wait by writing to it.
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)

    def __enter__(self) -> Self:
        for number, handler in (
            (signal.SIGTERM, self._end),
            (signal.SIGHUP, self._end),
            (signal.SIGINT, self._end),
            (signal.SIGWINCH, self._ignore),
            (signal.SIGTSTP, self._ask_to_suspend),
        ):
            self._handlers[number] = signal.signal(number, handler)
        # The system writes the number of each signal to it, before its handler is called.
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ended = True
            for number in self._handlers:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
        finally:
            self._give_back()
        if not isinstance(error, Ended):  # else they stay ignored, on the little way that is left
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def wake(self) -> None:
        """End a wait, from any thread."""
        with suppress(BlockingIOError):  # there is more than enough in it
            os.write(self._waker, b"\0")

    def keys(self, timeout: float) -> list[str]:
        """The keys that were pressed; none when woken, when the window has another size, or when the time is over."""
        ready, _, _ = select.select([self._fd, self._woken], [], [], max(timeout, 0.0))
        if self._woken in ready:
            with suppress(BlockingIOError):
                while os.read(self._woken, 4096):
                    pass
        if self._suspend:
            self._suspend = False
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        return self._read() if self._fd in ready else []

    def show(self, picture: Any) -> None:
        """Draw the whole screen."""
        from rich.screen import Screen

        self.console.control(_home())
        self.console.print(Screen(picture), end="")

    def _read(self) -> list[str]:
        data = os.read(self._fd, 1024)
        if not data:  # the terminal is gone
            raise Ended(signal.SIGHUP)
        while data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and select.select([self._fd], [], [], _ESCAPE_SECONDS)[0]:
            more = os.read(self._fd, 1024)
            if not more:
                break
            data += more
        return split(data)

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)
        self.console.set_alt_screen(True)
        self.console.show_cursor(False)

    def _give_back(self) -> None:
        with suppress(OSError, ValueError):  # nobody sees it any more
            self.console.show_cursor(True)
            self.console.set_alt_screen(False)
        if self._before:
            with suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
            self._before = []

    def _end(self, number: int, frame: FrameType | None) -> None:
        if not self._ended:  # a second one must not come between us and what is still to be restored
            self._ended = True
            raise Ended(number)

    def _ask_to_suspend(self, number: int, frame: FrameType | None) -> None:
        self._suspend = True

    def _ignore(self, number: int, frame: FrameType | None) -> None:
        """The wake-up is all there is to it."""


def _home() -> Any:
    from rich.control import Control

    return Control.home()


def split(data: bytes) -> list[str]:
    """What keys these bytes are; what is no key that we know is left out."""
    found = []
    while data:
        name = next((key for key in sorted(_KEYS, key=len, reverse=True) if data.startswith(key)), None)
        if name == b"\x1b" and data[1:2] in (b"[", b"O"):  # a key that we do not know, as a whole
            end = next((at for at in range(2, len(data)) if 0x40 <= data[at] <= 0x7E), len(data) - 1)
            data = data[end + 1 :]
            continue
        if name is not None:
            found.append(_KEYS[name])
            data = data[len(name) :]
        else:
            if 0x20 < data[0] < 0x7F:
                found.append(chr(data[0]))
            data = data[1:]
    return found
