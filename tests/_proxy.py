"""
A proxy between a client and a Redis server that breaks the line where a test says.

It reads RESP both ways, so that a fault can be tied to a command ("the reply of the third EVALSHA") instead
of to a moment. What each fault leaves behind, and what a client that knows its trade may say about a request:

    fault                           the server            the client               the request was
    swallow(reply_of=...)           executed it           cut                      unknown (executed)
    swallow(..., then="silence")    executed it           waits for ever           unknown (executed)
    cut(request_of=..., keep=n)     got n bytes, ignored  cut                      unknown (not executed) *
    cut(reply_of=..., keep=n)       executed it           n bytes of reply, cut    unknown (executed)
    hold(request_of=...)            gets it on release    waits until released     unknown (executed later **)
    hold(reply_of=...)              executed it           waits until released     unknown (executed)
    delay(seconds)                  gets it late          waits that long          answered, or unknown
    cut_all()                       sees all hang up      cut                      unknown, or not sent
    black_hole()                    gets nothing          connects, then waits     unknown (not executed)
    stop_accepting()                sees no new client    TCP: connect hangs ***   not sent
    refuse()                        sees no new client    connect is refused       not sent

    *    with ``keep`` at the whole length the server does execute it
    **   even when the client has hung up by then: the late ghost that a resend has to survive
    ***  on a unix socket Linux does not let it hang: a client with a timeout fails at once (EAGAIN)

A fault applies to what passes after it was set: a request as it comes from the client, a reply as it comes
from the server (of whatever age its command is). ``heal()`` ends them all.

Commands with no reply or several (SUBSCRIBE, MONITOR, CLIENT REPLY) are outside of what it can count.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from tests._servers import new_folder

T = TypeVar("T")

Command = tuple[bytes, ...]
Match = str | Callable[[Command], bool]
"""Which commands: a name in any case, or a predicate, which runs in the proxy's thread."""

_LOGGED_ARGS = 8
_CHUNK = 1 << 16
_CALL_S = 10.0


def anything(command: Command) -> bool:
    """Match every command, also the HELLO and CLIENT SETINFO that redis-py sends on a new connection."""
    return True


def _predicate(match: Match) -> Callable[[Command], bool]:
    if not isinstance(match, str):
        return match
    name = match.upper().encode()
    return lambda command: command[:1] != () and command[0].upper() == name


# ---------------------------------------------------------------- RESP


def frame_end(data: bytes | bytearray, start: int = 0) -> int | None:
    """Where the RESP2 or RESP3 value at ``start`` ends; None while some of it is missing."""
    position, values = start, 1
    while values:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return None
        kind, size = data[position : position + 1], data[position + 1 : line_end]
        position, values = line_end + 2, values - 1
        if kind in (b"$", b"=", b"!"):
            position += int(size) + 2 if int(size) >= 0 else 0
        elif kind in (b"*", b"~", b">"):
            values += max(int(size), 0)
        elif kind == b"%":
            values += 2 * int(size)
        elif kind == b"|":
            values += 2 * int(size) + 1  # attributes come before the value that they belong to
    return position if position <= len(data) else None


def read_command(frame: bytes) -> Command:
    """The arguments of one request: an array of bulk strings, or an inline line."""
    if not frame.startswith(b"*"):
        return tuple(frame.split())
    args = []
    position = frame.index(b"\r\n") + 2
    while position < len(frame):
        line_end = frame.index(b"\r\n", position)
        size = int(frame[position + 1 : line_end])
        args.append(frame[line_end + 2 : line_end + 2 + size])
        position = line_end + 2 + size + 2
    return tuple(args)


# ---------------------------------------------------------------- faults

Side = Literal["request", "reply"]


@dataclass(eq=False, kw_only=True)
class Fault:
    """
    Something that will go wrong with certain frames; the methods of Proxy make them.

    It passes ``after`` matching frames, then catches ``times`` of them (None: all that follow).
    """

    side: Side
    matches: Callable[[Command], bool]
    after: int = 0
    times: int | None = 1
    keep: int | None = None  # how much of the frame passes, as in frame[:keep]
    then: Literal["pass", "cut", "silence"] = "pass"
    held: bool = False
    seconds: float | None = None

    _loop: asyncio.AbstractEventLoop
    _gate: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _caught: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0), init=False)
    _seen: int = field(default=0, init=False)

    @property
    def hits(self) -> int:
        """How many frames it has caught so far."""
        hits = max(self._seen - self.after, 0)
        return hits if self.times is None else min(hits, self.times)

    def wait(self, timeout: float = 5.0) -> None:
        """Block until it has caught one more frame than the calls before this one have waited for."""
        if not self._caught.acquire(timeout=timeout):
            raise TimeoutError(f"nothing to catch in {timeout} s: {self}")

    def release(self) -> None:
        """Let go what ``hold`` has caught, and hold no more."""
        self._loop.call_soon_threadsafe(self._gate.set)

    def _catches(self, command: Command) -> bool:
        if not self.matches(command):
            return False
        before, self._seen = self.hits, self._seen + 1
        caught = self.hits > before
        if caught:
            self._caught.release()
        return caught

    async def _linger(self) -> None:
        """Keep a caught frame for as long as this fault does."""
        if self.held:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gate.wait(), self.seconds)


# ---------------------------------------------------------------- the proxy


class Seen(NamedTuple):
    """A command in the log: the number of its connection, its name and its first arguments."""

    connection: int
    command: Command


class Traffic(NamedTuple):
    """What one connection has carried; ``open`` until either end is gone."""

    connection: int
    commands: int
    replies: int
    open: bool


class _Hangup(Exception):
    """Ends both directions of a link."""


@dataclass(eq=False)
class _Link:
    """A client's connection and the one to the server that belongs to it."""

    number: int
    client: socket.socket
    server: socket.socket
    pending: deque[Command] = field(default_factory=deque)
    commands: int = 0
    replies: int = 0
    silent: bool = False  # replies no longer pass
    lossy: bool = False  # bytes are missing from its middle: it must not be used again
    task: asyncio.Task[None] | None = None

    def traffic(self) -> Traffic:
        is_open = self.task is not None and not self.task.done()
        return Traffic(self.number, self.commands, self.replies, is_open)

    def cut(self) -> None:
        """Both ends see it at once; closing waits for the task, whose loop still watches the sockets."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """
    Stands before a server at an address of its own, in a thread of its own. All methods are thread safe.

        with Proxy(server.socket_path) as proxy:
            proxy.swallow(reply_of="EVALSHA", after=2)
            ...  # use proxy.url; the third EVALSHA runs and its sender never hears of it

    Args:
        upstream: The server: the path of its socket, or (host, port).
        tcp: Listen on 127.0.0.1 instead of on a unix socket.
    """

    def __init__(self, upstream: str | tuple[str, int], *, tcp: bool = False) -> None:
        self._upstream = upstream
        self._tcp = tcp
        self._folder: Path = new_folder()
        self._address: str | tuple[str, int] = ("127.0.0.1", 0) if tcp else str(self._folder / "p")
        self._listener = self._bind()
        self._plug: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="proxy", daemon=True)
        self._links: list[_Link] = []
        self._faults: list[Fault] = []
        self._log: list[Seen] = []
        self._accepting = False
        self._black_hole = False
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_CALL_S), "the proxy's thread did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything and go away; raises what a predicate has raised. May be called twice."""
        if self._thread.is_alive():
            self._do(self._stop.set)
            self._thread.join()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- where it is, and what it has seen

    @property
    def url(self) -> str:
        if isinstance(self._address, str):
            return f"unix://{self._address}"
        return f"redis://{self._address[0]}:{self._address[1]}/0"

    @property
    def address(self) -> str | tuple[str, int]:
        """What ``socket.connect`` takes."""
        return self._address

    @property
    def log(self) -> list[Seen]:
        """The commands that have arrived, oldest first; a command is here before its reply has left."""
        return list(self._log)

    @property
    def connections(self) -> list[Traffic]:
        """One for each connection that was ever accepted, oldest first."""
        return [link.traffic() for link in list(self._links)]

    @property
    def commands(self) -> int:
        """How many commands have arrived, on all connections."""
        return sum(link.commands for link in list(self._links))

    @property
    def replies(self) -> int:
        """How many replies the server has given, swallowed ones too; RESP3 pushes are none."""
        return sum(link.replies for link in list(self._links))

    def count(self, match: Match) -> int:
        """How many commands of the log match; a predicate sees their first 8 arguments."""
        matches = _predicate(match)
        return sum(matches(seen.command) for seen in self.log)

    def clear_log(self) -> None:
        """Forget the log, so that the next assertion is about what follows; counters stay."""
        self._do(self._log.clear)

    # -- faults of single frames

    def swallow(
        self,
        *,
        reply_of: Match,
        after: int = 0,
        times: int | None = 1,
        then: Literal["cut", "silence"] = "cut",
    ) -> Fault:
        """
        Lose a reply: the server has executed the command when the client is cut off, or hears nothing more.

        In silence the connection's requests still reach the server; its replies are lost from there on.

        Args:
            reply_of: Of which commands.
            after: How many matching replies pass first.
            times: How many are lost. None: all that follow.
            then: What becomes of the connection.
        """
        return self._add(None, reply_of, after=after, times=times, keep=0, then=then)

    def cut(
        self,
        *,
        request_of: Match | None = None,
        reply_of: Match | None = None,
        keep: int = 0,
        after: int = 0,
        times: int | None = 1,
    ) -> Fault:
        """
        Let exactly ``frame[:keep]`` of a request, or of a reply, pass, then cut the connection on both sides.

        What was pipelined before it has been passed on; answers to that may still be on their way, and are
        lost.
        """
        return self._add(request_of, reply_of, after=after, times=times, keep=keep, then="cut")

    def hold(
        self,
        *,
        request_of: Match | None = None,
        reply_of: Match | None = None,
        after: int = 0,
        times: int | None = 1,
        seconds: float | None = None,
    ) -> Fault:
        """
        Keep a request, or a reply, until ``fault.release()`` or for ``seconds``.

        What follows on the same connection in the same direction waits behind it. A held request reaches the
        server even if its client has hung up meanwhile.
        """
        return self._add(request_of, reply_of, after=after, times=times, held=True, seconds=seconds)

    def delay(self, seconds: float, *, request_of: Match = anything) -> Fault:
        """Add latency to each matching request from now on."""
        return self.hold(request_of=request_of, times=None, seconds=seconds)

    # -- faults of the whole line

    def cut_all(self) -> None:
        """Cut every connection there is now. New ones are served."""
        self._do(self._cut_links)

    def black_hole(self) -> None:
        """Accept and read as before, pass nothing on, in either direction, on old and new connections."""
        self._do(lambda: setattr(self, "_black_hole", True))

    def stop_accepting(self) -> None:
        """Let new connections wait in a queue that is full. Those there are go on."""
        self._do(self._fill_queue)

    def refuse(self) -> None:
        """Refuse new connections. Those there are go on; ``cut_all`` ends them."""
        self._do(self._stop_listening)

    def heal(self) -> None:
        """
        End every fault: held frames go on, new connections are served.

        A connection that has lost bytes is cut, since TCP never loses some and goes on. So is one that was
        waiting in the queue of ``stop_accepting``.
        """
        self._do(self._heal)

    # -- inner works: everything below runs in the proxy's thread, except _bind, _do and _add

    def _do(self, action: Callable[[], T]) -> T:
        """Run ``action`` between two steps of the loop, and return when it has run."""

        async def run() -> T:
            return action()

        assert self._loop is not None, "the proxy was not entered"
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_S)

    def _add(self, request_of: Match | None, reply_of: Match | None, **how: Any) -> Fault:
        match = request_of or reply_of
        if match is None or (request_of and reply_of):
            raise TypeError("say either request_of or reply_of")
        assert self._loop is not None, "the proxy was not entered"
        side: Side = "request" if request_of else "reply"
        fault = Fault(side=side, matches=_predicate(match), _loop=self._loop, **how)
        self._do(lambda: self._faults.append(fault))
        return fault

    def _bind(self) -> socket.socket:
        """A socket that has the address but does not listen: connecting to it is refused."""
        listener = socket.socket(socket.AF_INET if self._tcp else socket.AF_UNIX)
        listener.setblocking(False)
        if isinstance(self._address, str):
            Path(self._address).unlink(missing_ok=True)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._address)
        self._address = listener.getsockname()
        return listener

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listen()
        self._ready.set()
        await self._stop.wait()
        self._loop.remove_reader(self._listener)
        self._unplug()
        tasks = [link.task for link in self._links if link.task]
        self._cut_links()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self) -> None:
        assert self._loop is not None
        self._listener.listen(256)
        self._accepting = True
        self._loop.add_reader(self._listener, self._accept)

    def _stop_listening(self) -> None:
        assert self._loop is not None
        self._accepting = False
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._unplug()
        self._listener = self._bind()

    def _fill_queue(self) -> None:
        """A queue of length 0 has one place on Linux, which the plug takes, if nobody has it already."""
        assert self._loop is not None
        self._accepting = False
        self._loop.remove_reader(self._listener)
        self._listener.listen(0)
        self._unplug()
        self._plug = socket.socket(self._listener.family)
        self._plug.setblocking(False)
        self._plug.connect_ex(self._address)

    def _unplug(self) -> None:
        if self._plug is not None:
            self._plug.close()
            self._plug = None

    def _cut_links(self) -> None:
        for link in self._links:
            link.cut()

    def _heal(self) -> None:
        for fault in self._faults:
            fault._gate.set()
        self._faults.clear()
        self._black_hole = False
        for link in self._links:
            if link.lossy:
                link.cut()
        if not self._accepting:
            self._stop_listening()
            self._listen()

    def _accept(self) -> None:
        assert self._loop is not None
        try:
            client, _ = self._listener.accept()
        except OSError:  # it hung up again
            return
        server = socket.socket(socket.AF_UNIX if isinstance(self._upstream, str) else socket.AF_INET)
        for end in (client, server):
            end.setblocking(False)
            if end.family != socket.AF_UNIX:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(len(self._links) + 1, client, server)
        self._links.append(link)
        link.task = self._loop.create_task(self._serve(link))
        link.task.add_done_callback(lambda _: link.close())  # a task cancelled early runs no finally

    async def _serve(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(link.server, self._upstream)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, link.client, link.server, "request"))
                both.create_task(self._pump(link, link.server, link.client, "reply"))
        except* (_Hangup, OSError):
            pass
        except* Exception as group:  # a predicate's, told by close()
            self._error = self._error or group

    async def _pump(self, link: _Link, source: socket.socket, target: socket.socket, side: Side) -> None:
        """Carry one direction until its source ends."""
        loop = asyncio.get_running_loop()
        meet = self._meet_request if side == "request" else self._meet_reply
        data = bytearray()
        while chunk := await loop.sock_recv(source, _CHUNK):
            data += chunk
            start, ready = 0, bytearray()
            while (end := frame_end(data, start)) is not None:
                frame, start = bytes(data[start:end]), end
                fault = meet(link, frame)
                if self._lost(link, side):
                    continue
                if fault is None:
                    ready += frame
                    continue
                await _send(target, ready)
                ready = bytearray()
                await fault._linger()
                if self._lost(link, side):
                    continue
                await _send(target, frame[: fault.keep])
                if fault.then == "cut":
                    raise _Hangup
                link.silent = link.silent or fault.then == "silence"
                link.lossy = link.lossy or link.silent
            del data[:start]
            await _send(target, ready)
        if not self._lost(link, side):
            await _send(target, data)  # a source that ends in mid-frame is passed on as it is
        if side == "reply":
            raise _Hangup
        target.shutdown(socket.SHUT_WR)  # it may still answer what it got, and that is counted

    def _lost(self, link: _Link, side: Side) -> bool:
        lost = self._black_hole or (side == "reply" and link.silent)
        link.lossy = link.lossy or lost
        return lost

    def _meet_request(self, link: _Link, frame: bytes) -> Fault | None:
        command = read_command(frame)
        link.commands += 1
        self._log.append(Seen(link.number, command[:_LOGGED_ARGS]))
        link.pending.append(command)
        return self._catching("request", command)

    def _meet_reply(self, link: _Link, frame: bytes) -> Fault | None:
        if frame.startswith(b">"):
            return None
        link.replies += 1
        command = link.pending.popleft() if link.pending else ()  # a greeting such as "-ERR max clients"
        return self._catching("reply", command)

    def _catching(self, side: Side, command: Command) -> Fault | None:
        if self._black_hole:  # nothing passes, so there is nothing to catch
            return None
        return next((fault for fault in self._faults if fault.side == side and fault._catches(command)), None)


async def _send(target: socket.socket, data: bytes | bytearray) -> None:
    """Sending nothing is not nothing: to a client that is gone it fails, and would end the link."""
    if data:
        await asyncio.get_running_loop().sock_sendall(target, data)
