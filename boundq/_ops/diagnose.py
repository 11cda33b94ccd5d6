"""
The diagnosis: facts in, findings out. Pure, so that what cannot be provoked on a test's server can be tested too.

Each check says something, also when all is well: what was not looked at would be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from boundq._ops.facts import Facts, too_old, version
from boundq._ops.findings import ORDER, Finding, Severity
from boundq._ops.plan import SHARE
from boundq._ops.thresholds import silence
from boundq._sizes import duration, format_size, moment
from boundq.model import Stats

# Shares of maxclients in use.
CLIENTS_WARN, CLIENTS_CRITICAL = 0.8, 0.95
# Of maxmemory: budgets beyond it, and memory in use.
BUDGET_WARN, USED_WARN, USED_CRITICAL = 0.8, 0.9, 0.98
# Of RAM: maxmemory above it leaves no room for a save.
RAM_WARN = 0.8
FRAGMENTATION_WARN, FRAGMENTED_LEAST = 1.5, 256 * 2**20
SKEW_SECONDS, LAG_SECONDS = 2.0, 10
CONFIG_SET = "CONFIG SET {}; then CONFIG REWRITE, or the server's configuration file"


def diagnose(facts: Facts, *, known: Sequence[str] = (), unattended: float = 60.0) -> list[Finding]:
    """
    All findings, the worst first.

    Args:
        facts: What was read.
        known: Names of the queues that there should be; empty: any.
        unattended: Seconds after which jobs that nobody asks for are worth a word.
    """
    found = [finding for check in _CHECKS for finding in check(facts)]
    for stats in facts.stats:
        found += _queue(stats, unattended)
    found += _names(facts, known)
    return sorted(found, key=lambda one: ORDER.index(one.severity))


def _version(facts: Facts) -> Iterator[Finding]:
    if facts.info is None:
        yield Finding("version", "unknown", "INFO is forbidden", *_FORBIDDEN)
        return
    kind, number = version(facts.info)
    text = f"{kind} {'.'.join(map(str, number))}"
    if too_old(facts.info):
        why = "boundq's scripts begin with a line that older servers do not know, and could not drain a full server"
        yield Finding(
            "version", "critical", f"the server is {text}", why, "upgrade it to Redis 7.0, Valkey 7.2 or newer"
        )
    else:
        yield Finding("version", "ok", text)


def _eviction(facts: Facts) -> Iterator[Finding]:
    policy = _setting(facts, "maxmemory-policy", "maxmemory_policy")
    most = _number(facts, "maxmemory", "maxmemory")
    if policy is None or most is None:
        yield Finding("eviction", "unknown", "neither INFO nor CONFIG GET may be used", *_FORBIDDEN)
        return
    if policy == "noeviction":
        yield Finding("eviction", "ok", "maxmemory-policy is noeviction")
        return
    # No key of boundq's has a TTL, so a volatile policy takes none of them.
    harmless = policy.startswith("volatile-")
    yield Finding(
        "eviction",
        "critical" if most and not harmless else "warning",
        f"maxmemory-policy is {policy}",
        "it evicts nothing of boundq's, and goes on taking other data until enqueues are refused"
        if harmless
        else "at maxmemory the server deletes queues without a word, jobs and all",
        CONFIG_SET.format("maxmemory-policy noeviction"),
    )


def _memory(facts: Facts) -> Iterator[Finding]:
    most = _number(facts, "maxmemory", "maxmemory")
    if most is None:
        yield Finding("maxmemory", "unknown", "neither INFO nor CONFIG GET may be used", *_FORBIDDEN)
        return
    budgets = sum(int(one.max_bytes) + int(one.max_dead_bytes) for one in facts.limits)
    foreign = (facts.foreign.bytes or 0) if facts.foreign else 0
    total, advice = budgets + foreign, max(round((budgets + foreign) / SHARE), 64 * 2**20)
    which = "" if facts.names is not None else " (only those named: SCAN is forbidden)"
    unread = f" ({facts.unread} more cannot be read)" if facts.unread else ""
    queues = f"{len(facts.limits)} queue(s){which}{unread}"
    words = f"budgets of {queues} {format_size(budgets)}, other data {format_size(foreign)}"
    todo = (
        f"{CONFIG_SET.format(f'maxmemory {-(-advice // 2**20)}mb')}; or lower the limits; `boundq plan` shows the sum"
    )
    if most == 0:
        why = "the server takes memory until the system kills it; nothing but boundq's limits stops it"
        yield Finding("maxmemory", "warning", f"maxmemory is not set; {words}", why, todo)
        return
    share = total / most
    what = f"{words}: {share:.0%} of maxmemory {format_size(most)}"
    if share > 1:
        why = "the queues can fill the server before they are full: enqueues are refused, and those of others too"
        yield Finding("maxmemory", "critical", what, why, todo)
    elif share > BUDGET_WARN:
        why = "client buffers, fragmentation and the queues' own tables need the rest"
        yield Finding("maxmemory", "warning", what, why, todo)
    else:
        yield Finding("maxmemory", "ok", what)


def _used(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    if info is None or "used_memory" not in info:
        yield Finding("memory", "unknown", "INFO is forbidden", *_FORBIDDEN)
        return
    used, most, ram = int(info["used_memory"]), int(info.get("maxmemory", 0)), int(info.get("total_system_memory", 0))
    rss, ratio = int(info.get("used_memory_rss", 0)), float(info.get("mem_fragmentation_ratio", 1) or 1)
    fine = True
    if most and used / most >= USED_WARN:
        fine = False
        yield Finding(
            "memory",
            "critical" if used / most >= USED_CRITICAL else "warning",
            f"{format_size(used)} of maxmemory {format_size(most)} are in use",
            "at maxmemory every enqueue is refused; workers go on",
            "drain or purge a queue (`boundq ls`), remove other data, or raise maxmemory",
        )
    if ram and most > ram * RAM_WARN:
        fine = False
        why = (
            "a save copies pages beside it, and the system may kill the server (a container's limit is not known here)"
        )
        what = f"maxmemory {format_size(most)} is {most / ram:.0%} of the {format_size(ram)} of RAM"
        yield Finding("memory", "warning", what, why, CONFIG_SET.format(f"maxmemory {int(ram * 0.6) // 2**20}mb"))
    elif ram and max(rss, used) > ram * RAM_WARN:
        fine = False
        why = "the system is about to run out"
        what = f"the server has {format_size(max(rss, used))} of the {format_size(ram)} of RAM"
        yield Finding("memory", "warning", what, why, "more RAM, or less data; and a maxmemory below it")
    if ratio > FRAGMENTATION_WARN and rss > FRAGMENTED_LEAST:
        fine = False
        what = f"fragmentation: {ratio:.1f} bytes of RAM for each byte used"
        yield Finding(
            "memory", "warning", what, "maxmemory does not count it", "CONFIG SET activedefrag yes, or a restart"
        )
    if fine:
        yield Finding("memory", "ok", f"{format_size(used)} in use")


def _persistence(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    if info is None or "aof_enabled" not in info:
        yield Finding("persistence", "unknown", "INFO is forbidden", *_FORBIDDEN)
        return
    aof = info["aof_enabled"] == "1"
    for name, what in (
        ("rdb_last_bgsave_status", "the last save"),
        ("aof_last_write_status", "the last write to the log"),
    ):
        if info.get(name, "ok") != "ok":
            why = "what is not on the disk is lost with the server; it may refuse writes (MISCONF)"
            yield Finding("persistence", "critical", f"{what} failed", why, "look at the server's log: disk full?")
    if aof:
        sync = (facts.config or {}).get("appendfsync", "unknown")
        if sync == "no":
            why = "the system decides when the log reaches the disk: a power cut loses up to half a minute of jobs"
            yield Finding(
                "persistence", "warning", "AOF with appendfsync no", why, CONFIG_SET.format("appendfsync everysec")
            )
        else:
            yield Finding("persistence", "ok", f"AOF, appendfsync {sync}")
        return
    save = (facts.config or {}).get("save")
    todo = CONFIG_SET.format("appendonly yes")
    if save is None:
        yield Finding("persistence", "unknown", "no AOF; CONFIG GET save is forbidden", *_FORBIDDEN)
    elif save:
        why = "a crash loses all jobs since the last snapshot: minutes, and acks too, so jobs may run again"
        yield Finding("persistence", "warning", f"snapshots only (save {save}), no AOF", why, todo)
    else:
        why = "a restart of the server loses every queue"
        yield Finding("persistence", "warning", "nothing is persisted: no AOF, no snapshots", why, todo)


def _replication(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    if info is None or "role" not in info:
        yield Finding("replication", "unknown", "INFO is forbidden", *_FORBIDDEN)
        return
    if info["role"] != "master":
        why = "replicas take no writes: neither enqueue nor claim works here"
        yield Finding(
            "replication", "critical", "this is a replica", why, "use the primary's address, or redis+sentinel://"
        )
        return
    late = []
    for name, text in info.items():
        if name.startswith("slave") and name[5:].isdecimal():
            fields = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
            lag = int(fields.get("lag", 0) or 0)
            if fields.get("state") != "online" or lag > LAG_SECONDS:
                late.append(f"{fields.get('ip')}:{fields.get('port')} {fields.get('state')}, {lag} s behind")
    if late:
        why = "a fail-over to it loses the jobs that it has not got yet"
        yield Finding(
            "replication",
            "warning",
            "; ".join(late),
            why,
            "look at its log, its network and client-output-buffer-limit",
        )
    else:
        yield Finding("replication", "ok", f"primary, {info.get('connected_slaves', 0)} replica(s)")


def _cluster(facts: Facts) -> Iterator[Finding]:
    if facts.info is None:
        yield Finding("cluster", "unknown", "INFO is forbidden", *_FORBIDDEN)
    elif facts.info.get("cluster_enabled") != "1":
        yield Finding("cluster", "ok", "no cluster")
    elif facts.cluster is None:
        yield Finding("cluster", "unknown", "CLUSTER INFO is forbidden", *_FORBIDDEN)
    elif facts.cluster.get("cluster_state") != "ok":
        slots = facts.cluster.get("cluster_slots_ok", "?")
        why = "queues whose slot has no node cannot be used"
        what = f"cluster_state is {facts.cluster.get('cluster_state')}, {slots} of 16384 slots are served"
        yield Finding("cluster", "critical", what, why, "redis-cli --cluster check HOST:PORT")
    else:
        what = "cluster is ok; this is one node of it: run doctor for the others too"
        yield Finding("cluster", "ok", what)


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.skew is None:
        yield Finding("clock", "unknown", "TIME is forbidden", *_FORBIDDEN)
        return
    offset, error = facts.skew
    if abs(offset) - error > SKEW_SECONDS:
        why = "leases and delays follow the server's clock alone, but who computes an at= goes by another"
        what = f"the server's clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
        yield Finding("clock", "warning", what, why, "NTP on both machines: chronyc tracking, timedatectl")
    else:
        yield Finding("clock", "ok", "the server's clock agrees with this machine's")


def _clients(facts: Facts) -> Iterator[Finding]:
    most = _number(facts, "maxclients", "maxclients")
    if facts.info is None or most is None or "connected_clients" not in facts.info:
        yield Finding("clients", "unknown", "INFO is forbidden", *_FORBIDDEN)
        return
    now = int(facts.info["connected_clients"])
    share = now / max(most, 1)
    what = f"{now} of maxclients {most} connected"
    if share < CLIENTS_WARN:
        yield Finding("clients", "ok", what)
        return
    severity: Severity = "critical" if share >= CLIENTS_CRITICAL else "warning"
    todo = CONFIG_SET.format(f"maxclients {most * 2}") + "; CLIENT LIST shows who they are; ulimit -n bounds it"
    yield Finding("clients", severity, what, "beyond it nobody can connect: no producer, no worker, no you", todo)


def _foreign(facts: Facts) -> Iterator[Finding]:
    found = facts.foreign
    if found is None:
        yield Finding("foreign", "unknown", "SCAN is forbidden", *_FORBIDDEN)
        return
    other = {name: text for name, text in (facts.info or {}).items() if name.startswith("db") and name[2:].isdecimal()}
    if len(other) > 1:
        listed = ", ".join(f"{name} ({text.split(',')[0]})" for name, text in sorted(other.items()))
        yield Finding("foreign", "warning", f"several databases are in use: {listed}", *_SHARED)
    if found.keys:
        size = "an unknown size" if found.bytes is None else f"about {format_size(found.bytes)}"
        names = ", ".join(f"{name}… {count}" for name, count in found.prefixes)
        more = "" if found.whole else " at least"
        yield Finding("foreign", "warning", f"{found.keys}{more} keys of others, {size}: {names}", *_SHARED)
    elif len(other) <= 1:
        yield Finding("foreign", "ok", "no keys but boundq's" + ("" if found.whole else " among those looked at"))
    for name, parts in found.headless:
        yield _orphans(name, parts)


def _orphans(name: str, parts: list[str]) -> Finding:
    what = f"keys of queue {name} are left without its state: {', '.join(parts)}"
    keys = " ".join(f"'boundq:{{{name}}}:{part}'" for part in parts)
    unlink = f"redis-cli UNLINK {keys}"
    if "jobs" not in parts:
        why = "its state was deleted or evicted, and no job is left; they only take room"
        return Finding("orphans", "warning", what, why, unlink, name)
    why = "its state was deleted or evicted: the jobs that are left cannot be claimed, and count nowhere"
    return Finding("orphans", "critical", what, why, f"restore the server's backup; or {unlink}", name)


def _scripts(facts: Facts) -> Iterator[Finding]:
    if facts.info is not None and too_old(facts.info):
        return
    if facts.scripts is None:
        yield Finding(
            "scripts",
            "unknown",
            "this user may not load scripts",
            "somebody has to after a restart of the server: a worker, or an admin",
            "run `boundq doctor` as a user who may",
        )
    elif facts.scripts:
        yield Finding("scripts", "critical", facts.scripts, "no call can work without them", "look at the server's log")
    else:
        yield Finding("scripts", "ok", "all loaded")


def _acl(facts: Facts) -> Iterator[Finding]:
    if facts.info is not None and too_old(facts.info):
        return
    if facts.roles is None:
        yield Finding(
            "acl",
            "unknown",
            f"what {facts.user or 'this user'} may do cannot be tried (ACL DRYRUN)",
            "a rule that is too narrow shows when a job is enqueued or claimed, not before",
            "run `boundq doctor --user NAME --role ROLE` as an admin of the server",
        )
        return
    able = [role for role, missing in facts.roles.items() if not missing]
    if len(facts.roles) == 1 or not able:
        for role, missing in facts.roles.items():
            if not missing:
                yield Finding("acl", "ok", f"{facts.user} may do all that a {role} does")
                continue
            shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
            yield Finding(
                "acl",
                "critical" if len(facts.roles) == 1 else "warning",
                f"{facts.user} cannot be a {role}: may not use {shown} on its keys",
                "its calls end with no_permission",
                f"boundq acl {role} --queue QUEUE --user {facts.user}, and type what it prints",
            )
    else:
        yield Finding("acl", "ok", f"{facts.user} can be {', '.join(able)}")


def _broken(facts: Facts) -> Iterator[Finding]:
    for name, why in facts.broken:
        todo = f"redis-cli TYPE 'boundq:{{{name}}}:state'; `boundq audit {name}`"
        yield Finding("queue", "critical", f"queue {name} cannot be read: {why}", "nobody can use it", todo, name)
    if facts.names is None and not facts.stats:
        yield Finding(
            "queue", "unknown", "SCAN is forbidden, so the queues are not known", "", "name them: boundq doctor Q"
        )


def _queue(stats: Stats, unattended: float) -> Iterator[Finding]:
    name = stats.name
    silent, waiting = silence(stats) or 0.0, stats.oldest_age or 0.0
    if stats.paused_since:
        by = f" by {stats.paused_by}" if stats.paused_by else ""
        what = f"{name} is paused since {moment(stats.paused_since)}{by}, {stats.ready} jobs are ready"
        yield Finding("paused", "warning", what, "nobody is given a job", f"boundq resume {name}", name)
    elif waiting > unattended and not stats.active and silent > unattended:
        ever = stats.claimed_at is not None
        last = f"nobody has asked for one for {duration(silent)}" if ever else "nobody has ever asked for one"
        what = f"{name}: {stats.ready + stats.scheduled} jobs wait, the oldest for {duration(waiting)}, and {last}"
        why = "they stay until the queue is full and enqueues are refused; is a worker down, or was the queue renamed?"
        severity: Severity = "critical" if stats.fill >= BUDGET_WARN else "warning"
        yield Finding("consumers", severity, what, why, f"start a worker: boundq worker MODULE:{name}", name)
    if stats.sealed_since:
        by = f" by {stats.sealed_by}" if stats.sealed_by else ""
        what = f"{name} is sealed since {moment(stats.sealed_since)}{by}"
        yield Finding("sealed", "warning", what, "every enqueue is refused", f"boundq unseal {name}", name)
    if stats.imbalance or stats.ready < 0:
        what = (
            f"{name}: {stats.imbalance} jobs are unaccounted for"
            if stats.imbalance
            else f"{name}: ready is {stats.ready}"
        )
        why = "keys were evicted, deleted or edited, or a fail-over lost some"
        yield Finding(
            "accounting", "critical", what, why, f"boundq audit {name}, then boundq audit {name} --repair", name
        )
    elif stats.bytes < 0 or stats.dead_bytes < 0 or (stats.bytes > 0 and not stats.jobs and not stats.unique_keys):
        what = f"{name}: {stats.bytes} B charged for {stats.jobs} jobs"
        yield Finding("accounting", "critical", what, "the bound is off by that", f"boundq audit {name} --repair", name)
    else:
        yield Finding("accounting", "ok", f"{name}: the ledger is even", queue=name)


def _names(facts: Facts, known: Sequence[str]) -> Iterator[Finding]:
    if not known:
        return
    here = set(facts.names or [one.name for one in facts.stats])
    for name in sorted(here - set(known)):
        why = "a name that is misspelt, or was changed, fills up and nobody looks"
        todo = f"boundq stats {name}; boundq purge {name} --to FILE"
        yield Finding("names", "warning", f"queue {name} is not among those that are known", why, todo, name)
    for name in sorted(set(known) - here):
        yield Finding("names", "warning", f"there is no queue {name}", "nothing was ever enqueued to it here", "", name)


_FORBIDDEN = (
    "a managed server, or this user's ACL, does not let us see it",
    "look at the provider's console, or run it as a user who may",
)
_SHARED = (
    "they share maxmemory: when they grow, enqueues are refused, and a backlog of jobs takes their room",
    "give the queues a server of their own, or leave room: `boundq plan --foreign SIZE`",
)
_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *(_version, _eviction, _memory, _used, _persistence, _replication, _cluster),
    *(_clock, _clients, _foreign, _scripts, _acl, _broken),
)


def _setting(facts: Facts, config: str, info: str) -> str | None:
    return (facts.config or {}).get(config) or (facts.info or {}).get(info)


def _number(facts: Facts, config: str, info: str) -> int | None:
    text = _setting(facts, config, info)
    return int(text) if text is not None and text.isdecimal() else None
