"""
What the data on a server cost it, to the byte.

``used_memory`` is exact, but data are not all that moves it. Out of the way go: clients' buffers, the query buffer that
Valkey's clients share and our requests have grown, the Lua heap (part of ``used_memory`` from Redis 7.4 on), the slow
log, Valkey's logs of large requests and replies, and a histogram for each command that has ever run.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from redis.exceptions import ResponseError

from tests._servers import Server, wait_until


def quieten(server: Server) -> None:
    """Switch off what the server notes about our commands; call it once, first of all."""
    server.cli("CONFIG", "SET", "latency-tracking", "no")
    for setting in ("slowlog-log-slower-than", "commandlog-request-larger-than", "commandlog-reply-larger-than"):
        with suppress(ResponseError):  # the last two are Valkey's, from 8.1 on
            server.cli("CONFIG", "SET", setting, -1)


def used_memory(server: Server) -> int:
    """``used_memory`` at rest. The caller has closed its own connections, and nobody else has any."""
    with socket.socket(socket.AF_UNIX) as probe:
        # Half a command takes the shared query buffer into its grave.
        probe.connect(server.socket_path)
        probe.sendall(b"PING\r\n*1\r\n$4\r\nPI")
        assert probe.recv(64) == b"+PONG\r\n"
    server.cli("EVAL", "collectgarbage() return 1", 0)
    seen: list[int] = []

    def at_rest() -> bool:
        clients, memory = server.info("clients"), server.info("memory")
        quiet = clients["connected_clients"] == "1" and memory["lazyfree_pending_objects"] == "0"
        seen.append(int(memory["used_memory"]) if quiet else -1)
        return quiet and seen[-3:] == [seen[-1]] * 3

    wait_until(at_rest, "used_memory at rest", timeout=20)
    return seen[-1]
