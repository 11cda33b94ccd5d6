"""
A primary, its replica, and the sentinels that watch them: for tests of a fail-over.

One sentinel decides alone (quorum 1), when the test tells it to. All are of the kind that `fresh_server` has.
"""

from __future__ import annotations

from typing import Any, Protocol

from redis.exceptions import ConnectionError, ResponseError

from tests._servers import Server, wait_until

NAME = "main"
FAIL_OVER_S = 30.0
"""How long a fail-over may take, on a machine that has much else to do; by itself it takes one to three seconds."""


class StartServer(Protocol):
    def __call__(self, *, tcp: bool = False, sentinel: bool = False, **config: str | int) -> Server: ...


class Watched:
    """
    Args:
        start: The fixture ``fresh_server``, which also ends them all.
    """

    def __init__(self, start: StartServer) -> None:
        at_once: dict[str, str | int] = {"repl_diskless_sync_delay": 0, "repl_ping_replica_period": 1}
        self.primary = start(tcp=True, **at_once)
        self.replica = start(tcp=True, replicaof=f"127.0.0.1 {self.primary.port}", **at_once)
        self.sentinel = start(sentinel=True)
        self._tell("MONITOR", NAME, "127.0.0.1", self.primary.port, 1)
        self._tell("SET", NAME, "down-after-milliseconds", 60_000, "failover-timeout", 5000)
        wait_until(self._knows_the_replica, "the sentinel knows the replica", FAIL_OVER_S)

    @property
    def url(self) -> str:
        """What a client of whichever is the primary connects to."""
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{NAME}/0"

    def replicate(self) -> None:
        """Return when the replica has all that the primary has now."""
        offset = int(self.primary.info("replication")["master_repl_offset"])
        wait_until(
            lambda: int(self.replica.info("replication")["slave_repl_offset"]) >= offset, "replication", FAIL_OVER_S
        )

    def promote(self) -> None:
        """The primary is dead: let the sentinel notice it; return when the replica is the primary."""
        self._tell("SET", NAME, "down-after-milliseconds", 500)
        self._await_promotion()
        wait_until(self._names_the_replica, "the sentinel names the new primary", FAIL_OVER_S)
        # On a machine that has much else to do, the new one may be silent for 500 ms too, and would not be named then.
        self._tell("SET", NAME, "down-after-milliseconds", 60_000)

    def demote(self) -> None:
        """Let the two change places, as for an upgrade: the primary lives on as a replica, and refuses to write."""
        wait_until(self._accepts_fail_over, "the sentinel begins the fail-over", FAIL_OVER_S)
        self._await_promotion()
        # A sentinel does that too, but leaves it eight seconds in which it takes writes that nobody will see.
        self.primary.cli("REPLICAOF", "127.0.0.1", self.replica.port or 0)

    def _accepts_fail_over(self) -> bool:
        try:
            return bool(self._tell("FAILOVER", NAME) == b"OK")
        except ResponseError as error:
            if "NOGOODSLAVE" in str(error):  # not yet: it has not heard enough from the replica
                return False
            raise

    def _await_promotion(self) -> None:
        wait_until(self._is_promoted, "the replica is promoted", FAIL_OVER_S)

    def _is_promoted(self) -> bool:
        try:
            return bool(self.replica.cli("ROLE")[0] == b"master")
        except ConnectionError:  # at the moment itself the sentinel cuts all its clients off
            return False

    def _names_the_replica(self) -> bool:
        named: Any = self._tell("GET-MASTER-ADDR-BY-NAME", NAME)
        return int(named[1]) == self.replica.port

    def _knows_the_replica(self) -> bool:
        replicas: Any = self._tell("REPLICAS", NAME)
        states = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in replicas]
        return [state[b"master-link-status"] for state in states] == [b"ok"]

    def _tell(self, *words: str | int) -> object:
        return self.sentinel.cli("SENTINEL", *words)
