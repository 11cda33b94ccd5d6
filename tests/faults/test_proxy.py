"""The proxy does what it says: a fault test is worth no more than the fault."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests._proxy import Command, Proxy, anything, frame_end, read_command
from tests._servers import Server, wait_until
from tests.conftest import FreshServer, NewProxy

SILENCE_S = 0.15
"""How long to listen for what must not come; only a test that should fail depends on it."""

Connect = Callable[..., "Client"]


class Client:
    """A redis-py client that sends each command once, on one connection, and can be read raw."""

    def __init__(self, proxy: Proxy, timeout: float = 10.0, **options: Any) -> None:
        self._redis: Any = redis.Redis.from_url(
            proxy.url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            single_connection_client=True,
            **options,
        )

    def __call__(self, *args: object) -> Any:
        return self._redis.execute_command(*args)

    def pipeline(self) -> Any:
        return self._redis.pipeline(transaction=False)

    def close(self) -> None:
        self._redis.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def make(proxy: Proxy, timeout: float = 10.0, **options: Any) -> Client:
            client = Client(proxy, timeout, **options)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def key(queue_name: str) -> str:
    return f"boundq:{{{queue_name}}}:key"


def raw(proxy: Proxy, timeout: float = 10.0) -> socket.socket:
    """A bare connection to the proxy."""
    address = proxy.address
    plain = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    plain.settimeout(timeout)
    try:
        plain.connect(address)
    except OSError:
        plain.close()
        raise
    return plain


def assert_silent(plain: socket.socket) -> None:
    """Nothing comes, and neither does the end."""
    plain.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        plain.recv(1)
    plain.settimeout(10)


def read_all(plain: socket.socket) -> bytes:
    """What comes before the connection ends."""
    data = b""
    while chunk := plain.recv(65536):
        data += chunk
    return data


def request(*args: str) -> bytes:
    parts = [f"${len(arg)}\r\n{arg}\r\n" for arg in args]
    return f"*{len(args)}\r\n{''.join(parts)}".encode()


class Sink:
    """An upstream that answers nothing and keeps the bytes it gets: what ``exactly n`` is measured by."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.address: tuple[str, int] = self._listener.getsockname()

    def read_all(self) -> bytes:
        with self._listener, self._listener.accept()[0] as plain:
            plain.settimeout(10)
            return read_all(plain)


# ---------------------------------------------------------------- RESP

FRAMES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":-12\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"$7\r\na\r\n$1\r\n\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n+x\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(123456789012345678901234567890\r\n",
    b"=7\r\ntxt:\r\n!\r\n",
    b"!3\r\nERR\r\n",
    b"~2\r\n:1\r\n:2\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n:2\r\n",
    b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    b"|1\r\n+ttl\r\n:3\r\n*1\r\n+v\r\n",
    b"PING\r\n",
]


@pytest.mark.parametrize("frame", FRAMES)
def test_frame_end_is_found_and_never_early(frame: bytes) -> None:
    """A value ends where it ends, wherever it starts, and not before its last byte is there."""
    assert frame_end(frame) == len(frame)
    assert frame_end(frame + b"+next\r\n") == len(frame)
    assert frame_end(b"+before\r\n" + frame, len(b"+before\r\n")) == len(b"+before\r\n") + len(frame)
    assert [frame_end(frame[:cut]) for cut in range(len(frame))] == [None] * len(frame)


def test_read_command_keeps_bytes() -> None:
    """Arguments come out as they were sent, line ends and all; an inline command is split at blanks."""
    assert read_command(b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\n\r\n$\xff\r\n") == (b"SET", b"", b"\r\n$\xff")
    assert read_command(b"PING x\r\n") == (b"PING", b"x")


# ---------------------------------------------------------------- without faults


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("protocol", [2, 3], ids=["resp2", "resp3"])
def test_passes_everything(
    any_server: Server, proxy: NewProxy, connect: Connect, key: str, tcp: bool, protocol: int
) -> None:
    """Values, errors, nulls, nested replies and a megabyte arrive as the server gives them."""
    client = connect(proxy(any_server, tcp=tcp), protocol=protocol)
    payload = bytes(range(256)) * 4096
    assert client("SET", key, payload) is True
    assert client("GET", key) == payload
    assert client("GET", f"{key}2") is None
    assert client("EVAL", "return {1, {'a', {}}, 'b'}", 0) == [1, [b"a", []], b"b"]
    with pytest.raises(redis.ResponseError, match="wrong kind"):
        client("LPUSH", key, "x")


def test_counts_and_logs(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """Commands and replies are counted for each connection; the log names them in their order."""
    line = proxy(any_server)
    first, second = connect(line), connect(line)
    first("PING")
    second("PING")
    before = line.connections
    line.clear_log()
    first("SET", key, "x" * 1000)
    second("get", key)
    second("ECHO", *["many"])
    assert [seen.command for seen in line.log] == [
        (b"SET", key.encode(), b"x" * 1000),
        (b"get", key.encode()),
        (b"ECHO", b"many"),
    ]
    assert [seen.connection for seen in line.log] == [1, 2, 2]
    assert (line.count("GET"), line.count(anything), line.count(lambda command: len(command) == 2)) == (
        1,
        3,
        2,
    )
    after = line.connections
    assert [now.commands - was.commands for now, was in zip(after, before, strict=True)] == [1, 2]
    assert [now.replies - was.replies for now, was in zip(after, before, strict=True)] == [1, 2]
    assert line.commands == line.replies == sum(link.commands for link in after)
    assert all(link.open for link in after)
    first.close()
    wait_until(lambda: [link.open for link in line.connections] == [False, True], "the first to be closed")


def test_log_keeps_only_the_first_arguments(any_server: Server, proxy: NewProxy, connect: Connect) -> None:
    """A long command does not fill the memory of the test, and is passed whole."""
    line = proxy(any_server)
    assert connect(line)("EVAL", "return #ARGV", 0, *range(5000)) == 5000
    assert line.log[-1].command == (b"EVAL", b"return #ARGV", b"0", b"0", b"1", b"2", b"3", b"4")


def test_pushes_are_not_replies(any_server: Server, proxy: NewProxy, key: str) -> None:
    """A RESP3 push passes without being taken for the reply of a command."""
    line = proxy(any_server)
    with raw(line) as plain, plain.makefile("rb") as replies:
        plain.sendall(request("HELLO", "3"))
        wait_until(lambda: line.replies == 1, "the reply to HELLO")
        plain.sendall(request("CLIENT", "TRACKING", "on") + request("GET", key))
        wait_until(lambda: line.replies == 3, "two more replies")
        any_server.cli("SET", key, "x")
        while replies.readline() != b">2\r\n":
            pass
        assert line.replies == 3
        fault = line.swallow(reply_of="PING")
        plain.sendall(request("PING"))
        fault.wait()
        assert line.replies == 4


def test_carries_thousands_of_commands(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """It is fast enough for a load test, and loses or doubles nothing, in pipelines or in threads."""
    line = proxy(any_server)
    with connect(line).pipeline() as pipeline:
        for _ in range(5000):
            pipeline.execute_command("INCR", key)
        assert pipeline.execute() == list(range(1, 5001))

    def work(client: Client) -> None:
        for _ in range(250):
            client("INCR", key)

    threads = [threading.Thread(target=work, args=(connect(line),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any_server.cli("GET", key) == b"6000"
    assert line.count("INCR") == 6000
    assert line.commands == line.replies


def test_serves_asyncio_clients(any_server: Server, proxy: NewProxy, key: str) -> None:
    """The proxy has a loop of its own, so that a fault can be set from within a coroutine."""
    line = proxy(any_server)

    async def main() -> None:
        connection: Any = redis.asyncio.Redis.from_url(line.url, retry=Retry(NoBackoff(), 0))
        async with connection as client:
            assert await client.execute_command("INCR", key) == 1
            line.swallow(reply_of="INCR")
            with pytest.raises(redis.ConnectionError):
                await client.execute_command("INCR", key)

    asyncio.run(main())
    assert any_server.cli("GET", key) == b"2"


def test_unfinished_request_reaches_the_server(proxy: NewProxy) -> None:
    """A client that dies in mid-request is passed on as it is."""
    sink = Sink()
    line = proxy(sink.address)
    with raw(line) as plain:
        plain.sendall(request("PING") + b"*2\r\n$4\r\nEC")
    assert sink.read_all() == request("PING") + b"*2\r\n$4\r\nEC"


def test_reply_to_a_client_that_is_gone_is_counted(fresh_server: FreshServer, proxy: NewProxy, key: str) -> None:
    """The server answers what it got, even if nobody listens any more: a fault can still catch the reply."""
    server = fresh_server()
    line = proxy(server)
    fault = line.swallow(reply_of="INCR", then="silence")
    with server.paused():
        with raw(line) as plain:
            plain.sendall(request("INCR", key) * 2)
        wait_until(lambda: line.count("INCR") == 2, "both to arrive")
    fault.wait()
    wait_until(lambda: line.replies == 2, "both replies")
    assert server.cli("GET", key) == b"2"


def test_server_that_dies_cuts_its_clients(
    fresh_server: FreshServer, proxy: NewProxy, connect: Connect, key: str
) -> None:
    """Without a server the proxy hangs up as a server would; when it is back, so is the service."""
    server = fresh_server()
    line = proxy(server)
    client = connect(line)
    client("PING")
    server.kill()
    for _ in range(2):  # the connection there was, then a new one
        with pytest.raises(redis.ConnectionError):
            client("INCR", key)
    server.start()
    assert client("INCR", key) == 1


# ---------------------------------------------------------------- swallow


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_swallow_executes_and_cuts(any_server: Server, proxy: NewProxy, connect: Connect, key: str, tcp: bool) -> None:
    """The reply of the third INCR is lost after the server has counted it; the others are not."""
    line = proxy(any_server, tcp=tcp)
    client = connect(line)
    fault = line.swallow(reply_of="incr", after=2)
    assert [client("INCR", key), client("PING"), client("INCR", key)] == [1, True, 2]
    assert fault.hits == 0
    with pytest.raises(redis.ConnectionError):
        client("INCR", key)
    assert fault.hits == 1
    assert any_server.cli("GET", key) == b"3"
    assert client("INCR", key) == 4


def test_swallow_in_silence(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """The client hears nothing more on that connection, though its requests arrive; others are served."""
    line = proxy(any_server)
    line.swallow(reply_of="INCR", then="silence")
    with raw(line) as plain:
        for _ in range(2):
            plain.sendall(request("INCR", key))
            assert_silent(plain)
        wait_until(lambda: line.replies == 2, "both replies, which are lost")
        assert connect(line)("INCR", key) == 3


def test_swallow_by_predicate_and_for_ever(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """A predicate sees the arguments; without ``times`` every matching reply is lost, until it is healed."""
    line = proxy(any_server)
    client = connect(line)
    fault = line.swallow(reply_of=lambda command: command[:2] == (b"INCR", f"{key}2".encode()), times=None)
    for n in range(1, 4):
        assert client("INCR", key) == n
        with pytest.raises(redis.ConnectionError):
            client("INCR", f"{key}2")
    assert fault.hits == 3
    line.heal()
    assert client("INCR", f"{key}2") == 4


def test_swallow_finds_a_reply_that_was_asked_for_earlier(
    any_server: Server, proxy: NewProxy, connect: Connect, key: str
) -> None:
    """A worker that is already waiting in BLPOP can lose the job it is given."""
    line = proxy(any_server)
    with raw(line) as plain:
        plain.sendall(request("BLPOP", key, "0"))
        wait_until(lambda: line.count("BLPOP") == 1, "BLPOP to arrive")
        fault = line.swallow(reply_of="BLPOP")
        any_server.cli("RPUSH", key, "job")
        assert read_all(plain) == b""
    fault.wait()
    assert any_server.cli("EXISTS", key) == 0


def test_exact_under_load(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """With many threads, exactly ``times`` replies are lost, and each was executed."""
    line = proxy(any_server)
    fault = line.swallow(reply_of="INCR", after=50, times=20)
    outcomes: list[bool] = []

    def work(client: Client) -> None:
        for _ in range(100):
            try:
                client("INCR", key)
                outcomes.append(True)
            except redis.ConnectionError:
                outcomes.append(False)

    threads = [threading.Thread(target=work, args=(connect(line),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(outcomes), outcomes.count(False), fault.hits) == (400, 20, 20)
    assert any_server.cli("GET", key) == b"400"


# ---------------------------------------------------------------- cut


@pytest.mark.parametrize("keep", [*range(len(request("INCR", "k"))), -1])
def test_cut_request_passes_exactly_n_bytes(proxy: NewProxy, keep: int) -> None:
    """The server gets what came before and n bytes of the request, then the end."""
    sink = Sink()
    line = proxy(sink.address)
    fault = line.cut(request_of="INCR", keep=keep, after=1)
    sent = request("INCR", "k")
    with raw(line) as plain:
        plain.sendall(sent + request("PING") + sent + request("PING"))
        assert sink.read_all() == sent + request("PING") + sent[:keep]
        assert fault.hits == 1


def test_cut_request_is_not_executed(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """A request without its last byte changes nothing; the client sees the cut and can go on."""
    line = proxy(any_server)
    client = connect(line)
    client("PING")
    line.cut(request_of="INCR", keep=-1)
    with pytest.raises(redis.ConnectionError):
        client("INCR", key)
    assert any_server.cli("EXISTS", key) == 0
    assert client("INCR", key) == 1


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("keep", [*range(len(b"$3\r\nabc\r\n")), 1000, -1])
def test_cut_reply_passes_exactly_n_bytes(any_server: Server, proxy: NewProxy, key: str, keep: int, tcp: bool) -> None:
    """The client gets the replies before, n bytes of this one, and the end."""
    line = proxy(any_server, tcp=tcp)
    any_server.cli("SET", key, "abc")
    line.cut(reply_of="GET", keep=keep)
    with raw(line) as plain:
        plain.sendall(request("PING") + request("GET", key))
        assert read_all(plain) == b"+PONG\r\n" + b"$3\r\nabc\r\n"[:keep]


def test_cut_all(any_server: Server, proxy: NewProxy, connect: Connect) -> None:
    """All connections of the moment end, on both sides; the next one is served."""
    line = proxy(any_server)
    with raw(line) as first, raw(line) as second:
        for plain in (first, second):
            plain.sendall(request("PING"))
            assert plain.recv(100) == b"+PONG\r\n"
        line.cut_all()
        assert read_all(first) == read_all(second) == b""
    wait_until(lambda: not any(link.open for link in line.connections), "both to be closed")
    assert connect(line)("PING") is True


# ---------------------------------------------------------------- hold and delay


def test_held_request_arrives_after_its_client_is_gone(
    any_server: Server, proxy: NewProxy, connect: Connect, key: str
) -> None:
    """The late ghost: a request is executed after its sender gave up and somebody else wrote."""
    line = proxy(any_server)
    fault = line.hold(request_of="SET")
    with raw(line) as plain:
        plain.sendall(request("SET", key, "ghost"))
        fault.wait()
    connect(line)("SET", key, "resend")
    assert any_server.cli("GET", key) == b"resend"
    fault.release()
    wait_until(lambda: any_server.cli("GET", key) == b"ghost", "the ghost")
    wait_until(lambda: not line.connections[0].open, "the ghost's connection to end")


def test_held_reply_waits(any_server: Server, proxy: NewProxy, key: str) -> None:
    """The server has executed it, the client waits; once released the replies come in their order."""
    line = proxy(any_server)
    fault = line.hold(reply_of="INCR")
    with raw(line) as plain:
        plain.sendall(request("INCR", key) + request("PING"))
        fault.wait()
        assert any_server.cli("GET", key) == b"1"
        assert_silent(plain)
        fault.release()
        with plain.makefile("rb") as replies:
            assert [replies.readline(), replies.readline()] == [b":1\r\n", b"+PONG\r\n"]


def test_release_holds_no_more(any_server: Server, proxy: NewProxy, connect: Connect) -> None:
    """After the release, what would still have been caught passes."""
    line = proxy(any_server)
    fault = line.hold(request_of="PING", times=None)
    fault.release()
    client = connect(line)
    assert [client("PING"), client("PING")] == [True, True]
    assert fault.hits == 2


def test_delay(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """Each matching request takes that much longer, and no other does."""
    line = proxy(any_server)
    client = connect(line)
    client("PING")
    line.delay(0.05, request_of="INCR")

    def took(*command: str) -> float:
        start = time.monotonic()
        client(*command)
        return time.monotonic() - start

    assert min(took("INCR", key) for _ in range(3)) >= 0.05
    assert min(took("PING") for _ in range(10)) < 0.05
    line.heal()
    assert min(took("INCR", key) for _ in range(10)) < 0.05


# ---------------------------------------------------------------- the whole line


def test_black_hole(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """Old and new connections are open and mute, the server gets nothing; after healing new ones work."""
    line = proxy(any_server)
    with raw(line) as old:
        old.sendall(request("PING"))
        assert old.recv(100) == b"+PONG\r\n"
        fault = line.hold(request_of="INCR")
        line.black_hole()
        with raw(line) as new:
            for plain in (old, new):
                plain.sendall(request("INCR", key))
                assert_silent(plain)
        assert (line.count("INCR"), fault.hits) == (2, 0)
        line.heal()
        assert read_all(old) == b""
    assert connect(line)("INCR", key) == 1


def test_black_hole_takes_replies_too(any_server: Server, proxy: NewProxy, key: str) -> None:
    """The answer to what was sent before is lost as well."""
    line = proxy(any_server)
    with raw(line) as plain:
        plain.sendall(request("BLPOP", key, "0"))
        wait_until(lambda: any_server.info("clients")["blocked_clients"] != "0", "BLPOP to block")
        line.black_hole()
        any_server.cli("RPUSH", key, "job")
        wait_until(lambda: line.replies == 1, "the reply")
        assert_silent(plain)


def test_stop_accepting_lets_tcp_hang(any_server: Server, proxy: NewProxy, connect: Connect) -> None:
    """Connecting takes for ever; those connected are served; healing lets new ones in."""
    line = proxy(any_server, tcp=True)
    old = connect(line)
    old("PING")
    line.stop_accepting()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            raw(line, SILENCE_S)
    assert old("PING") is True
    line.heal()
    assert connect(line)("PING") is True
    assert old("PING") is True


def test_stop_accepting_on_a_unix_socket(any_server: Server, proxy: NewProxy, connect: Connect) -> None:
    """A client with a timeout cannot wait in a full queue: it fails at once, as documented."""
    line = proxy(any_server)
    line.stop_accepting()
    with pytest.raises(BlockingIOError):
        raw(line)
    line.heal()
    assert connect(line)("PING") is True


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_refuse(any_server: Server, proxy: NewProxy, connect: Connect, tcp: bool) -> None:
    """New connections are refused, those there are go on; healing opens the same address again."""
    line = proxy(any_server, tcp=tcp)
    address = line.address
    old = connect(line)
    old("PING")
    line.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            raw(line)
    assert old("PING") is True
    line.heal()
    assert line.address == address
    assert connect(line)("PING") is True


def test_heal_ends_faults(any_server: Server, proxy: NewProxy, connect: Connect, key: str) -> None:
    """What is held goes on, and what has not happened yet does not happen."""
    line = proxy(any_server)
    held = line.hold(request_of="INCR")
    line.swallow(reply_of="INCR", times=None)
    with raw(line) as plain:
        plain.sendall(request("INCR", key))
        held.wait()
        line.heal()
        assert plain.recv(100) == b":1\r\n"


# ---------------------------------------------------------------- itself


def test_predicate_that_raises_is_told(any_server: Server) -> None:
    """A mistake in a predicate cuts the connection and comes out of ``close``, instead of passing unseen."""

    def broken(command: Command) -> bool:
        raise KeyError("mine")

    with Proxy(any_server.socket_path) as line:
        line.swallow(reply_of=broken)
        with raw(line) as plain:
            plain.sendall(request("PING"))
            assert read_all(plain) == b""
        with pytest.raises(ExceptionGroup) as caught:
            line.close()
    assert caught.group_contains(KeyError, match="mine")


def test_faults_need_one_side(any_server: Server, proxy: NewProxy) -> None:
    """A fault of requests and one of replies are two faults."""
    line = proxy(any_server)
    with pytest.raises(TypeError, match="either"):
        line.cut()
    with pytest.raises(TypeError, match="either"):
        line.cut(request_of="PING", reply_of="PING")


def test_close_leaves_nothing(any_server: Server) -> None:
    """With connections open, requests held and the queue full, closing ends the thread and the folder."""
    with Proxy(any_server.socket_path) as line, raw(line) as plain:
        fault = line.hold(request_of="PING")
        plain.sendall(request("PING"))
        fault.wait()
        line.stop_accepting()
        path = line.address
        assert isinstance(path, str)
        line.close()
        assert read_all(plain) == b""
    with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as gone:
        gone.connect(path)
    assert not [thread for thread in threading.enumerate() if thread.name == "proxy"]
