"""
The guardian of one embedded server: its parent, and its end when nobody uses it any more.

    python -I -S guardian.py BINARY FOLDER private|shared ALIAS LOCK  < file with the server's settings

It waits for two things at once, both kept by the kernel and so true whoever gets killed: one thread for the
exclusive lock on the folder, which it gets when the last user is gone, the other for the end of the server.

A script of its own, never imported: a fork of the user would keep the user's memory, threads and open files.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import os
import signal
import sys
import time
import traceback
from contextlib import suppress

# A script may keep the server busy, and it flushes its AOF on the way out. Less than a new user waits for a
# server (PATIENCE in ``__init__.py``), so one who comes during a shutdown still gets the next server.
GRACE = 5.0
# A server that ends sooner than this would only do it again.
TRIAL = 1.0
_PR_SET_PDEATHSIG = 1

_exited = False


def main(binary: str, folder: str, kind: str, alias: str, _lock: str) -> None:
    if os.getpid() == os.getsid(0) and os.fork():
        os._exit(0)  # the user waits for this one; the guardian itself is init's child, not the user's

    # A service manager signals all processes of a service. The users decide when they are done, not it.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, there would be nothing to wait for
    os.umask(0o077)
    os.chdir(folder)
    users = os.open(".", os.O_RDONLY)
    server = _start(binary)
    started = time.monotonic()
    _thread.start_new_thread(_stop_when_unused, (users, server))
    os.waitpid(server, 0)
    global _exited
    _exited = True
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # it ended under its users
        if time.monotonic() - started > TRIAL:
            os.execv(sys.executable, sys.orig_argv)  # from the top, with no thread left over
        return
    if alias:
        with suppress(OSError):
            os.unlink(alias)
    if kind == "private":
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _start(binary: str) -> int:
    os.lseek(0, 0, os.SEEK_SET)
    guardian = os.getpid()
    server = os.fork()
    if server:
        return server
    try:
        if sys.platform == "linux":  # elsewhere the server of a guardian that gets kill -9 stays behind
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != guardian:
                os._exit(1)
        # SIGTERM stays blocked through exec, as said above; SIGINT, which no terminal can send here, is
        # the guardian's. The lock's descriptor stays open too, so the server holds the lock.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        os.execv(binary, [binary, "-"])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(127)


def _stop_when_unused(users: int, server: int) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)
    for number in (signal.SIGINT, signal.SIGKILL):
        if _exited:
            return  # the number may be somebody else's by now
        with suppress(ProcessLookupError):
            os.kill(server, number)
        time.sleep(GRACE)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # a thread may wait for the lock still
