"""The rules that ``boundq acl`` prints, on each server: a role can do its work, and nothing else (R-146)."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from boundq import AsyncQueue, Limits, Queue, QueueFull, QueueSealed, Unavailable, Worker
from boundq._keys import PARTS
from boundq._ops.acl import ROLES, rules
from boundq.errors import ConfigError
from tests._servers import Kind, Server, wait_until
from tests.conftest import FreshServer

NAME = "emails"
OTHER = "reports"
# Fields of `state` that say who is there, and who waits.
PRODUCER = re.compile(rb"p\d+|producer|gate")


class House:
    """A server with a queue of ours and one of others, and users made by what ``boundq acl`` prints."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.owner = Queue(NAME, server.url, max_jobs=20)
        self.other = Queue(OTHER, server.url)
        self.other.enqueue_bytes(b"theirs")

    def admit(self, role: str, *options: str) -> str:
        """Make the user; its URL."""
        words = [
            sys.executable,
            "-m",
            "boundq",
            "acl",
            role,
            "--queue",
            NAME,
            "--user",
            f"a-{role}",
            "--json",
            *options,
        ]
        said = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)
        command = shlex.split(said["command"])
        assert command == ["ACL", "SETUSER", f"a-{role}", *said["rules"]]
        self.server.cli("ACL", "SETUSER", f"a-{role}", ">first")
        self.server.cli(*command)  # keeps the password
        return f"unix://a-{role}:first@{self.server.socket_path}"

    def data(self, name: str = NAME) -> dict[str, Any]:
        """Every key of a queue, but for what says who waits and when somebody looked."""
        found = {part: self.server.cli("DUMP", f"boundq:{{{name}}}:{part}") for part in PARTS}
        state = self.server.cli("HGETALL", f"boundq:{{{name}}}:state")
        found["state"] = dict(zip(state[::2], state[1::2], strict=True))
        found["state"] = {field: value for field, value in found["state"].items() if not PRODUCER.fullmatch(field)}
        return found


@pytest.fixture
def house(server_kind: Kind, fresh_server: FreshServer) -> House:
    return House(fresh_server(server_kind))


def denied(call: Callable[[], object]) -> None:
    with pytest.raises(Unavailable) as raised:
        call()
    assert raised.value.reason == "no_permission", raised.value


def denied_commands(url: str, *lines: str) -> None:
    client = redis.Redis.from_url(url)
    for line in lines:
        with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)permission|can't run|not allowed"):
            client.execute_command(*line.split())
    client.close()


ANYBODY = (
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "CONFIG SET maxmemory 1",
    "EVAL return(1) 0",
    "FCALL f 0",
    "ACL LIST",
    "CLIENT LIST",
    "SHUTDOWN NOSAVE",
    f"EVALSHA 0000000000000000000000000000000000000000 1 boundq:{{{OTHER}}}:state",
    f"HSET boundq:{{{OTHER}}}:state bytes 0",
    "SET other 1",
)
"""What no role of one queue may do."""


def test_producer_can_enqueue_whatever_way(house: House) -> None:
    """Plain, many, with every option, waiting in line, duplicates; and it is told why it is refused."""
    queue = Queue(NAME, house.admit("producer"), max_jobs=20)
    assert queue.enqueue_bytes(b"first").jobs == 1
    assert all(result.ok for result in queue.enqueue_many([b"a", b"b"], priority="high"))
    assert all(result.ok for result in queue.enqueue_many([b"c", b"d"], atomic=True))
    first = queue.enqueue_bytes(b"e", unique="k", unique_for=0.001, headers={"a": "b"}, expires=3600)
    assert queue.enqueue_bytes(b"e", unique="k").id == first.id
    queue.enqueue_bytes(b"later", delay=3600)
    queue.named("send").enqueue(1, to="x")
    queue.enqueue_bytes(b"short", expires=0.001)
    while (outcome := queue.try_enqueue_bytes(b"more")).__class__.__name__ == "Receipt":
        pass
    assert outcome.reason == "jobs"
    # It cannot read a job, so it does not know how old the oldest is.
    assert outcome.oldest_age is None
    with pytest.raises(QueueFull):
        queue.enqueue_bytes(b"x", unique="another", delay=1)
    with pytest.raises(QueueFull):
        queue.enqueue_bytes(b"x", wait=0.05)
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(queue.enqueue_bytes(b"in line", wait=30)))
    waiting.start()
    turn = f"boundq:{{{NAME}}}:state"
    wait_until(lambda: house.server.cli("HGET", turn, "turn"), "somebody who waits")
    for lease in house.owner.claim(3):
        lease.ack()
    waiting.join()
    assert len(got) == 1
    house.owner.seal("me")
    with pytest.raises(QueueSealed):
        queue.enqueue_bytes(b"x")
    assert house.owner.recount().ok


def test_producer_of_asyncio(house: House) -> None:
    """The other shell needs no more than this one, merged calls and refusals included."""
    url = house.admit("producer")

    async def main() -> Counter[str]:
        queue = AsyncQueue(NAME, url)
        calls = (queue.try_enqueue_bytes(b"x", unique=str(number % 25)) for number in range(30))
        outcomes = Counter(type(outcome).__name__ for outcome in await asyncio.gather(*calls))
        await queue.close()
        return outcomes

    house.owner.stats()  # makes the queue, of 20 jobs
    assert asyncio.run(main())["Receipt"] >= 20
    assert house.owner.stats().jobs == 20


def test_producer_can_do_nothing_else(house: House) -> None:
    """It cannot claim, ack, read, delete, steer, run Lua of its own or touch another queue; nothing is changed."""
    url = house.admit("producer")
    queue = Queue(NAME, url)
    for _ in range(3):
        queue.enqueue_bytes(b"secret")
    (lease,) = house.owner.claim()
    stolen = Queue(NAME, url)
    before, theirs = house.data(), house.data(OTHER)
    for call in (
        stolen.claim,
        lambda: stolen.settle(acks=[lease]),
        lambda: stolen.settle(buries=[(lease, "a", "b")]),
        lambda: stolen.extend([lease]),
        lambda: stolen.get(lease.id),
        stolen.peek,
        lambda: stolen.peek("dead"),
        lambda: stolen.cancel(lease.id),
        stolen.purge,
        stolen.recount,
        stolen.pause,
        lambda: stolen.seal("x"),
        lambda: stolen.configure(Limits()),
        lambda: Queue(OTHER, url).enqueue_bytes(b"x"),
        lambda: Queue("new", url).enqueue_bytes(b"x"),
    ):
        denied(call)
    key = f"boundq:{{{NAME}}}"
    denied_commands(
        url,
        *ANYBODY,
        "SCRIPT LOAD return(1)",
        *(f"{word} {key}:jobs {lease.id}" for word in ("HGET", "HMGET", "HDEL")),
        *(f"{word} {key}:jobs" for word in ("HGETALL", "HVALS", "HKEYS", "HRANDFIELD", "DUMP", "DEL", "UNLINK")),
        f"DEL {key}:state",
        f"HDEL {key}:state format",
        f"ZREM {key}:leases {lease.id}",
        f"ZADD {key}:leases 1 x",
        f"ZRANGE {key}:dead 0 -1",
        f"HGETALL {key}:errors",
        f"XRANGE {key}:events - +",
    )
    assert (house.data(), house.data(OTHER)) == (before, theirs)
    lease.ack()


def test_worker_can_run_jobs(house: House) -> None:
    """It claims, acks, retries, buries and enqueues, also into a server that has forgotten all scripts."""
    queue = Queue(NAME, house.admit("worker"))
    seen = []

    @queue.task(retries=0)
    def note(word: str) -> None:
        seen.append(word)
        if word == "bad":
            raise ValueError(word)
        if word == "more":
            note.enqueue("from inside")

    for word in ("good", "bad", "more"):
        note.enqueue(word)
    house.owner.named("nosuch").enqueue()
    house.owner.enqueue_bytes(b"x", unique="u", expires=0.001)
    house.server.cli("SCRIPT", "FLUSH")
    Worker([queue], threads=2, burst=True).run()
    assert {"good", "bad", "more", "from inside"} <= set(seen)
    stats = house.owner.stats()
    assert (stats.jobs, stats.imbalance) == (0, 0)
    assert stats.dead >= 1


def test_worker_can_do_nothing_else(house: House) -> None:
    """It cannot pause, seal or change limits, nor touch another queue or the server."""
    url = house.admit("worker")
    queue = Queue(NAME, url)
    queue.enqueue_bytes(b"x")
    before = house.data()
    for call in (
        queue.pause,
        queue.seal,
        lambda: queue.configure(Limits()),
        lambda: Queue(OTHER, url).claim(),
        lambda: Queue(OTHER, url).enqueue_bytes(b"x"),
    ):
        denied(call)
    denied_commands(url, *ANYBODY)
    assert house.data() == before


def test_inspector_can_look(house: House) -> None:
    """All that looks works, at the scripts that somebody has loaded."""
    house.owner.enqueue_many([b"a", b"b"])
    house.owner.enqueue_bytes(b"later", delay=3600)
    (lease,) = house.owner.claim()
    lease.bury("why", "text")
    queue = Queue(NAME, house.admit("inspector"), create=False)
    assert queue.stats().jobs == 2
    assert [job.payload for job in queue.peek().jobs] == [b"b"]
    (page,) = queue.peek("dead").jobs
    assert (page.reason, page.error) == ("why", "text")
    assert [job.payload for job in queue.peek("scheduled").jobs] == [b"later"]
    assert queue.get(lease.id) is not None
    assert queue.position(queue.peek().jobs[0].id) == 0
    assert queue.recount().ok


def test_inspector_cannot_write(house: House) -> None:
    """Nothing that changes a queue works, by script or by command."""
    url = house.admit("inspector")
    house.owner.enqueue_many([b"a", b"b"])
    (lease,) = house.owner.claim()
    queue = Queue(NAME, url)
    before = house.data()
    for call in (
        lambda: queue.enqueue_bytes(b"x"),
        lambda: queue.enqueue_bytes(b"x", delay=1),
        queue.claim,
        lambda: queue.settle(acks=[lease]),
        lambda: queue.settle(retries=[(lease, 1)]),
        lambda: queue.extend([lease]),
        lambda: queue.cancel(lease.id),
        queue.purge,
        queue.pause,
        queue.seal,
        lambda: queue.configure(Limits()),
        lambda: Queue(OTHER, url).stats(),
    ):
        denied(call)
    key = f"boundq:{{{NAME}}}"
    denied_commands(
        url,
        *ANYBODY,
        "SCRIPT LOAD return(1)",
        f"HSET {key}:jobs 1 x",
        f"HDEL {key}:jobs {lease.id}",
        f"DEL {key}:state",
        f"ZADD {key}:leases 1 x",
        f"RPUSH {key}:wake 1",
        f"BLPOP {key}:wake 1",
        f"HGET boundq:{{{OTHER}}}:jobs 8",
    )
    assert house.data() == before


def test_admin_can_do_everything_with_the_queue(house: House) -> None:
    """Every method of a queue; and nothing with another one."""
    url = house.admit("admin")
    queue = Queue(NAME, url)
    house.server.cli("SCRIPT", "FLUSH")
    for _ in range(4):
        queue.enqueue_bytes(b"x")
    leases = queue.claim(4)
    leases[0].ack()
    leases[1].retry(0)
    leases[2].release()
    leases[3].bury("a", "b")
    assert queue.pause("me")
    assert queue.resume("me")
    assert queue.seal("me")
    assert queue.unseal("me")
    assert queue.configure(Limits(max_jobs=5))
    assert queue.cancel(queue.peek("dead").jobs[0].id)
    assert queue.recount(repair=True).ok
    assert queue.purge("ready", "scheduled", "active", "dead") == 2
    denied(lambda: Queue(OTHER, url).stats())
    denied_commands(url, *ANYBODY)


def test_who_may_not_load_scripts_waits_for_one_who_may(house: House) -> None:
    """After a flush a producer's call stands until a worker has called; with nobody there it ends as not sent."""
    producer = Queue(NAME, house.admit("producer"))
    worker = Queue(NAME, house.admit("worker"))
    producer.enqueue_bytes(b"before")
    house.server.cli("SCRIPT", "FLUSH")
    with pytest.raises(Unavailable, match="load boundq's scripts") as raised:
        producer.enqueue_bytes(b"alone", deadline=0.5)
    assert (raised.value.outcome, raised.value.reason) == ("not_sent", "no_permission")
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(producer.enqueue_bytes(b"waits", deadline=60)))
    waiting.start()
    calls = int(house.server.info("stats")["total_commands_processed"])
    wait_until(
        lambda: int(house.server.info("stats")["total_commands_processed"]) > calls + 8, "a few calls of the producer"
    )
    assert [lease.payload for lease in worker.claim()] == [b"before"]
    waiting.join()
    assert len(got) == 1
    free = Queue(NAME, house.admit("producer", "--may-load"))
    house.server.cli("SCRIPT", "FLUSH")
    assert free.enqueue_bytes(b"by itself")


@pytest.mark.parametrize("role", ROLES)
def test_all_queues(role: str, server_kind: Kind, fresh_server: FreshServer) -> None:
    """Without names a rule is for every queue, and still for nothing else."""
    server = fresh_server(server_kind)
    server.cli("ACL", "SETUSER", "u", ">p", *rules(role, may_load=True))
    url = f"unix://u:p@{server.socket_path}"
    for name in (NAME, OTHER):
        if role == "inspector":
            Queue(name, server.url).enqueue_bytes(b"x")
            assert Queue(name, url).stats().jobs == 1
        else:
            assert Queue(name, url).enqueue_bytes(b"x")
    denied_commands(url, "SET other 1", "GET other", "FLUSHALL")


def test_bad_names() -> None:
    """Neither a role nor a name that is none gets into a rule."""
    with pytest.raises(ConfigError, match="role"):
        rules("root", [NAME])
    for name in ("a b", "a}*", "*", "", "x\n"):
        with pytest.raises(ConfigError, match="queue name"):
            rules("producer", [name])
    for words in (["--queue", "a b"], ["--queue", "a", "--user", "x on >p"], [], ["--queue", "a", "--all"]):
        done = subprocess.run(
            [sys.executable, "-m", "boundq", "acl", "worker", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode in (2, 78)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
