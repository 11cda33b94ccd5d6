"""An event loop's connections to a target, and the exchange of calls over them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from boundq._attempt import Address, Send, attempt
from boundq._call import Answer, Both, Call, Command, Flow, Full, Pause, Request, Several, Wait
from boundq._connect import check_kind, is_foreign
from boundq._gate import GATE_SECONDS, Gate
from boundq._retry import Attempts, ErrorReply, Lost, give_up_at
from boundq._session import Session
from boundq._target import Target
from boundq.aio._wire import Tell, Wire, open_wire
from boundq.errors import Unavailable

R = TypeVar("R")


class Once(Protocol):
    """One attempt at a call."""

    async def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        """As `attempt`; or `Lost`."""

    def express(self, data: bytes, deadline: float, tell: Tell) -> bool:
        """See `Link.express`."""

    @property
    def closed(self) -> bool:
        """See `Link.closed`."""

    async def close(self) -> None: ...


class Link:
    """
    One event loop's way to a target. Any number of tasks may use it at once.

    Args:
        target: Where to.
        gate: The process's, before this target.
    """

    def __init__(self, target: Target, gate: Gate) -> None:
        self._gate = gate
        self._once: Once = ClientOnce(target) if is_foreign(target) else WireOnce(target)
        self._idle: dict[str, list[Session]] = {}

    @contextmanager
    def session(self, queue: str) -> Iterator[Session]:
        """What a producer knows of a queue, to oneself: its calls are numbered one after the other."""
        idle = self._idle.setdefault(queue, [])
        session = idle.pop() if idle else Session()
        try:
            yield session
        finally:
            idle.append(session)

    def express(self, data: bytes, deadline: float, tell: Tell) -> bool:
        """
        One attempt at a call that may be sent again: a write, and ``tell`` is called with the script's reply.

        An `ErrorReply`, as the one in the list, means that nothing was done. A `Lost` is to be given to `drive`, with a
        flow that makes the same call.

        Returns:
            Whether the way is clear; nothing was sent where it is not.
        """
        return not self._gate.troubled and self._once.express(data, give_up_at(deadline), tell)

    async def drive(
        self, queue: str, flow: Flow[R], seconds: float, *, each: bool = False, failed: Lost | None = None
    ) -> R:
        """
        Run a flow to its end.

        Args:
            queue: Its name, for errors.
            flow: What to do.
            seconds: For the whole flow, time spent waiting on a list apart; ``each``: for each of its calls.
            failed: How a first attempt at its first call went.
        """
        deadline = time.monotonic() + seconds
        try:
            call = next(flow)
            while True:
                if each or call.block:
                    deadline = time.monotonic() + seconds + (call.block[1] if call.block else 0)
                first, failed = failed, None
                try:
                    answer = await self._answer(queue, call, deadline, first)
                except Exception as error:  # the flow may know what to do; it raises it where it does not
                    call = flow.throw(error)
                else:
                    call = flow.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        except Full as full:  # of a call that the server should let through
            raise Unavailable(queue, "not_sent", "memory", str(full.__cause__)) from full

    async def _answer(self, queue: str, call: Request | Pause, deadline: float, failed: Lost | None) -> Answer:
        if isinstance(call, Pause):
            await asyncio.sleep(call.seconds)
            return Answer(None, resent=False)
        return await self._exchange(queue, call, deadline, failed)

    async def _exchange(self, queue: str, call: Request, deadline: float, failed: Lost | None) -> Answer:
        attempts = Attempts(queue, call, deadline)
        while True:
            try:
                if failed is not None:
                    raise failed
                if self._gate.open():
                    reply, trouble = await self._once.once(call, attempts.give_up_at)
                    self._gate.reopen()
                    return Answer(reply, attempts.resent, attempts.error_of(trouble) if trouble else None)
                pause = attempts.gate_is_shut(self._gate.wait, self._gate.reason)
            except Lost as lost:
                failed = None
                self._gate.close(lost.reason)
                pause = attempts.lost(lost)
            except ErrorReply as error:
                if error.transient:
                    self._gate.close(error.transient)
                pause = attempts.refused(error)
            if attempts.resent and isinstance(call, Call):
                call = attempts.call = call.resend()
            await asyncio.sleep(pause)

    @property
    def closed(self) -> bool:
        """Whether it has no open connection now."""
        return self._once.closed

    async def close(self) -> None:
        """Hang up; the next call connects anew."""
        await self._once.close()


class WireOnce:
    """Attempts over connections of our own: one that all share, and one for each task that waits on a list."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address: Address | None = None
        self._sentinels = deque(target.nodes)  # the one that answered last comes first
        self._shared: Wire | None = None
        self._waiting: list[Wire] = []  # idle ones, for those that wait
        self._all: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._opening = asyncio.Lock()

    async def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        steps = attempt(call)
        try:
            send = next(steps)
            while True:
                send = steps.send(await self._write(send, deadline))
        except StopIteration as done:
            answer: tuple[Any, ErrorReply | None] = done.value
            return answer
        except ErrorReply as reply:
            if reply.elsewhere:
                self._hang_up()
            raise

    def express(self, data: bytes, deadline: float, tell: Tell) -> bool:
        wire = self._shared
        if wire is None or wire.closed:
            return False
        wire.send(data, 1, deadline, tell, poll=True)
        return True

    async def _write(self, send: Send, deadline: float) -> list[Any]:
        if send.home:
            self._hang_up()
            self._address = self._node(send.home)
        if send.once:
            wire = await open_wire(self._target, self._node(send.once), _left(deadline))
        elif send.waits:
            wire = self._waiting.pop() if self._waiting else await self._open(deadline)
        else:
            wire = await self._get_shared(deadline)
        answered = False
        try:
            replies = await wire.exchange(send.data, send.replies, deadline)
            answered = True
            return replies
        finally:
            if send.once or (send.waits and not answered):
                wire.close()  # an answer that nobody wants is still to come
            elif send.waits and not wire.closed:
                self._waiting.append(wire)

    def _node(self, address: Address) -> Address:
        return address[0] or (self._address or self._target.nodes[0])[0], address[1]

    async def _get_shared(self, deadline: float) -> Wire:
        wire = self._shared
        if wire is None or wire.closed:
            try:
                async with asyncio.timeout(_left(deadline)), self._opening:
                    wire = self._shared
                    if wire is None or wire.closed:
                        wire = self._shared = await self._open(deadline)
            except TimeoutError as error:
                raise Lost("timeout", False, "another call is still connecting") from error
        return wire

    async def _open(self, deadline: float) -> Wire:
        self._waiting = [wire for wire in self._waiting if not wire.closed]
        address = self._address
        if self._target.kind == "sentinel":
            address = await _primary(self._target, self._sentinels, deadline)
        elif self._target.kind == "cluster" and address is None:
            address = self._target.nodes[int(time.monotonic() * 1000) % len(self._target.nodes)]
        try:
            wire = await open_wire(self._target, address, _left(deadline))
        except Lost:
            self._address = None  # the cluster node we knew is gone: ask another
            raise
        self._all.add(wire)
        return wire

    @property
    def closed(self) -> bool:
        return all(wire.closed for wire in self._all)

    def _hang_up(self) -> None:
        shared, self._shared = self._shared, None
        idle, self._waiting = self._waiting, []
        for wire in (shared, *idle):
            if wire is not None:
                wire.close()

    async def close(self) -> None:
        self._hang_up()
        for wire in list(self._all):
            wire.close()
        await asyncio.sleep(0)  # the transports close in the loop's next round


class ClientOnce:
    """Attempts through the user's own client, where it is none of redis-py's real ones: fakeredis."""

    def __init__(self, target: Target) -> None:
        self._client = target.client
        check_kind(target.client, is_async=True)

    async def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        import redis

        try:
            if isinstance(call, Both | Several):
                return [await self._answer_or_error(one, deadline) for one in call.calls], None
            if isinstance(call, Wait):
                return await self._do("BLPOP", *call.block), None
            if isinstance(call, Command):
                return await self._do(*call.words), None
            if call.block:
                key, seconds = call.block
                await self._do("BLPOP", key, seconds)
            rest = (len(call.keys), *call.keys, *call.args)
            try:
                reply = await self._do("EVALSHA", call.script.plain_sha, *rest)
            except redis.exceptions.NoScriptError:
                await self._do("SCRIPT LOAD", call.script.plain)
                reply = await self._do("EVALSHA", call.script.plain_sha, *rest)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Lost("reset", True, str(error)) from error
        except redis.ResponseError as error:
            raise ErrorReply(str(error)) from error
        return reply, None

    async def _answer_or_error(self, call: Call, deadline: float) -> Any:
        try:
            return (await self.once(call, deadline))[0]
        except ErrorReply as error:
            return error

    async def _do(self, *command: Any) -> Any:
        return await self._client.execute_command(*command)

    def express(self, data: bytes, deadline: float, tell: Tell) -> bool:
        return False

    closed = True  # none of ours

    async def close(self) -> None:
        """The client is the user's."""


async def _primary(target: Target, sentinels: deque[Address], deadline: float) -> Address:
    """As in `boundq.sync._link`."""
    from redis import exceptions
    from redis.asyncio import connection as connections
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    password = connections.parse_url(target.url).get("sentinel_password")
    kwargs = {"password": password, "retry": Retry(NoBackoff(), 0)}
    if target.url.startswith("rediss"):
        kwargs["ssl"] = True
    error: Exception | None = None
    nodes = list(sentinels)  # other tasks may be here too
    for place, node in enumerate(nodes):
        seconds = _left(deadline) / (len(nodes) - place + 1)
        kwargs |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        asked = Sentinel([node], sentinel_kwargs=kwargs)  # type: ignore[no-untyped-call]  # redis-py's
        try:
            address: Address = await asked.discover_master(target.service)
            return address
        except exceptions.RedisError as failed:
            error = failed
            sentinels.remove(node)
            sentinels.append(node)
        finally:
            await asked.sentinels[0].aclose()
    raise Lost("refused", False, f"no sentinel names a primary {target.service!r}") from error


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


class _Latest(NamedTuple):
    """The link that was asked for last, and for which loop: nearly always there is but one."""

    loop: Callable[[], asyncio.AbstractEventLoop | None]
    link: Link | None


class Hub:
    """All event loops' links to one target, in this process, whatever threads they run in; queues of one share them."""

    _hubs: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], Hub]] = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, target: Target) -> None:
        self._target = target
        self._gate = Gate(GATE_SECONDS, failures=2)
        self._forget()

    @classmethod
    def of(cls, target: Target) -> Hub:
        """The hub of this target."""
        key = (target.kind, target.url, target.nodes, target.service, id(target.client))
        with cls._lock:
            hub = cls._hubs.get(key)
            if hub is None:
                hub = cls._hubs[key] = cls(target)
            return hub

    def here(self) -> Link | None:
        """The running loop's link, if it has one by now."""
        loop, link = self._latest
        running = asyncio.get_running_loop()
        return link if loop() is running else self._links.get(running)

    async def link(self) -> Link:
        """The running loop's link."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            target = await loop.run_in_executor(None, _started, self._target) if self._embedded else self._target
            with self._lock:
                self._forget_ended()
                link = self._links.setdefault(loop, Link(target, self._gate))
        self._latest = _Latest(weakref.ref(loop), link)
        return link

    def _forget_ended(self) -> None:
        """Links hold on to their loops: who calls `asyncio.run` again and again would have more and more of both."""
        for loop, link in list(self._links.items()):
            if loop.is_closed() and link.closed:
                self._links.pop(loop, None)

    async def close(self) -> None:
        """Hang up the running loop's connections; a later call connects anew."""
        link = self._links.get(asyncio.get_running_loop())
        if link is not None:
            await link.close()

    @property
    def _embedded(self) -> bool:
        return self._target.kind == "embedded"

    def _forget(self) -> None:
        self._latest = _Latest(lambda: None, None)
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = weakref.WeakKeyDictionary()

    @classmethod
    def _after_fork(cls) -> None:
        cls._lock = threading.Lock()
        for hub in list(cls._hubs.values()):
            hub._forget()


def _started(target: Target) -> Target:
    """The target, with an embedded server started and in its place."""
    from boundq._embedded import resolve

    return Target("single", resolve(target.url))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Hub._after_fork)
