"""A thread's connection to a target, and the exchange of calls over it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from typing import Any, ClassVar, Protocol, TypeVar

from boundq._attempt import Address, Send, attempt
from boundq._call import Answer, Both, Call, Command, Flow, Full, Pause, Request, Several, Wait
from boundq._connect import check_kind, is_foreign
from boundq._gate import GATE_SECONDS, Gate
from boundq._poll import Crowd
from boundq._retry import Attempts, ErrorReply, Lost, give_up_at
from boundq._session import Session
from boundq._target import Target
from boundq.errors import Unavailable
from boundq.sync._wire import Wire

R = TypeVar("R")
# After so many seconds without a word on a connection it is worth a look whether the server has hung up: before any
# call; before one that may simply be sent again.
IDLE_SECONDS, LOOK_SECONDS = 0.01, 0.25
_crowd = Crowd()  # of this process


class Once(Protocol):
    """One attempt at a call."""

    def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        """As `attempt`; or `Lost`."""

    def express(self, data: bytes, deadline: float) -> list[Any] | None:
        """See `Link.express`."""

    @property
    def withdrawable(self) -> bool:
        """Whether `withdraw` can be relied upon."""

    def withdraw(self) -> None:
        """See `Link.withdraw`."""

    def close(self) -> None: ...


class Link:
    """
    One thread's way to a target. Calls go out one at a time.

    Args:
        target: Where to.
        gate: The process's, before this target.
    """

    def __init__(self, target: Target, gate: Gate) -> None:
        self._gate = gate
        self._once: Once = ClientOnce(target) if is_foreign(target) else WireOnce(target)
        self._sessions: dict[str, Session] = {}

    def session(self, queue: str) -> Session:
        """What this thread knows of a queue."""
        session = self._sessions.get(queue)
        if session is None:
            session = self._sessions[queue] = Session()
        return session

    def express(self, data: bytes, deadline: float) -> list[Any] | None:
        """
        One attempt at a call that may be sent again: a write, and the script's reply.

        Returns:
            None where there is none: the way is not clear, or the server answered with an error; nothing was done.

        Raises:
            Lost: Give it to `drive`, with a flow that makes the same call.
        """
        return None if self._gate.troubled else self._once.express(data, give_up_at(deadline))

    def drive(self, queue: str, flow: Flow[R], seconds: float, *, each: bool = False, failed: Lost | None = None) -> R:
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
                    answer = self._answer(queue, call, deadline, first)
                except Exception as error:  # the flow may know what to do; it raises it where it does not
                    call = flow.throw(error)
                else:
                    call = flow.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        except Full as full:  # of a call that the server should let through
            raise Unavailable(queue, "not_sent", "memory", str(full.__cause__)) from full

    def _answer(self, queue: str, call: Request | Pause, deadline: float, failed: Lost | None) -> Answer:
        if isinstance(call, Pause):
            time.sleep(call.seconds)
            return Answer(None, resent=False)
        return self._exchange(queue, call, deadline, failed)

    def _exchange(self, queue: str, call: Request, deadline: float, failed: Lost | None) -> Answer:
        attempts = Attempts(queue, call, deadline)
        while True:
            try:
                if failed is not None:
                    raise failed
                if self._gate.open():
                    reply, trouble = self._once.once(call, attempts.give_up_at)
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
            time.sleep(pause)

    @property
    def withdrawable(self) -> bool:
        """Whether `withdraw` can be relied upon, as far as is known: not before the first call."""
        return self._once.withdrawable

    def withdraw(self) -> None:
        """
        From another thread than the one that waits: let the server do nothing that it has not done by now.

        That thread gets the answer where there is one, else `Withdrawn`.
        """
        self._once.withdraw()

    def close(self) -> None:
        """Hang up; the next call connects anew."""
        self._once.close()


class WireOnce:
    """Attempts over a connection of our own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address: Address | None = None
        self._sentinels = deque(target.nodes)
        self._wire: Wire | None = None

    def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        if self._wire is not None and self._wire.idle(IDLE_SECONDS) and self._wire.dead:
            self.close()
        replies: list[Any] = []
        if self._wire is not None and isinstance(call, Call):
            replies = self._exchange(self._wire, call.packed(), 2 if call.block else 1, deadline)
            if not any(isinstance(reply, ErrorReply) for reply in replies):
                return replies[-1], None  # nearly always this is all there is to it
        steps = attempt(call)
        try:
            send = next(steps)
            if replies:
                send = steps.send(replies)
            while True:
                send = steps.send(self._write(send, deadline))
        except StopIteration as done:
            answer: tuple[Any, ErrorReply | None] = done.value
            return answer
        except ErrorReply as reply:
            if reply.elsewhere:
                self.close()
            raise

    def express(self, data: bytes, deadline: float) -> list[Any] | None:
        wire = self._wire
        if wire is None or (wire.idle(LOOK_SECONDS) and wire.dead):
            return None
        alone = _crowd.enter()
        try:
            reply = wire.exchange(data, 1, deadline, poll=alone and not _crowd.seen)[0]
        except BaseException:  # as in `_exchange`
            self.close()
            raise
        finally:
            if alone:
                _crowd.leave()
        return None if isinstance(reply, ErrorReply) else reply

    def _write(self, send: Send, deadline: float) -> list[Any]:
        if send.once:
            wire = Wire(self._target, self._node(send.once), deadline)
            try:
                return wire.exchange(send.data, send.replies, deadline)
            finally:
                wire.close()
        if send.home:
            self.close()
            self._address = self._node(send.home)
        return self._exchange(self._wire or self._connect(deadline), send.data, send.replies, deadline)

    def _exchange(self, wire: Wire, data: bytes, count: int, deadline: float) -> list[Any]:
        try:
            return wire.exchange(data, count, deadline)
        except BaseException:  # an interrupt too: an answer is still to come on this connection
            self.close()
            raise

    def _node(self, address: Address) -> Address:
        return address[0] or (self._address or self._target.nodes[0])[0], address[1]

    def _connect(self, deadline: float) -> Wire:
        address = self._address
        if self._target.kind == "sentinel":
            address = _primary(self._target, self._sentinels, deadline)
        elif self._target.kind == "cluster" and address is None:
            address = self._target.nodes[int(time.monotonic() * 1000) % len(self._target.nodes)]
        elif self._target.kind == "client" and hasattr(self._target.client.connection_pool, "sentinel_manager"):
            address = self._target.client.connection_pool.get_master_address()
        try:
            self._wire = Wire(self._target, address, deadline)
        except Lost:
            self._address = None  # the cluster node we knew is gone: ask another
            raise
        return self._wire

    @property
    def withdrawable(self) -> bool:
        return self._wire is not None and self._wire.withdrawable

    def withdraw(self) -> None:
        if (wire := self._wire) is not None:
            wire.withdraw()

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


class ClientOnce:
    """Attempts through the user's own client, where it is none of redis-py's real ones: fakeredis."""

    def __init__(self, target: Target) -> None:
        self._client = target.client
        check_kind(target.client, is_async=False)

    def once(self, call: Request, deadline: float) -> tuple[Any, ErrorReply | None]:
        import redis

        try:
            if isinstance(call, Both | Several):
                return [self._answer_or_error(one, deadline) for one in call.calls], None
            if isinstance(call, Wait):
                return self._client.execute_command("BLPOP", *call.block), None
            if isinstance(call, Command):
                return self._client.execute_command(*call.words), None
            if call.block:
                key, seconds = call.block
                self._client.execute_command("BLPOP", key, seconds)
            rest = (len(call.keys), *call.keys, *call.args)
            try:
                reply = self._client.execute_command("EVALSHA", call.script.plain_sha, *rest)
            except redis.exceptions.NoScriptError:
                self._client.execute_command("SCRIPT LOAD", call.script.plain)
                reply = self._client.execute_command("EVALSHA", call.script.plain_sha, *rest)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Lost("reset", True, str(error)) from error
        except redis.ResponseError as error:
            raise ErrorReply(str(error)) from error
        return reply, None

    def _answer_or_error(self, call: Call, deadline: float) -> Any:
        try:
            return self.once(call, deadline)[0]
        except ErrorReply as error:
            return error

    def express(self, data: bytes, deadline: float) -> list[Any] | None:
        return None

    withdrawable = False

    def withdraw(self) -> None:
        """There is no telling what the client does."""

    def close(self) -> None:
        """The client is the user's."""


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _primary(target: Target, sentinels: deque[Address], deadline: float) -> Address:
    """
    Whom the sentinels name as the primary. They are asked in turn, first the one that answered last time.

    Each gets a share of the time: one that is mute, on a machine that died with the primary, leaves some for the others
    and for connecting.
    """
    from redis import Redis, exceptions
    from redis import connection as connections
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    options = connections.parse_url(target.url)  # type: ignore[no-untyped-call]  # redis-py's
    kwargs = {"password": options.get("sentinel_password"), "retry": Retry(NoBackoff(), 0)}
    if target.url.startswith("rediss"):
        kwargs["ssl"] = True
    error: Exception | None = None
    for unasked in range(len(sentinels), 0, -1):
        seconds = _left(deadline) / (unasked + 1)
        kwargs |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        asked: Any = Sentinel([sentinels[0]], sentinel_kwargs=kwargs)  # type: ignore[no-untyped-call]  # likewise
        try:
            address: Address = asked.discover_master(target.service)
            return address
        except exceptions.RedisError as failed:
            error = failed
            sentinels.rotate(-1)
        finally:
            client: Redis = asked.sentinels[0]
            client.close()
    raise Lost("refused", False, f"no sentinel names a primary {target.service!r}") from error


class Hub:
    """
    All threads' links to one target, in this process. Queues of one target share them: a thread has one connection
    to it, however many queues it uses.

    Attributes:
        gate: Before the target.
    """

    _hubs: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], Hub]] = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, target: Target) -> None:
        self._target = target
        self.gate = Gate(GATE_SECONDS, failures=2)
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

    def link(self) -> Link:
        """This thread's link."""
        link: Link | None = getattr(self._local, "link", None)
        if link is None:
            link = self._local.link = Link(_started(self._target), self.gate)
            with self._lock:
                self._links.add(link)
        return link

    def close(self) -> None:
        """Hang up every thread's connection; a later call connects anew."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    def _forget(self) -> None:
        self._local = threading.local()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()

    @classmethod
    def _after_fork(cls) -> None:
        # A child must not speak on its parent's connections, nor number calls as its parent does.
        global _crowd
        _crowd = Crowd()
        cls._lock = threading.Lock()
        for hub in list(cls._hubs.values()):
            hub._forget()


def _started(target: Target) -> Target:
    """The target, with an embedded server started and in its place."""
    if target.kind != "embedded":
        return target
    from boundq._embedded import resolve

    return Target("single", resolve(target.url))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Hub._after_fork)
