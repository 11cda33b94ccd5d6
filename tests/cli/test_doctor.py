"""``boundq doctor``: each misconfiguration, provoked on a real server, is named with its severity and what to type."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from boundq import Limits, Queue, Stats
from boundq import Server as Client
from boundq._ops import facts as facts_module
from boundq._ops.acl import _TRIED, ROLES, rules, trials
from boundq._ops.diagnose import diagnose
from boundq._ops.facts import Facts, Foreign, read
from boundq._ops.findings import EXIT, Finding, worst
from tests._servers import REDIS_6_2, Kind, Server, wait_until
from tests.conftest import FreshServer

SMALL = Limits(max_bytes="8 MiB", max_dead_bytes="1 MiB")
SOUND = {"appendonly": "yes", "maxmemory": "64mb"}


def findings(
    server: Server, *queues: str, url: str = "", user: str = "", roles: Sequence[str] = ROLES
) -> list[Finding]:
    return diagnose(read(Client(url or server.url), queues, user=user, roles=roles))


def of(found: list[Finding], check: str) -> list[tuple[str, str]]:
    """Severity and text of a check's findings; what is not ok says why and what to do."""
    mine = [one for one in found if one.check == check]
    assert mine, f"nothing was said of {check}"
    assert all(one.todo and one.why for one in mine if one.severity in ("warning", "critical"))
    return [(one.severity, one.what) for one in mine]


def severities(found: list[Finding], check: str) -> set[str]:
    return {severity for severity, _ in of(found, check)}


def run(url: str, *words: str) -> tuple[int, str, str]:
    env = {**os.environ, "BOUNDQ_URL": url, "NO_COLOR": "1"}
    program = [sys.executable, "-m", "boundq", "doctor", *words]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_sound_server(server_kind: Kind, fresh_server: FreshServer) -> None:
    """Everything is looked at and is ok; exit code 0; nothing is changed."""
    server = fresh_server(server_kind, **SOUND)
    queue = Queue("emails", server.url, limits=SMALL)
    queue.enqueue_many([b"x"] * 10)
    queue.claim()
    code, text, _ = run(server.url, "--json")
    shown = json.loads(text)
    assert (code, shown["verdict"]) == (0, "ok"), shown
    assert {one["check"] for one in shown["findings"]} == {
        *("version", "eviction", "maxmemory", "memory", "persistence", "replication", "cluster", "clock", "clients"),
        *("foreign", "scripts", "acl", "accounting"),
    }
    assert set(shown["findings"][0]) == {"check", "severity", "what", "why", "todo", "queue"}
    assert queue.stats().jobs == 10
    assert server.cli("DBSIZE") <= 6


def test_settings_that_are_wrong(server_kind: Kind, fresh_server: FreshServer) -> None:
    """Eviction, no persistence, no maxmemory; then budgets beyond it, snapshots only, a lazy log, a full server."""
    server = fresh_server(server_kind, maxmemory_policy="allkeys-lru")
    Queue("emails", server.url, limits=SMALL).enqueue_bytes(b"x")
    found = findings(server)
    assert of(found, "eviction") == [("warning", "maxmemory-policy is allkeys-lru")]
    assert severities(found, "maxmemory") == {"warning"}
    assert of(found, "persistence") == [("warning", "nothing is persisted: no AOF, no snapshots")]
    server.cli("CONFIG", "SET", "maxmemory", "8mb")
    server.cli("CONFIG", "SET", "save", "60 1000")
    found = findings(server)
    assert severities(found, "eviction") == {"critical"}
    assert severities(found, "maxmemory") == {"critical"}
    assert "snapshots only" in of(found, "persistence")[0][1]
    server.cli("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    server.cli("CONFIG", "SET", "maxmemory", "10mb")
    server.cli("CONFIG", "SET", "appendonly", "yes")
    server.cli("CONFIG", "SET", "appendfsync", "no")
    found = findings(server)
    assert severities(found, "eviction") == {"warning"}
    assert severities(found, "maxmemory") == {"warning"}
    assert "appendfsync no" in of(found, "persistence")[0][1]
    server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.cli("CONFIG", "SET", "maxmemory", int(server.info("memory")["used_memory"]) + 1000)
    found = findings(server)
    assert severities(found, "eviction") == {"ok"}
    assert severities(found, "memory") == {"critical"}


def test_too_old_a_server(fresh_server: FreshServer) -> None:
    """One sentence with the version found and the one needed; what it cannot do is not tried (R-137)."""
    server = fresh_server(REDIS_6_2)
    code, text, errors = run(server.url, "--json")
    assert (code, errors) == (2, "")
    (version,) = [one for one in json.loads(text)["findings"] if one["check"] == "version"]
    assert version["severity"] == "critical"
    assert "Redis 6.2" in version["what"]
    assert "7.0" in version["todo"]


def test_a_cluster_that_is_down_and_one_that_is_up(fresh_server: FreshServer) -> None:
    """Slots without a node are critical."""
    server = fresh_server(cluster_enabled="yes", **SOUND)
    assert severities(findings(server), "cluster") == {"critical"}
    server.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_until(lambda: b"cluster_state:ok" in server.cli("CLUSTER", "INFO"), "the cluster")
    Queue("emails", server.url, limits=SMALL).enqueue_bytes(b"x")
    assert severities(findings(server), "cluster") == {"ok"}


def test_a_replica_and_its_primary(fresh_server: FreshServer) -> None:
    """A replica is no place for a queue; a replica that is away is behind."""
    primary = fresh_server(tcp=True, **SOUND)
    Queue("emails", primary.url, limits=SMALL).enqueue_bytes(b"x")
    replica = fresh_server(replicaof=f"127.0.0.1 {primary.port}", **SOUND)
    wait_until(lambda: replica.info("replication").get("master_link_status") == "up", "the replica", 20)
    assert severities(findings(replica), "replication") == {"critical"}
    wait_until(lambda: severities(findings(primary), "replication") == {"ok"}, "the replica online", 20)
    assert "1 replica" in of(findings(primary), "replication")[0][1]


def test_no_room_for_clients(fresh_server: FreshServer) -> None:
    """Near maxclients it warns, and says how many there are."""
    server = fresh_server(maxclients=40, **SOUND)
    clients = [Client(f"{server.url}?client_name=c{number}") for number in range(34)]
    for client in clients:
        client.info("server")
    assert severities(findings(server), "clients") == {"warning"}
    more = [Client(f"{server.url}?client_name=d{number}") for number in range(4)]
    for client in more:
        client.info("server")
    assert severities(findings(server), "clients") == {"critical"}
    for client in (*clients, *more):
        client.close()


def test_keys_of_others(fresh_server: FreshServer) -> None:
    """How many, about how large, what they are called; other databases; a queue that has lost its state."""
    server = fresh_server(**SOUND)
    Queue("emails", server.url, limits=SMALL).enqueue_bytes(b"x")
    assert severities(findings(server), "foreign") == {"ok"}
    for number in range(300):
        server.cli("SET", f"session:\x1b[31m{number}", b"x" * 10_000)
    server.cli("HSET", "boundq:{gone}:jobs", "8", "x")
    facts = read(Client(server.url))
    assert facts.foreign is not None
    assert (facts.foreign.keys, facts.foreign.prefixes) == (300, [("session", 300)])
    assert 3_000_000 < (facts.foreign.bytes or 0) < 4_000_000
    found = diagnose(facts)
    assert severities(found, "foreign") == {"warning"}
    assert of(found, "orphans") == [("critical", "keys of queue gone are left without its state: jobs")]
    assert "redis-cli UNLINK 'boundq:{gone}:jobs'" in next(one.todo for one in found if one.check == "orphans")
    _, text, _ = run(server.url)
    assert "\x1b" not in text
    assert "session" in text


def test_keys_without_a_state_and_without_jobs(fresh_server: FreshServer) -> None:
    """Nothing is said of jobs where none is left; what is to be typed removes them."""
    server = fresh_server(**SOUND)
    server.cli("RPUSH", "boundq:{gone}:wake", "1")
    server.cli("XADD", "boundq:{gone}:events", "*", "a", "b")
    (orphans,) = (one for one in findings(server) if one.check == "orphans")
    assert orphans.severity == "warning"
    assert "no job is left" in orphans.why
    assert shlex.split(orphans.todo)[:2] == ["redis-cli", "UNLINK"]
    server.cli(*shlex.split(orphans.todo)[1:])
    assert server.cli("DBSIZE") == 0


class Passing(Client):
    """A server on which something happens once the walk over its keys is over."""

    def __init__(self, url: str, happens: Callable[[], object]) -> None:
        super().__init__(url)
        self._happens = happens

    def command(self, *words: bytes | str | int) -> Any:
        """As it is."""
        reply = super().command(*words)
        if words[0] == "SCAN":
            self._happens()
        return reply


@pytest.mark.parametrize("part", ["state", "jobs"])
def test_queues_that_come_or_go_during_the_walk(fresh_server: FreshServer, part: str) -> None:
    """A queue whose state came behind the walk's back, or whose keys are gone by now, has no orphans."""
    server = fresh_server(**SOUND)
    server.cli("HSET", "boundq:{q}:jobs", "8", "x")

    def happens() -> None:
        if part == "state":
            Queue("q", server.url, limits=SMALL).stats()
        else:
            server.cli("UNLINK", "boundq:{q}:jobs")

    found = diagnose(read(Passing(server.url, happens)))
    assert not [one for one in found if one.check == "orphans"]


def test_budgets_are_those_of_all_queues(fresh_server: FreshServer) -> None:
    """Also where one is named; where SCAN is forbidden it is said that only those named were added up."""
    server = fresh_server(**SOUND)
    for name in ("emails", "large"):
        Queue(name, server.url, limits=Limits(max_bytes="30 MiB", max_dead_bytes="1 MiB")).enqueue_bytes(b"x")
    found = findings(server, "emails")
    assert {one.queue for one in found if one.check == "accounting"} == {"emails"}
    ((severity, what),) = of(found, "maxmemory")
    assert severity == "warning"
    assert "2 queue(s) 62.0 MiB" in what
    server.cli("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-scan")
    ((severity, what),) = of(findings(server, "emails", url=f"unix://u:p@{server.socket_path}"), "maxmemory")
    assert severity == "ok"
    assert "1 queue(s) (only those named: SCAN is forbidden) 31.0 MiB" in what


def test_one_walk(fresh_server: FreshServer) -> None:
    """The names of the queues, and the keys of others, come out of one walk, also beyond the keys that are counted."""
    server = fresh_server(**SOUND)
    for number in range(30):
        Queue(f"q{number}", server.url, limits=SMALL).stats()
    server.cli("MSET", *(word for number in range(5000) for word in (f"other:{number}", "x")))
    server.cli("CONFIG", "RESETSTAT")
    facts = read(Client(server.url))
    assert facts.names == sorted(f"q{number}" for number in range(30))
    assert facts.foreign is not None
    assert facts.foreign.keys == 5000
    calls = int(server.info("commandstats")["cmdstat_scan"].split(",")[0].removeprefix("calls="))
    assert calls < 2 * 5000 / 1000


def test_names_beyond_the_keys_that_are_counted(fresh_server: FreshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk over others' keys ends after so many, that for queues does not."""
    monkeypatch.setattr(facts_module, "MOST_KEYS", 1000)
    server = fresh_server(**SOUND)
    for number in range(30):
        Queue(f"q{number}", server.url, limits=SMALL).stats()
    server.cli("MSET", *(word for number in range(5000) for word in (f"other:{number}", "x")))
    facts = read(Client(server.url))
    assert facts.names == sorted(f"q{number}" for number in range(30))
    assert facts.foreign is not None
    assert not facts.foreign.whole
    assert 900 <= facts.foreign.keys < 2500


def test_queues_that_nobody_looks_after(fresh_server: FreshServer) -> None:
    """Jobs that nobody asks for; paused and sealed, since when and by whom; names that nobody knows."""
    server = fresh_server(**SOUND)
    lonely, halted = Queue("lonely", server.url, limits=SMALL), Queue("halted", server.url, limits=SMALL)
    lonely.enqueue_bytes(b"x")
    halted.enqueue_bytes(b"x")
    halted.pause("ada: \x1b[2J deploy")
    halted.seal("bob")
    wait_until(lambda: (lonely.stats().oldest_age or 0) > 0.05, "an age")
    facts = read(Client(server.url))
    found = diagnose(facts, known=["lonely", "missing"], unattended=0.05)
    (alone,) = of(found, "consumers")
    assert alone[0] == "warning"
    assert "lonely" in alone[1]
    assert "nobody has ever asked" in alone[1]
    assert "ada" in of(found, "paused")[0][1]
    assert "bob" in of(found, "sealed")[0][1]
    assert sorted(what for _, what in [(one.severity, one.what) for one in found if one.check == "names"]) == [
        "queue halted is not among those that are known",
        "there is no queue missing",
    ]
    lonely.claim()
    assert not [one for one in diagnose(read(Client(server.url)), unattended=0.05) if one.check == "consumers"]
    code, text, _ = run(server.url)
    assert code == 1
    assert "\x1b" not in text
    assert "boundq resume halted" in text


def test_times_that_no_calendar_has(fresh_server: FreshServer) -> None:
    """A key that somebody has edited crashes nothing: it is shown as it is."""
    server = fresh_server(**SOUND)
    Queue("emails", server.url, limits=SMALL).enqueue_bytes(b"x")
    server.cli("HSET", "boundq:{emails}:state", "paused_at", 10**20, "sealed_at", 10**20)
    code, text, _ = run(server.url)
    assert code == 1, text
    assert text.count("since 1e+17 (no such time)") == 2


def test_accounting(fresh_server: FreshServer) -> None:
    """Lost jobs and wrong bytes are critical, with exit code 2; --repair sets them right."""
    server = fresh_server(**SOUND)
    queue = Queue("emails", server.url, limits=SMALL)
    queue.enqueue_many([b"x"] * 10)
    queue.claim()
    server.cli("HINCRBY", "boundq:{emails}:state", "bytes", 77)
    server.cli("HDEL", "boundq:{emails}:jobs", queue.peek().jobs[0].id)
    code, text, _ = run(server.url, "--json")
    bad = {one["check"] for one in json.loads(text)["findings"] if one["severity"] == "critical"}
    assert (code, bad) == (2, {"accounting", "audit"})
    code, text, _ = run(server.url, "--json", "--repair")
    assert code == 0, text
    assert queue.recount().ok
    assert queue.stats().imbalance == 0
    assert run(server.url)[0] == 0


def test_a_queue_that_cannot_be_read(fresh_server: FreshServer) -> None:
    """One queue of a foreign type, or of a newer boundq, does not hide the others."""
    server = fresh_server(**SOUND)
    Queue("emails", server.url, limits=SMALL).enqueue_bytes(b"x")
    server.cli("HSET", "boundq:{newer}:state", "format", "99")
    found = findings(server)
    assert [one.queue for one in found if one.check == "queue"] == ["newer"]
    assert severities(found, "queue") == {"critical"}
    assert [one.queue for one in found if one.check == "accounting"] == ["emails"]


def test_what_is_forbidden_is_unknown(server_kind: Kind, fresh_server: FreshServer) -> None:
    """As on a managed server, or under a narrow ACL: not ok, not wrong; exit code 3. Queues can be named."""
    server = fresh_server(server_kind, **SOUND)
    queue = Queue("emails", server.url, limits=SMALL)
    queue.enqueue_bytes(b"x")
    queue.claim()
    server.cli("ACL", "SETUSER", "u", ">p", *rules("inspector", ["emails"]))
    url = f"unix://u:p@{server.socket_path}"
    code, text, errors = run(url, "emails", "--json")
    assert (code, errors) == (3, ""), text
    by_check = {one["check"]: one["severity"] for one in json.loads(text)["findings"]}
    assert {check for check, severity in by_check.items() if severity == "unknown"} == {
        *("version", "eviction", "maxmemory", "memory", "persistence", "replication", "cluster"),
        *("clients", "foreign", "scripts", "acl"),
    }
    assert by_check["accounting"] == by_check["clock"] == "ok"
    server.cli("ACL", "SETUSER", "m", "on", ">p", "~*", "+@all", "-config", "-acl")
    managed = findings(server, url=f"unix://m:p@{server.socket_path}")
    assert severities(managed, "acl") == {"unknown"}
    assert severities(managed, "eviction") == severities(managed, "maxmemory") == {"ok"}


@pytest.mark.parametrize("role", ROLES)
def test_rules_that_are_too_narrow(role: str, server_kind: Kind, fresh_server: FreshServer) -> None:
    """Whether a user can fill a role is tried command by command, and what it lacks is named."""
    server = fresh_server(server_kind, **SOUND)
    Queue("emails", server.url, limits=SMALL).enqueue_bytes(b"x")
    words = rules(role, ["emails"])
    server.cli("ACL", "SETUSER", "whole", ">p", *words)
    assert severities(findings(server, "emails", user="whole", roles=[role]), "acl") == {"ok"}
    server.cli("ACL", "SETUSER", "narrow", ">p", *(word.replace("+hget ", "") for word in words if word != "+hget"))
    ((severity, what),) = of(findings(server, "emails", user="narrow", roles=[role]), "acl")
    assert severity == "critical"
    assert "HGET" in what
    assert severities(findings(server, "emails", user="nobody", roles=[role]), "acl") == {"unknown"}


def test_every_command_of_a_rule_can_be_tried() -> None:
    """A script that uses a new command needs a line in the table of what is tried."""
    for role in ROLES:
        named = {word for rule in rules(role, ["q"]) for word in rule.strip("()").split() if word[0] == "+"}
        alone = {
            "+ping",
            "+time",
            "+evalsha",
            "+script|load",
            "+info",
            "+scan",
            "+config|get",
            "+memory|usage",
            "+dbsize",
        }
        assert {word[1:] for word in named - alone} <= set(_TRIED)
        assert {words[0].lower() for words in trials(role, "q")} >= {word[1:] for word in named - alone}


def test_no_server(fresh_server: FreshServer) -> None:
    """Critical, with what to look at; the password is in no text."""
    server = fresh_server()
    server.stop()
    url = server.url.replace("unix://", "unix://u:s3cr3t-w0rd@")
    code, text, errors = run(url, "--json")
    assert code == 2
    assert json.loads(text)["findings"][0]["check"] == "connection"
    assert "s3cr3t" not in text + errors


# ---------------------------------------------------------------- what a test's server cannot be made to show


def of_info(**info: str) -> list[Finding]:
    least = {"redis_version": "7.4.0", "maxmemory": "0", "maxmemory_policy": "noeviction", "used_memory": "1000000"}
    sound = {"role": "master", "aof_enabled": "1", "connected_clients": "1", "maxclients": "10"}
    return diagnose(Facts(info=least | sound | info, names=[], scripts="", roles={"admin": []}))


@pytest.mark.parametrize(
    ("info", "check", "severity", "says"),
    [
        ({"maxmemory": "9000", "total_system_memory": "10000"}, "memory", "warning", "90%"),
        ({"used_memory_rss": "9000000", "total_system_memory": "10000000"}, "memory", "warning", "of RAM"),
        ({"mem_fragmentation_ratio": "2.5", "used_memory_rss": "900000000"}, "memory", "warning", "2.5"),
        ({"aof_last_write_status": "err"}, "persistence", "critical", "log failed"),
        ({"rdb_last_bgsave_status": "err"}, "persistence", "critical", "save failed"),
        ({"slave0": "ip=1.2.3.4,port=1,state=online,offset=1,lag=60"}, "replication", "warning", "60 s behind"),
        ({"slave0": "ip=1.2.3.4,port=1,state=wait_bgsave,offset=1,lag=0"}, "replication", "warning", "wait_bgsave"),
        ({"valkey_version": "7.1.0"}, "version", "critical", "Valkey 7.1.0"),
        ({"valkey_version": "7.2.4", "redis_version": "7.2.4"}, "version", "ok", "Valkey 7.2.4"),
        ({"db0": "keys=1", "db3": "keys=9,expires=0"}, "foreign", "unknown", ""),
    ],
)
def test_what_info_says(info: dict[str, str], check: str, severity: str, says: str) -> None:
    """Each line of INFO that tells of trouble leads to a finding."""
    assert any(one == severity and says in what for one, what in of(of_info(**info), check))


@pytest.mark.parametrize(("skew", "severity"), [((5.0, 0.1), "warning"), ((-9.0, 0.1), "warning"), ((5.0, 4.0), "ok")])
def test_clocks(skew: tuple[float, float], severity: str) -> None:
    """A difference counts only beyond what the round trip leaves open."""
    assert severities(diagnose(Facts(skew=skew)), "clock") == {severity}


def test_a_scan_that_was_cut_short() -> None:
    """Where not all keys were looked at, it says so."""
    found = diagnose(Facts(foreign=Foreign(5, None, False, [("a", 5)], [])))
    assert "5 at least" in of(found, "foreign")[0][1]
    assert "unknown size" in of(found, "foreign")[0][1]


@pytest.mark.parametrize(
    ("severities_", "code"),
    [
        ([], 0),
        (["ok"], 0),
        (["unknown", "ok"], 3),
        (["unknown", "warning"], 1),
        (["warning", "critical", "unknown"], 2),
    ],
)
def test_exit_code_follows_the_worst(severities_: list[Any], code: int) -> None:
    """What is known to be wrong comes before what could not be seen."""
    assert EXIT[worst(severities_)] == code


def test_stats_say_when_somebody_asked(any_server: Server, queue_name: str) -> None:
    """``claimed_at`` is None until the first claim, and then about now by the server's clock."""
    queue = Queue(queue_name, any_server.url)
    assert queue.stats().claimed_at is None
    queue.claim()
    stats: Stats = queue.stats()
    assert stats.claimed_at is not None
    assert 0 <= stats.at - stats.claimed_at < 30
