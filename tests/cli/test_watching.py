"""``ls`` and ``stats``: rates, forecasts and warnings, once and again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from boundq import Limits, Queue
from tests._servers import Server
from tests.cli._screen import Screen
from tests.conftest import FreshServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(server: Server) -> dict[str, str]:
    return {**os.environ, "BOUNDQ_URL": server.url, "NO_COLOR": "1"}


@pytest.fixture
def run(any_server: Server) -> Run:
    """Run ``boundq`` with these words; the server is told by BOUNDQ_URL."""

    def run(*words: str, server: Server = any_server) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "boundq", *words],
            env=environment(server),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@contextmanager
def busy(queue: Queue, *, claims: bool = False) -> Iterator[None]:
    """Jobs come, and with ``claims`` go, all the time."""
    over = threading.Event()

    def go() -> None:
        while not over.wait(0.01):
            queue.enqueue_many([b"x"] * 5)
            for lease in queue.claim(5) if claims else ():
                lease.ack()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def codes(shown: dict[str, Any]) -> set[str]:
    return {one["code"] for one in shown["warnings"]}


def test_rates_and_forecast_of_two_looks(run: Run, any_server: Server, queue_name: str) -> None:
    """A queue that only grows: jobs come in, none go out, and when it will be full has bounds."""
    queue = Queue(queue_name, any_server.url, max_jobs=1_000_000, max_bytes="4 GiB")
    with busy(queue):
        shown = json.loads(run("stats", queue_name, "--interval", "0.5", "--json").stdout)
        (listed,) = json.loads(run("ls", queue_name, "--interval", "0.5", "--json").stdout)["queues"]
        text, listing = run("stats", queue_name, "-i", "0.5").stdout, run("ls", queue_name, "-i", "0.5").stdout
    for one in (shown, listed):
        assert one["rates"]["arrived"]["low"] > 0
        assert one["rates"]["left"]["value"] == 0
        assert one["rates"]["seconds"] >= 0.5
        assert one["forecast"]["kind"] == "filling"
        assert one["forecast"]["limit"] in ("jobs", "bytes")
        assert one["forecast"]["time"]["low"] <= one["forecast"]["time"]["value"] <= one["forecast"]["time"]["high"]
    assert "at this rate" in text
    assert " in, 0 (0 to " in text
    assert "full in" in listing
    assert "in/s" in listing


def test_claims_are_seen(run: Run, any_server: Server, queue_name: str) -> None:
    """What is done goes out, and each delivery is counted."""
    queue = Queue(queue_name, any_server.url)
    with busy(queue, claims=True):
        shown = json.loads(run("stats", queue_name, "--interval", "0.5", "--json").stdout)
    assert shown["rates"]["claimed"]["value"] > 0
    assert shown["rates"]["left"]["value"] > 0
    assert "no_consumer" not in codes(shown)


def test_one_look_has_no_rates(run: Run, any_server: Server, queue_name: str) -> None:
    """Without --interval nothing is waited for, and rates are unknown, not 0."""
    Queue(queue_name, any_server.url).enqueue_bytes(b"x")
    shown = json.loads(run("stats", queue_name, "--json").stdout)
    assert shown["rates"] is None
    assert shown["forecast"] == {
        "kind": "unknown",
        "time": None,
        "limit": None,
        "wait": None,
        "text": "unknown: too little has moved",
    }
    assert "rates      unknown" in run("stats", queue_name).stdout


def test_watch_prints_a_line_for_each_look(run: Run, any_server: Server, queue_name: str) -> None:
    """With --json --watch each look is one line; --count ends it."""
    Queue(queue_name, any_server.url, max_jobs=7).enqueue_bytes(b"x")
    done = run("ls", queue_name, "--json", "--watch", "--count", "3", "--interval", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["queues"][0]["jobs"] for line in done.stdout.splitlines()] == [1, 1, 1]
    done = run("stats", queue_name, "--json", "--watch", "--count", "2", "--interval", "0.1")
    assert [json.loads(line)["jobs"] for line in done.stdout.splitlines()] == [1, 1]
    text = run("ls", queue_name, "--watch", "--count", "2", "--interval", "0.1").stdout
    assert text.count(queue_name) == 2
    assert run("ls", "--count", "2").returncode == 2


def test_watch_goes_on_when_the_server_comes_back(fresh_server: FreshServer) -> None:
    """A look without an answer says so, with no numbers; the next one that has an answer has numbers again."""
    server = fresh_server(appendonly="yes")
    Queue("mails", server.url).enqueue_bytes(b"x")
    words = [sys.executable, "-m", "boundq", "ls", "--json", "--watch", "--interval", "0.1"]
    with subprocess.Popen(words, env=environment(server), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["queues"][0]["jobs"] == 1
        server.kill()
        for line in process.stdout:
            if "error" in json.loads(line):
                assert sorted(json.loads(line)) == ["at", "error"]
                break
        server.start()
        for line in process.stdout:
            if "queues" in json.loads(line):
                assert json.loads(line)["queues"][0]["jobs"] == 1
                break
        process.terminate()


def test_ctrl_c_ends_a_watch_with_0(any_server: Server, queue_name: str) -> None:
    """No traceback and no error: it is how one ends it."""
    Queue(queue_name, any_server.url).enqueue_bytes(b"x")
    words = ("ls", queue_name, "--watch", "--interval", "0.1")
    with Screen(*words, environment={"BOUNDQ_URL": any_server.url}) as screen:
        screen.shows(queue_name)
        screen.press("\x03")
        assert screen.ends() == 0
        assert "Traceback" not in screen.text


def test_named_queues(run: Run, any_server: Server, queue_name: str) -> None:
    """Only those, and no walk through the keys; one that is not there exits 65, after what is there."""
    for name in (f"{queue_name}.a", f"{queue_name}.b"):
        Queue(name, any_server.url).enqueue_bytes(b"x")
    shown = json.loads(run("ls", "--json", f"{queue_name}.b").stdout)
    assert [one["name"] for one in shown["queues"]] == [f"{queue_name}.b"]
    done = run("ls", f"{queue_name}.a", f"{queue_name}.nosuch")
    assert done.returncode == 65
    assert f"{queue_name}.a " in done.stdout
    assert "no such queue" in done.stderr
    assert run("ls", "a{b}").returncode == 78


def test_a_damaged_queue_does_not_hide_the_others(run: Run, any_server: Server, queue_name: str) -> None:
    """It is named, with what is wrong; the others are listed."""
    for name in (f"{queue_name}.a", f"{queue_name}.b"):
        Queue(name, any_server.url).enqueue_bytes(b"x")
    any_server.cli("HSET", f"boundq:{{{queue_name}.a}}:state", "acked", "\x1b[2J")
    done = run("ls", "--json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert f"{queue_name}.b" in [one["name"] for one in shown["queues"]]
    assert f"{queue_name}.a" in [one["name"] for one in shown["unreadable"]]
    text = run("ls").stdout
    assert f"! {queue_name}.a: " in text
    assert "\x1b" not in text


def test_warnings_of_a_queue(run: Run, any_server: Server, queue_name: str) -> None:
    """Paused and sealed, since when and by whom; nearly full; refusing jobs; dead letters."""
    queue = Queue(queue_name, any_server.url, limits=Limits(max_jobs=10, max_dead_jobs=5))
    queue.enqueue_many([b"x"] * 5)
    for lease in queue.claim(5):
        lease.bury("broken")
    queue.enqueue_many([b"x"] * 12)
    queue.pause("ada: incident 7")
    queue.seal("eve")
    done = run("stats", queue_name, "--json")
    shown = json.loads(done.stdout)
    assert codes(shown) == {"paused", "sealed", "fill", "dead"}
    text = run("ls", queue_name).stdout
    assert f"! {queue_name}: paused since" in text
    assert "by ada: incident 7" in text
    assert "warning    sealed since" in run("stats", queue_name).stdout
    queue.unseal()
    with busy(queue):
        shown = json.loads(run("stats", queue_name, "--json", "--interval", "0.3").stdout)
    assert "refusing" in codes(shown)
    assert shown["forecast"]["kind"] == "full"


def test_no_consumer(run: Run, any_server: Server, queue_name: str) -> None:
    """Jobs are ready and nobody claims one: said once that has been seen for long enough."""
    queue = Queue(queue_name, any_server.url)
    queue.enqueue_many([b"x"] * 3)
    done = run("ls", queue_name, "--json", "--watch", "--count", "4", "--interval", "2")
    looks = [json.loads(line)["queues"][0] for line in done.stdout.splitlines()]
    assert "no_consumer" in codes(looks[-1])
    assert "3 jobs ready" in looks[-1]["warnings"][0]["text"]


def test_warnings_of_a_server(run: Run, fresh_server: FreshServer) -> None:
    """A policy that throws queues away, memory that is nearly full or not bounded, a server that does not say."""
    server = fresh_server(maxmemory="64mb", maxmemory_policy="allkeys-lru")
    Queue("mails", server.url).enqueue_bytes(b"x")

    def shown() -> set[str]:
        return codes(json.loads(run("ls", "--json", server=server).stdout))

    assert shown() == {"eviction"}
    assert "set noeviction" in run("ls", server=server).stdout
    server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert shown() == set()
    used = int(server.info("memory")["used_memory"])
    server.cli("CONFIG", "SET", "maxmemory", int(used * 1.05))
    assert shown() == {"memory_near"}
    server.cli("CONFIG", "SET", "maxmemory", 0)
    assert shown() == {"maxmemory_unset"}
    server.cli("ACL", "SETUSER", "default", "-info")
    assert shown() == {"memory_unknown"}
    assert "server memory unknown" in run("ls", server=server).stdout


@pytest.mark.parametrize("verb", ["ls", "stats", "top"])
def test_help_has_examples(run: Run, verb: str) -> None:
    """--help shows how it is used."""
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"boundq {verb}" in done.stdout
    assert "--interval" in done.stdout
