"""
What a call says of each state that a server can be in: which exception, reason and outcome, whether to try again, and
no secret in any text. What passes by itself is waited for, within the deadline, and not asked about too often.
"""

from __future__ import annotations

import pickle
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis

from boundq import BoundqError, DataError, Limits, Queue, QueueFull, Receipt, ServerUnsupported, Unavailable
from boundq._gate import Gate
from boundq._keys import PARTS
from tests._proxy import Proxy
from tests._servers import REDIS_6_2, Server, new_folder, wait_until
from tests.conftest import FreshServer
from tests.contract._env import take
from tests.faults._fake import Fake
from tests.faults._shell import SHELLS, SMALL, Shell, audit, dump, is_script

SECRET = "s3cr3t-w0rd"
DEADLINE = 0.3


class State:
    """
    A server in trouble.

    Args:
        url: For clients.
        leave: Brings it back in order.
        server: The server behind it.
    """

    def __init__(self, url: str, leave: Callable[[], object], server: Server | None = None) -> None:
        self.url = url
        self.leave = leave
        self.server = server


# ---------------------------------------------------------------- states


@contextmanager
def refused(fresh: FreshServer) -> Iterator[State]:
    with Proxy(fresh().socket_path) as line:
        line.refuse()
        yield State(line.url, line.heal)


@contextmanager
def replica(fresh: FreshServer) -> Iterator[State]:
    """A replica, whose primary is out of reach."""
    server = fresh()
    server.cli("REPLICAOF", "127.0.0.1", 1)
    yield State(server.url, lambda: server.cli("REPLICAOF", "NO", "ONE"), server)


@contextmanager
def stale_replica(fresh: FreshServer) -> Iterator[State]:
    """A replica that serves nothing while its primary is out of reach."""
    server = fresh(replica_serve_stale_data="no")
    server.cli("REPLICAOF", "127.0.0.1", 1)
    yield State(server.url, lambda: server.cli("REPLICAOF", "NO", "ONE"), server)


@contextmanager
def loading(fresh: FreshServer) -> Iterator[State]:
    server = fresh()
    with Fake(lambda _: b"-LOADING Redis is loading the dataset in memory\r\n", server) as fake:
        yield State(fake.url, lambda: setattr(fake, "answer", lambda _: None), server)


@contextmanager
def busy(fresh: FreshServer) -> Iterator[State]:
    """Somebody's script does not end."""
    server = fresh(busy_reply_threshold=1)

    def loop() -> None:
        with suppress(redis.ResponseError):  # killed, in the end
            server.cli("EVAL", "while true do end", 0)

    def says_busy() -> bool:
        try:
            server.cli("DBSIZE")
        except redis.ResponseError as error:
            return "BUSY" in str(error)
        return False

    def kill() -> None:
        with suppress(redis.ResponseError):  # it was
            server.cli("SCRIPT", "KILL")

    thread = threading.Thread(target=loop)
    thread.start()
    wait_until(says_busy, "a script that hangs")
    yield State(server.url, kill, server)
    kill()
    thread.join()


@contextmanager
def misconf(fresh: FreshServer) -> Iterator[State]:
    """The last attempt to save the data failed: their folder is gone."""
    data = new_folder()
    server = fresh(dir=str(data), save="3600 1")
    shutil.rmtree(data)
    server.cli("SET", "foreign", 1)
    server.cli("BGSAVE")
    wait_until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err", "a save that fails")
    yield State(server.url, lambda: server.cli("CONFIG", "SET", "stop-writes-on-bgsave-error", "no"), server)


@contextmanager
def max_clients(fresh: FreshServer) -> Iterator[State]:
    """Every connection that the server allows is taken."""
    server = fresh(maxclients=1)
    held = [redis.Redis(unix_socket_path=server.socket_path, single_connection_client=True)]
    held[0].ping()
    yield State(server.url, lambda: held[0].config_set("maxclients", 100), server)
    held[0].close()


@contextmanager
def cluster_down(fresh: FreshServer) -> Iterator[State]:
    """A node of a cluster in which nobody serves the slot."""
    server = fresh(cluster_enabled="yes")
    yield State(server.url, lambda: server.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383), server)


@contextmanager
def moved_in_circles(fresh: FreshServer) -> Iterator[State]:
    """Nodes that send their clients to each other."""
    with Fake(lambda _: b"") as fake:
        fake.answer = lambda _: b"-MOVED 1 127.0.0.1:%d\r\n" % fake.port
        yield State(fake.url, lambda: None)


def but_greeted(text: bytes) -> Callable[[Any], bytes]:
    """The same answer to everything but the greeting of a new connection."""
    return lambda command: b"+PONG\r\n" if command[0] == b"PING" else text


@contextmanager
def moved_on_unix(fresh: FreshServer) -> Iterator[State]:
    """A node at a unix socket that sends its clients to where nobody listens."""
    with Fake(but_greeted(b"-MOVED 1 127.0.0.1:1\r\n"), path=str(new_folder() / "u")) as fake:
        yield State(fake.url, lambda: None)


@contextmanager
def no_password(fresh: FreshServer) -> Iterator[State]:
    server = fresh(requirepass=SECRET)
    yield State(f"unix://{server.socket_path}", lambda: None)


@contextmanager
def wrong_password(fresh: FreshServer) -> Iterator[State]:
    server = fresh(requirepass="right")
    yield State(f"unix://:{SECRET}@{server.socket_path}", lambda: None)


@contextmanager
def wrong_user(fresh: FreshServer) -> Iterator[State]:
    server = fresh()
    yield State(f"unix://somebody:{SECRET}@{server.socket_path}", lambda: None)


@contextmanager
def needless_password(fresh: FreshServer) -> Iterator[State]:
    """redis-py sends a password that nobody asked for: the default user has none."""
    server = fresh()
    yield State(f"unix://:{SECRET}@{server.socket_path}", lambda: None)


def forbidden(*rules: str) -> Callable[[FreshServer], Any]:
    @contextmanager
    def state(fresh: FreshServer) -> Iterator[State]:
        server = fresh()
        server.cli("ACL", "SETUSER", "limited", "on", f">{SECRET}", "+@all", "~*", "&*", *rules)
        yield State(f"unix://limited:{SECRET}@{server.socket_path}", lambda: None, server)

    return state


def garbage(text: bytes, db: int = 0) -> Callable[[FreshServer], Any]:
    @contextmanager
    def state(fresh: FreshServer) -> Iterator[State]:
        with Fake(but_greeted(text) if db == 0 else lambda _: text) as fake:
            yield State(f"{fake.url[:-1]}{db}", lambda: None)

    return state


@contextmanager
def unknown_host(fresh: FreshServer) -> Iterator[State]:
    """The resolver says so at once, which a real one, without a network, may take seconds to do."""

    def getaddrinfo(host: Any, *_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host!r}")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", getaddrinfo)
        yield State(f"redis://:{SECRET}@no-such-host.invalid:6379/0", lambda: None)


# reason, outcome, retryable; and whether it passes
STATES: dict[str, tuple[Callable[[FreshServer], Any], str, str, bool]] = {
    "refused": (refused, "refused", "not_sent", True),
    "unknown-host": (unknown_host, "refused", "not_sent", True),
    "replica": (replica, "readonly", "not_sent", True),
    "stale-replica": (stale_replica, "readonly", "not_sent", True),
    "loading": (loading, "loading", "not_sent", True),
    "busy": (busy, "busy", "not_sent", True),
    "misconf": (misconf, "misconf", "not_sent", True),
    "max-clients": (max_clients, "max_clients", "not_sent", True),
    "cluster-down": (cluster_down, "cluster", "not_sent", True),
    "moved-in-circles": (moved_in_circles, "cluster", "not_sent", True),
    "moved-on-unix": (moved_on_unix, "refused", "not_sent", True),
    "no-password": (no_password, "auth", "not_sent", False),
    "wrong-password": (wrong_password, "auth", "not_sent", False),
    "wrong-user": (wrong_user, "auth", "not_sent", False),
    "needless-password": (needless_password, "auth", "not_sent", False),
    "no-evalsha": (forbidden("-evalsha"), "no_permission", "not_sent", False),
    "no-key": (forbidden("resetkeys", "~other:*"), "no_permission", "not_sent", False),
    "no-hset": (forbidden("-hset"), "no_permission", "unknown", False),
    "http": (garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol", "unknown", False),
    "http-in-the-greeting": (garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1), "protocol", "not_sent", True),
    "error-of-its-own": (garbage(b"-ERR something new\r\n"), "protocol", "unknown", False),
}
PASSING = ("refused", "replica", "loading", "busy", "misconf", "max-clients", "cluster-down")

CALLS: dict[str, Callable[[Any], object]] = {
    "enqueue": lambda queue: queue.enqueue_bytes(b"job"),
    "enqueue-wait": lambda queue: queue.enqueue_bytes(b"job", wait=0.05),
    "claim": lambda queue: queue.claim(),
    "pause": lambda queue: queue.pause(),
}


def texts_of(error: BaseException) -> str:
    """Every text of an error that could reach a log."""
    return "".join([str(error), repr(error), *traceback.format_exception(error)])


@pytest.mark.everywhere
@pytest.mark.parametrize("state", STATES)
def test_what_a_call_says(
    fresh_server: FreshServer, queue_name: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each state of a server has its reason and outcome, in every kind of call; the text names the queue, no secret."""
    enter, reason, outcome, retryable = STATES[state]
    shells = {kind: Shell(kind) for kind in SHELLS}
    monkeypatch.setattr(Gate, "open", lambda _: True)  # each call has to meet the state by itself

    def said(kind: str, call: Callable[[Any], object]) -> Unavailable:
        """What the call raises; made again where a busy machine left its last attempt no time to be answered."""
        queue = shells[kind].queue(queue_name, trouble.url, limits=SMALL, deadline=DEADLINE)
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                call(queue)
            if caught.value.reason != "timeout" and time.monotonic() - started < DEADLINE + 0.25:
                break
        return caught.value

    with enter(fresh_server) as trouble, ThreadPoolExecutor(8) as pool:
        futures = {(kind, name): pool.submit(said, kind, call) for kind in SHELLS for name, call in CALLS.items()}
        errors = {which: future.result() for which, future in futures.items()}
    for shell in shells.values():
        shell.close()
    wrong = {
        which: (error.reason, error.outcome, error.retryable, error.detail)
        for which, error in errors.items()
        if (error.reason, error.outcome, error.retryable) != (reason, outcome, retryable)
    }
    assert not wrong
    for error in errors.values():
        assert error.queue == queue_name
        assert queue_name in str(error)
        assert SECRET not in texts_of(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("state", PASSING)
def test_what_passes_is_survived(shell: Shell, fresh_server: FreshServer, queue_name: str, state: str) -> None:
    """A state that passes within the deadline is not seen by the caller: the job is stored once."""
    enter = STATES[state][0]
    with enter(fresh_server) as trouble:
        queue = shell.queue(queue_name, trouble.url, limits=SMALL, deadline=4)
        timer = threading.Timer(0.25, trouble.leave)
        timer.start()
        receipt = queue.enqueue_bytes(b"job")
        timer.join()
        assert receipt.jobs == 1
        assert take(queue) == [b"job"]


def test_too_old(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """Redis 6.2 is refused in one sentence that names the version found and the one needed."""
    server = fresh_server(REDIS_6_2)
    queue = shell.queue(queue_name, server.url)
    for call in (*CALLS.values(), lambda queue: queue.stats()):
        with pytest.raises(ServerUnsupported) as caught:
            call(queue)
        assert (
            str(caught.value) == f"the server is Redis {server.version}; boundq needs Redis 7.0 or Valkey 7.2 or newer"
        )
    assert server.cli("DBSIZE") == 0


def test_out_of_memory(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """At maxmemory an enqueue is refused as `QueueFull`, certainly not stored; a claim and all else goes on."""
    server = fresh_server()
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    queue.enqueue_bytes(b"job-0")
    server.cli("CONFIG", "SET", "maxmemory", 1)
    for options in ({}, {"delay": 1}, {"wait": 0.05}):
        with pytest.raises(QueueFull) as caught:
            queue.enqueue_bytes(b"job-1", **options)
        assert caught.value.reason == "memory"
    assert take(queue) == [b"job-0"]
    assert queue.stats().admitted == 1
    server.cli("CONFIG", "SET", "maxmemory", 0)
    wait_until(lambda: isinstance(queue.try_enqueue_bytes(b"job-2"), Receipt), "room")


# ---------------------------------------------------------------- clusters


@pytest.fixture
def cluster(fresh_server: FreshServer) -> list[Server]:
    """Two nodes, each with half of the slots."""
    nodes = [fresh_server(cluster_enabled="yes", cluster_node_timeout=2000) for _ in range(2)]
    nodes[0].cli("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    nodes[1].cli("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    bus = int((nodes[1].folder / "conf").read_text().split("cluster-port ")[1].split()[0])
    nodes[0].cli("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus)
    for node in nodes:
        wait_until(lambda node=node: b"cluster_state:ok" in node.cli("CLUSTER", "INFO"), "the cluster", 20)
    return nodes


def test_cluster(shell: Shell, cluster: list[Server], queue_name: str) -> None:
    """
    Queues on either node are found from either; one whose slot moves, key by key, is used meanwhile (ASK) and
    afterwards (MOVED), and loses nothing.
    """
    first, second = cluster
    names = [f"{queue_name}-{n}" for n in range(200)]
    slots = {name: first.cli("CLUSTER", "KEYSLOT", f"{{{name}}}") for name in names}
    low = next(name for name in names if slots[name] < 8192)
    high = next(name for name in names if slots[name] >= 8192)
    for node in cluster:
        for url in (f"redis+cluster://127.0.0.1:{node.port}", node.tcp_url):
            for name in (low, high):
                queue = shell.queue(name, url, limits=SMALL)
                queue.enqueue_bytes(b"job")
    queue = shell.queue(low, f"redis+cluster://127.0.0.1:{second.port}", limits=SMALL)
    assert queue.stats().jobs == 4

    slot, ids = slots[low], [node.cli("CLUSTER", "MYID").decode() for node in cluster]
    second.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    first.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    moving = first.cli("CLUSTER", "GETKEYSINSLOT", slot, 100)
    first.cli("MIGRATE", "127.0.0.1", second.port, "", 0, 5000, "KEYS", *moving)

    def finish() -> None:
        for node in reversed(cluster):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[1])

    # ASK leads to the other node, which has all keys that there are, but says TRYAGAIN where one is not there.
    timer = threading.Timer(0.2, finish)
    timer.start()
    queue.enqueue_bytes(b"job")
    timer.join()
    assert len(take(queue, 2)) == 2
    for url in (f"redis+cluster://127.0.0.1:{first.port}", first.tcp_url):
        shell.queue(low, url, limits=SMALL).enqueue_bytes(b"job")
    queue.enqueue_bytes(b"job")
    assert len(take(queue)) == 6
    audit(queue)


# ---------------------------------------------------------------- foreign keys


def operations(full: bool) -> dict[str, Callable[[Queue, list[Any]], object]]:
    found: dict[str, Callable[[Queue, list[Any]], object]] = {
        "enqueue": lambda queue, _: queue.enqueue_bytes(b"new"),
        "delayed": lambda queue, _: queue.enqueue_bytes(b"new", delay=5),
        "unique": lambda queue, _: queue.enqueue_bytes(b"new", unique="another", unique_for=3),
        "expiring": lambda queue, _: queue.enqueue_bytes(b"new", expires=5),
        "claim": lambda queue, _: queue.claim(5),
        "ack": lambda queue, leases: queue.settle(acks=leases),
        "retry": lambda queue, leases: queue.settle(retries=[(lease, 1) for lease in leases]),
        "release": lambda queue, leases: queue.settle(releases=leases),
        "bury": lambda queue, leases: queue.settle(buries=[(lease, "why", "text") for lease in leases]),
        "settle": lambda queue, leases: queue.settle(
            acks=leases[:1], retries=[(leases[1], 1)], buries=[(lease, "why", "text") for lease in leases[2:]]
        ),
        "extend": lambda queue, leases: queue.extend(leases, 60),
        "cancel": lambda queue, leases: queue.cancel(leases[0].id),
        "purge": lambda queue, _: queue.purge(),
        "purge-dead": lambda queue, _: queue.purge("dead"),
        "pause": lambda queue, _: queue.pause(),
        "seal": lambda queue, _: queue.seal(),
        "configure": lambda queue, _: queue.configure(Limits(max_jobs=50)),
    }
    if full:
        found["wait"] = lambda queue, _: queue.enqueue_bytes(b"new", wait=0.02)
    return found


@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
@pytest.mark.parametrize("part", PARTS)
def test_foreign_key(any_server: Server, queue_name: str, part: str, full: bool) -> None:
    """Where one of the queue's keys is somebody else's, a call works or says `wrong_type`, having written nothing."""
    for number, (name, operation) in enumerate(operations(full).items()):
        queue = Queue(f"{queue_name}.{number}", any_server.url, max_jobs=8 if full else 100)
        leases = (furnish_full if full else furnish_idle)(queue, any_server)
        key = f"boundq:{{{queue.name}}}:{part}"
        any_server.cli("DEL", key)
        any_server.cli("SET", key, "somebody else's")
        before, reason = dump(any_server, queue.name), "wrong_type"
        try:
            operation(queue, leases)
        except DataError as error:
            reason = error.reason
            assert dump(any_server, queue.name) == before, f"{name} failed and left something behind"
        except QueueFull:
            assert full, name
        assert reason == "wrong_type", name
        assert any_server.cli("GET", key) == b"somebody else's", name


def furnish_idle(queue: Queue, server: Server) -> list[Any]:
    """Three leases of jobs with unique keys, one dead letter; somebody waits for jobs."""
    for n in range(3):
        queue.enqueue_bytes(b"leased", unique=f"key-{n}", unique_for=60)
    queue.enqueue_bytes(b"buried")
    leases = queue.claim(4)
    leases.pop().bury("why", "text")
    server.cli("HSET", f"boundq:{{{queue.name}}}:state", "gate", 1)
    return leases


def furnish_full(queue: Queue, server: Server) -> list[Any]:
    """The same, and scheduled jobs, expired ones, and as many ready ones as there is room for; somebody waits."""
    leases = furnish_idle(queue, server)
    queue.enqueue_bytes(b"scheduled", delay=60)
    queue.enqueue_bytes(b"expires", expires=0.001, priority="critical")
    queue.enqueue_many([b"filler"] * 8)
    with suppress(QueueFull):
        while True:
            queue.enqueue_bytes(b"filler")
    server.cli("HSET", f"boundq:{{{queue.name}}}:state", "gate", 3)
    return leases


# ---------------------------------------------------------------- how often a server in trouble is asked


def storm(call: Callable[[], object], threads: int, seconds: float) -> int:
    """So many threads call again and again, whatever comes; how many calls that were."""
    ends = time.monotonic() + seconds

    def go() -> int:
        calls = 0
        while time.monotonic() < ends:
            calls += 1
            with suppress(BoundqError):
                call()
        return calls

    with ThreadPoolExecutor(threads) as pool:
        return sum(future.result() for future in [pool.submit(go) for _ in range(threads)])


STORM_S = 1.6


@pytest.mark.parametrize("deadline", [0.02, 0.6])
@pytest.mark.parametrize("state", ["loading", "refused"])
def test_failing_commands_are_few(
    shell: Shell, fresh_server: FreshServer, queue_name: str, state: str, deadline: float
) -> None:
    """Eight threads in a loop at a server in trouble ask it five times a second, together, and once each at first."""
    asked: list[float] = []

    def answer(_: object) -> bytes:
        asked.append(time.monotonic())
        return b"-LOADING Redis is loading the dataset in memory\r\n"

    with ExitStack() as stack:
        if state == "loading":
            url = stack.enter_context(Fake(answer)).url
        else:
            url = f"unix://{new_folder()}/nobody"
            real = socket.socket.connect
            sockets = stack.enter_context(pytest.MonkeyPatch.context())

            def connect(self: socket.socket, address: Any) -> None:
                if address == url.removeprefix("unix://"):
                    asked.append(time.monotonic())
                real(self, address)

            sockets.setattr(socket.socket, "connect", connect)
        queue = shell.queue(queue_name, url, limits=SMALL, deadline=deadline)
        calls = storm(lambda: queue.enqueue_bytes(b"job"), 8, STORM_S)
    assert calls >= 8
    # Within 20 ms a busy machine may not even get a connection.
    assert (4 if deadline > 0.1 else 1) <= len(asked) <= 5 * (STORM_S + deadline) + 8 + 2


@pytest.mark.parametrize("options", [{}, {"wait": 0.3}], ids=["at-once", "wait"])
def test_enqueues_at_a_full_server_are_few(
    shell: Shell, fresh_server: FreshServer, queue_name: str, options: dict[str, Any]
) -> None:
    """Likewise when it is out of memory, also of those who would wait for room."""
    server = fresh_server()
    queue = shell.queue(queue_name, server.url, limits=SMALL)
    queue.enqueue_bytes(b"job")
    server.cli("CONFIG", "SET", "maxmemory", 1)
    calls = storm(lambda: queue.enqueue_bytes(b"job", **options), 8, STORM_S)
    refused = int(server.info("errorstats").get("errorstat_OOM", "count=0").split("=")[1])
    assert calls >= 8
    assert 4 <= refused <= 5 * STORM_S + 8 + 2


def test_one_cut_connection_does_not_slow_the_others_down(
    shell: Shell, fresh_server: FreshServer, queue_name: str
) -> None:
    """After one failure among many successes the next call goes out at once."""
    server = fresh_server()
    with Proxy(server.socket_path) as line:
        queue = shell.queue(queue_name, line.url, limits=SMALL)
        queue.enqueue_bytes(b"job")
        for _ in range(5):
            line.swallow(reply_of=is_script("enqueue"))
            started = time.monotonic()
            queue.enqueue_bytes(b"job")
            assert time.monotonic() - started < 0.5
        assert queue.stats().jobs == 6
