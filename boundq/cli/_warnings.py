"""What an operator should know at once, of a queue and of its server. Facts from the numbers, nothing is asked."""

from __future__ import annotations

import msgspec

from boundq._rates import Trace
from boundq._sizes import duration, format_size, moment
from boundq.cli._text import printable
from boundq.model import Stats

# Jobs were ready and nobody claimed one for so long; or, where there was one look only, the oldest waits for so long.
UNCLAIMED_SECONDS = 5.0
WAITING_SECONDS = 30.0
# Shares of a limit.
NEARLY_FULL = 0.8
MEMORY_NEAR = 0.9


class Warned(msgspec.Struct, frozen=True):
    """A code that stays what it is, and a sentence."""

    code: str
    text: str


class Memory(msgspec.Struct, frozen=True):
    """The server's memory in bytes; ``known`` is False where it does not say."""

    used: int = 0
    max: int = 0
    policy: str = "unknown"
    cluster: bool = False
    known: bool = False

    @classmethod
    def of(cls, info: dict[str, str]) -> Memory:
        """Out of INFO."""
        return cls(
            int(info.get("used_memory", 0)),
            int(info.get("maxmemory", 0)),
            info.get("maxmemory_policy", "unknown"),
            info.get("cluster_enabled") == "1",
            "used_memory" in info,
        )

    def text(self) -> str:
        """In words."""
        if not self.known:
            return "server memory unknown"
        if not self.max:
            return f"server memory {format_size(self.used)}, no maxmemory set"
        return f"server memory {format_size(self.used)} of {format_size(self.max)} ({printable(self.policy, 40)})"


def of_queue(stats: Stats, trace: Trace) -> list[Warned]:
    """What is wrong with a queue."""
    found = [Warned(*one) for one in _switches(stats)]
    if unclaimed := _unclaimed(stats, trace):
        found.append(Warned("no_consumer", unclaimed))
    rates = trace.rates()
    if rates and rates.rejected.value:
        found.append(Warned("refusing", f"refuses {number(rates.rejected.value)} jobs/s"))
    if stats.fill >= NEARLY_FULL:
        found.append(Warned("fill", f"{stats.fill:.0%} full"))
    most, most_bytes = stats.limits.max_dead_jobs, int(stats.limits.max_dead_bytes)
    dead = max(stats.dead / most, stats.dead_bytes / most_bytes)
    if dead >= NEARLY_FULL:
        found.append(Warned("dead", f"dead letters {dead:.0%} full: the oldest are dropped when they reach the limit"))
    if stats.imbalance:
        found.append(Warned("imbalance", f"{stats.imbalance} jobs are not accounted for"))
    return found


def of_server(memory: Memory) -> list[Warned]:
    """What is wrong with the server."""
    found = []
    if memory.cluster:
        text = "a cluster: only the queues of the node that answered were found; name the others"
        found.append(Warned("cluster", text))
    if not memory.known:
        return [*found, Warned("memory_unknown", "the server does not say what memory it has (INFO is forbidden)")]
    if memory.policy not in ("noeviction", "unknown"):
        text = (
            f"maxmemory-policy is {printable(memory.policy, 40)}: a full server may throw queues away; set noeviction"
        )
        found.append(Warned("eviction", text))
    if not memory.max:
        found.append(Warned("maxmemory_unset", "maxmemory is not set: the server can take all of the machine's memory"))
    elif memory.used >= memory.max * MEMORY_NEAR:
        found.append(Warned("memory_near", f"server memory is {memory.used / memory.max:.0%} of maxmemory"))
    return found


def number(value: float) -> str:
    """At most 6 characters: ``0.31``, ``12``, ``4.2k``, ``1.3M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    if value >= 10 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _switches(stats: Stats) -> list[tuple[str, str]]:
    switches = (("paused", stats.paused_since, stats.paused_by), ("sealed", stats.sealed_since, stats.sealed_by))
    return [
        (word, f"{word} since {moment(since)}{f', by {printable(by)}' if by else ''}")
        for word, since, by in switches
        if since
    ]


def _unclaimed(stats: Stats, trace: Trace) -> str:
    """There is no list of workers: what can be said is that jobs were there to be had, and nobody took one."""
    if stats.paused_since or not stats.ready:
        return ""
    seconds = trace.unclaimed()
    if stats.active:
        # Leases are in somebody's hands, unless they have ended: then a claim would have taken them first.
        if stats.scheduled or stats.next_event != 0 or seconds < UNCLAIMED_SECONDS:
            return ""
        return f"no consumer: leases have ended and nobody has claimed a job for {duration(seconds)}"
    if seconds >= UNCLAIMED_SECONDS:
        return f"no consumer: {stats.ready} jobs ready, none active, none claimed for {duration(seconds)}"
    if (stats.oldest_age or 0) >= WAITING_SECONDS and not trace.claimed():
        waits = duration(stats.oldest_age)
        return f"no consumer? {stats.ready} jobs ready, none active, the oldest has been waiting for {waits}"
    return ""
