"""Connections that are opened without redis-py: what a URL says is what redis-py would have read in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from redis.connection import parse_url

from boundq._target import target_of
from boundq.sync._plain import PlainConnection, is_plain
from tests._servers import Server

PLAIN = [
    "redis://localhost",
    "redis://localhost/",
    "redis://localhost:6380/3",
    "redis://localhost?db=4",
    "redis://127.0.0.1:7000/0",
    "redis://[::1]:6379/1",
    "redis://:secret@example.org:6379/0",
    "redis://ada:se%40cr%2Fet@example.org/2",
    "redis://ada@example.org",
    "redis://Example.ORG",
    "unix:///run/redis.sock",
    "unix:///run/re%20dis.sock?db=2",
    "unix://ada:pw@/run/redis.sock",
]
OTHERS = [
    "rediss://localhost",
    "redis://localhost?socket_timeout=3",
    "redis://localhost?db=1&client_name=x",
    "redis+sentinel://localhost:26379/primary/0",
    "redis+cluster://localhost:7000",
]


@pytest.mark.parametrize("url", PLAIN)
def test_a_plain_url_is_read_as_redis_py_reads_it(url: str) -> None:
    """Host, port, path, database, user and password, with what is escaped in them."""
    assert is_plain(target_of(url))
    ours, theirs = PlainConnection(url, 1.0), parse_url(url)
    assert ours.path == theirs.get("path")
    if ours.path is None:
        assert (ours.host, ours.port) == (theirs.get("host", "localhost"), theirs.get("port", 6379))
    assert (ours.username, ours.password) == (theirs.get("username"), theirs.get("password"))
    assert ours.db == theirs.get("db", 0)


@pytest.mark.parametrize("url", OTHERS)
def test_all_else_is_left_to_redis_py(url: str) -> None:
    """TLS, options, Sentinel and Cluster are not plain."""
    assert not is_plain(target_of(url))


def test_a_forked_child_leaves_its_parent_s_connection_alone(any_server: Server) -> None:
    """What the child inherits and throws away goes on working in the parent."""
    connection = PlainConnection(any_server.url, 5.0)
    connection.connect()
    opened = connection._sock
    assert opened is not None
    if (child := os.fork()) == 0:
        connection.disconnect()
        os._exit(0)
    os.waitpid(child, 0)
    opened.sendall(b"PING\r\n")
    assert opened.recv(100) == b"+PONG\r\n"
    connection.disconnect()


def test_a_program_that_enqueues_does_not_load_redis_py(any_server: Server, queue_name: str) -> None:
    """Its import takes longer than everything else."""
    code = (
        "import sys; from boundq import Queue\n"
        f"queue = Queue({queue_name!r}, {any_server.url!r}); queue.enqueue_bytes(b'x'); queue.close()\n"
        "print('redis' in sys.modules, 'asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
