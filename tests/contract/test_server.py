"""Server: which queues there are, and many queues' numbers at once."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest

from boundq import ConfigError, DataError, Queue, Stats, Unavailable
from boundq import Server as Boundq
from tests._servers import Server, wait_until
from tests.conftest import FreshServer, NewProxy


@pytest.fixture
def names(any_server: Server, queue_name: str) -> Iterator[list[str]]:
    """Seven queues that hold no job, one, two, …"""
    made = [f"{queue_name}.{number}" for number in range(7)]
    for number, name in enumerate(made):
        queue = Queue(name, any_server.url, max_jobs=10)
        queue.stats()
        queue.enqueue_many([b"x"] * number)
    return made


@pytest.mark.everywhere
def test_queues_finds_all_and_stats_reads_them(any_server: Server, names: list[str]) -> None:
    """Each queue is found, and its numbers are those that it gives by itself."""
    server = Boundq(any_server.url)
    assert set(names) <= set(server.queues())
    assert {name for found in server.walk() for name in found} >= set(names)
    found = server.stats(names)
    assert list(found) == names
    for number, name in enumerate(names):
        one = found[name]
        assert isinstance(one, Stats)
        assert one.jobs == number
        assert one.at > 0
        alone = server.queue(name).stats()
        assert alone.at >= one.at
        assert (alone.name, alone.jobs, alone.admitted) == (name, number, number)
    assert server.stats([]) == {}


def test_stats_of_many_asks_for_each_once(any_server: Server, names: list[str], proxy: NewProxy) -> None:
    """A look costs the server one command a queue, however many jobs it holds."""
    line = proxy(any_server)
    server = Boundq(line.url)
    server.stats(names)
    before = line.count("EVALSHA")
    server.stats(names)
    assert line.count("EVALSHA") - before == len(names)


@pytest.mark.everywhere
def test_what_is_wrong_with_one_queue_is_not_the_others_(any_server: Server, names: list[str]) -> None:
    """No such queue, a key of a foreign type, a state that somebody has edited: an error in its place, and no more."""
    missing, typed, edited = f"{names[0]}.missing", names[1], names[2]
    for key in (f"boundq:{{{typed}}}:jobs", f"boundq:{{{edited}}}:x"):
        any_server.cli("DEL", key)
    any_server.cli("SET", f"boundq:{{{typed}}}:jobs", "a string")
    any_server.cli("HSET", f"boundq:{{{edited}}}:state", "acked", "no number")
    try:
        for order in ([missing, *names], [*names, missing], [typed, edited]):
            found = Boundq(any_server.url).stats(order)
            assert list(found) == order
            for name, one in found.items():
                reason = {missing: "missing", typed: "wrong_type", edited: "undecodable"}.get(name)
                if reason is None:
                    assert isinstance(one, Stats)
                else:
                    assert isinstance(one, DataError)
                    assert one.reason == reason
    finally:
        any_server.cli("DEL", f"boundq:{{{typed}}}:jobs")
    with pytest.raises(ConfigError, match="queue name"):
        Boundq(any_server.url).stats(["a{b}"])


@pytest.mark.everywhere
def test_scripts_that_are_forgotten(any_server: Server, names: list[str]) -> None:
    """A server that was restarted, or flushed, is taught the script again."""
    server = Boundq(any_server.url)
    server.stats(names)
    any_server.cli("SCRIPT", "FLUSH")
    assert all(isinstance(one, Stats) for one in server.stats(names).values())


def test_a_queue_that_one_may_not_read(fresh_server: FreshServer) -> None:
    """The others are shown; where nothing may be asked about the server, it says nothing."""
    server = fresh_server()
    for name in ("mine", "theirs", "ours"):
        Queue(name, server.url).enqueue_bytes(b"x")
    server.cli("ACL", "SETUSER", "ada", "on", ">pw", "~boundq:{mine}:*", "~boundq:{ours}:*", "+@all", "-info")
    url = server.url.replace("unix://", "unix://ada:pw@")
    found = Boundq(url).stats(["theirs", "mine", "ours"])
    denied = found["theirs"]
    assert isinstance(denied, Unavailable)
    assert denied.reason == "no_permission"
    assert isinstance(found["mine"], Stats)
    assert isinstance(found["ours"], Stats)
    assert Boundq(url).info("memory") == {}


def test_a_cluster(fresh_server: FreshServer) -> None:
    """Queues of different slots are read through one connection."""
    server = fresh_server(cluster_enabled="yes")
    server.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_until(lambda: b"cluster_state:ok" in server.cli("CLUSTER", "INFO"), "the cluster")
    names = [f"q{number}" for number in range(5)]
    for name in names:
        Queue(name, server.tcp_url).enqueue_bytes(b"x")
    found = Boundq(server.tcp_url).stats(names)
    assert [one.jobs for one in found.values() if isinstance(one, Stats)] == [1] * 5
    assert Boundq(server.tcp_url).queues() == names


def test_no_answer_is_an_error_without_a_queue(fresh_server: FreshServer) -> None:
    """The error speaks of the server; nothing is said of jobs."""
    server = fresh_server()
    Queue("q", server.url).enqueue_bytes(b"x")
    server.kill()
    with pytest.raises(Unavailable) as raised:
        Boundq(server.url, deadline=0.3).stats(["q"])
    assert "queue" not in str(raised.value)
    assert "stored" not in str(raised.value)


def test_through_a_client_of_the_user_s() -> None:
    """A client that has to do the talking itself (fakeredis) gives the same, errors in their places too."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    for number, name in enumerate(("ada", "bob", "eve")):
        Queue(name, client).enqueue_many([b"x"] * (number + 1))
    client.delete("boundq:{bob}:jobs")
    client.set("boundq:{bob}:jobs", "a string")
    assert Boundq(client).queues() == ["ada", "bob", "eve"]
    found = Boundq(client).stats(["ada", "nosuch", "bob", "eve"])
    assert [type(one) for one in found.values()] == [Stats, DataError, DataError, Stats]
    assert [one.jobs for one in found.values() if isinstance(one, Stats)] == [1, 3]
