"""What `doctor` looks at, read from a server in bounded steps. What an ACL, or a managed server, forbids is None."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from boundq import Limits, Server, Stats
from boundq._keys import PARTS, Keys
from boundq._ops.acl import ROLES, trials
from boundq._scripts import every
from boundq.errors import Unavailable
from boundq.model import as_text

# The walk over foreign keys ends after so many keys; so many of them are measured.
MOST_KEYS = 1_000_000
SAMPLE = 100
# Queues that are small enough are audited without being asked to.
SMALL = 5000
_OURS = re.compile(r"boundq:\{([A-Za-z0-9._-]{1,64})\}:([a-z0-9]+)\Z")
_SETTINGS = ("maxmemory", "maxmemory-policy", "save", "appendonly", "appendfsync", "maxclients")


class Foreign(msgspec.Struct, frozen=True):
    """
    Keys that are not boundq's.

    Args:
        keys: So many were met.
        bytes: About so many bytes for them, from a sample; None: they could not be measured.
        whole: All keys of the database were looked at.
        prefixes: The commonest beginnings, and how many keys have them.
        headless: Queues without a state, and which of their keys are left.
    """

    keys: int
    bytes: int | None
    whole: bool
    prefixes: list[tuple[str, int]]
    headless: list[tuple[str, list[str]]]


class Facts(msgspec.Struct, kw_only=True):
    """All that was read."""

    info: dict[str, str] | None = None
    config: dict[str, str] | None = None
    cluster: dict[str, str] | None = None
    skew: tuple[float, float] | None = None  # server's clock minus ours, and how far off that may be; seconds
    names: list[str] | None = None  # of all queues
    stats: list[Stats] = []  # of those that are looked at
    limits: list[Limits] = []  # of all queues that can be read
    unread: int = 0  # so many of all cannot
    broken: list[tuple[str, str]] = []  # a queue, and why it cannot be read
    foreign: Foreign | None = None
    scripts: str | None = None  # "" loaded; else why not
    user: str = ""
    roles: dict[str, list[str]] | None = None  # role -> commands it needs and the user may not run


def read(server: Server, queues: Sequence[str] = (), *, user: str = "", roles: Sequence[str] = ROLES) -> Facts:
    """Read everything; nothing is changed, but that the server knows boundq's scripts afterwards."""
    facts = Facts(info=_pairs(_try(server, "INFO")))
    facts.config = _config(server)
    if facts.info is not None and facts.info.get("cluster_enabled") == "1":
        facts.cluster = _pairs(_try(server, "CLUSTER", "INFO"))
    facts.skew = _skew(server)
    if facts.info is not None and too_old(facts.info):
        return facts
    facts.scripts = _scripts(server)
    facts.foreign, facts.names = _keys(server)
    looked_at = queues or facts.names or ()
    for name, found in server.stats(list(dict.fromkeys([*looked_at, *(facts.names or ())]))).items():
        if isinstance(found, Stats):
            facts.limits.append(found.limits)
            facts.stats += [found] if name in looked_at else []
        else:
            facts.unread += 1
            facts.broken += [(name, str(found))] if name in looked_at else []
    facts.user, facts.roles = _roles(server, user, roles, list(queues) or [one.name for one in facts.stats][:1])
    return facts


def version(info: dict[str, str]) -> tuple[str, tuple[int, ...]]:
    """The server's name, and its version as numbers."""
    kind = "Valkey" if "valkey_version" in info else "Redis"
    text = info.get("valkey_version") or info.get("redis_version", "")
    return kind, tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def too_old(info: dict[str, str]) -> bool:
    """Whether it is older than boundq needs."""
    kind, number = version(info)
    return bool(number) and number < ((7, 2) if kind == "Valkey" else (7, 0))


def _try(server: Server, *words: bytes | str | int) -> Any:
    """A command's reply; None where it is forbidden or not known."""
    try:
        return server.command(*words)
    except Unavailable as error:
        if error.reason in ("no_permission", "protocol"):
            return None
        raise


def _config(server: Server) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for setting in _SETTINGS:
        reply = _try(server, "CONFIG", "GET", setting)
        if reply is None:
            return None
        if len(reply) == 2:
            found[setting] = as_text(reply[1])
    return found or None


def _pairs(reply: Any) -> dict[str, str] | None:
    if reply is None:
        return None
    return dict(line.split(":", 1) for line in as_text(reply).splitlines() if ":" in line)


def _skew(server: Server) -> tuple[float, float] | None:
    best: tuple[float, float] | None = None
    for _ in range(3):
        before, clock = time.monotonic(), time.time()
        reply = _try(server, "TIME")
        if reply is None:
            return None
        trip = time.monotonic() - before
        offset = int(reply[0]) + int(reply[1]) / 1e6 - (clock + trip / 2)
        if best is None or trip / 2 < best[1]:
            best = offset, trip / 2
    return best


def _scripts(server: Server) -> str | None:
    for script in every():
        try:
            server.command("SCRIPT", "LOAD", script.text)
        except Unavailable as error:
            if error.reason == "no_permission":
                return None
            return f"{script.name}: {error.detail or error}"
    return ""


def _keys(server: Server) -> tuple[Foreign | None, list[str] | None]:
    """One walk over the server's keys: those of others, and the names of all queues."""
    cursor, looked, count = "0", 0, 0
    sample: list[bytes] = []
    prefixes: Counter[str] = Counter()
    parts: dict[str, set[str]] = {}
    while True:
        # Beyond so many keys only the names of queues are of interest, and the server picks them out.
        cut = looked >= MOST_KEYS
        reply = _try(server, "SCAN", cursor, *(("MATCH", "boundq:{*}:state") if cut else ()), "COUNT", 1000)
        if reply is None:
            return None, None
        cursor = as_text(reply[0])
        for key in reply[1]:
            looked += 1
            match = _OURS.match(as_text(key))
            if match and match[2] in PARTS:
                parts.setdefault(match[1], set()).add(match[2])
                continue
            if cut:
                continue
            count += 1
            prefixes[re.split(r"[:./|{-]", as_text(key), maxsplit=1)[0][:30]] += 1
            # A fair sample of keys whose number is not known beforehand.
            if len(sample) < SAMPLE:
                sample.append(key)
            elif (place := random.randrange(count)) < SAMPLE:
                sample[place] = key
        if len(prefixes) > 1000:
            prefixes = Counter(dict(prefixes.most_common(100)))
        if cursor == "0":
            break
    sizes = []
    for key in sample:
        size = _try(server, "MEMORY", "USAGE", key)
        if size is not None:
            sizes.append(int(size))
    size = round(sum(sizes) / len(sizes) * count) if sizes else None
    headless = []
    for name in sorted(name for name, found in parts.items() if "state" not in found and not cut):
        # The walk sees no single moment: the queue may have been created, or deleted, since it passed.
        left = [part for part in sorted(parts[name]) if _exists(server, name, part)]
        if left and not _exists(server, name, "state", unknown=False):
            headless.append((name, left))
    foreign = Foreign(count, 0 if count == 0 else size, not cut, prefixes.most_common(3), headless)
    return foreign, sorted(name for name, found in parts.items() if "state" in found)


def _exists(server: Server, queue: str, part: str, *, unknown: bool = True) -> bool:
    """``unknown``: what to take for the answer where EXISTS is forbidden."""
    reply = _try(server, "EXISTS", *Keys(queue).of(part))
    return unknown if reply is None else bool(reply)


def _roles(
    server: Server, user: str, roles: Sequence[str], queues: Sequence[str]
) -> tuple[str, dict[str, list[str]] | None]:
    if not user:
        reply = _try(server, "ACL", "WHOAMI")
        if reply is None:
            return "", None
        user = as_text(reply)
    found: dict[str, list[str]] = {}
    for role in roles:
        found[role] = []
        for queue in queues or ["any"]:
            for words in trials(role, queue):
                reply = _try(server, "ACL", "DRYRUN", user, *words)
                if reply is None:
                    return user, None
                if as_text(reply) != "OK":
                    found[role].append(" ".join(words[:1] if words[0] != "SCRIPT" else words[:2]))
        found[role] = sorted(set(found[role]))
    return user, found
