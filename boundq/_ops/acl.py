"""
The smallest ACL rule for each role.

A script runs with the rights of its caller, command by command, so a rule names the commands that the role's scripts
use (read out of the scripts), on the keys on which they use them. EVALSHA itself needs all declared keys; it has a
selector of its own, in which nothing else may be done with them. Nobody but a worker and an admin may load scripts:
who may not can run none of his own, and waits for one who may after the server has lost them (`boundq/_attempt.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from boundq._keys import check_name
from boundq._scripts import every, source
from boundq.errors import ConfigError

Role = Literal["producer", "worker", "inspector", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

_CALLED = re.compile(r"\bp?call\('([A-Z]+)'")
# What each connection says first, and the scripts' clock.
_ALWAYS = ("ping", "time")
_WORKER = ("attach", "enqueue", "enqueue_general", "claim", "settle", "extend", "stats", "get")
# What an inspector's scripts include and never call: pieces are included whole.
_WRITES = ("hdel", "hincrby", "hset", "zadd", "zrem")
# Of the whole server: they name keys and settings of others, so they are given with all queues only, and to an admin.
_SERVER_WIDE = ("info", "scan", "config|get", "memory|usage", "dbsize", "exists")

# What a producer's scripts do, by keys. It reads no envelope (no %R on jobs) and takes no job out.
_PRODUCER: tuple[tuple[str, str], ...] = (
    ("+type", "%R~*"),
    ("+hget +hmget +hset +hincrby +hlen", "~state"),
    ("+hlen +hexists +hset", "%W~jobs"),
    ("+llen +rpush", "~wake ~room ~turn"),
    ("+blpop +del", "~room ~turn"),
    ("+zcard +zadd", "%W~due?"),
    ("+zcard +zscore", "%R~dead %R~leases"),
    ("+hlen +hget +hset +hdel", "~unique"),
    ("+zcard +zscore +zrange +zadd +zrem", "~windows"),
)


def rules(role: str, queues: Sequence[str] = (), *, may_load: bool = False) -> list[str]:
    """
    The words of ``ACL SETUSER`` behind the user's name, which leave his passwords as they are.

    Args:
        role: One of `ROLES`.
        queues: Names; none: all queues of the server.
        may_load: He may load scripts: so boundq's where the server has lost them, and his own.

    Raises:
        ConfigError: Another role, or a name that is none.
    """
    if role not in ROLES:
        raise ConfigError("role", role, f"it must be one of {', '.join(ROLES)}")
    names = [check_name(queue, "queue name") for queue in queues] or ["*"]
    words = ["on", "resetkeys", "resetchannels", "clearselectors", "-@all", *(f"+{name}" for name in _ALWAYS)]
    if may_load or role in ("worker", "admin"):
        words.append("+script|load")
    if role == "producer":
        return [*words, _selector("+evalsha", _keys("~*", names)), *_producer(names)]
    if role == "inspector":
        words += [
            *(word for word in _commands(_reading()) if word[1:] not in _WRITES),
            "+xrange",
            "+xrevrange",
            *_keys("%R~*", names),
        ]
        words += [f"+{name}" for name in _SERVER_WIDE] if not queues else []
        return [*words, _selector("+evalsha", _keys("~*", names))]
    if role == "worker":
        return [*words, "+evalsha", "+blpop", *_commands(_WORKER), *_keys("~*", names)]
    scripts = [script.name for script in every()]
    reads = ("+xrange", "+xrevrange", *(f"+{name}" for name in _SERVER_WIDE))
    return [*words, "+evalsha", "+blpop", *dict.fromkeys([*_commands(scripts), *reads]), *_keys("~*", names)]


# What each command gets, behind its key, where it is only to be tried whether a user may run it.
_TRIED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("hget", "hmget", "hdel", "hexists", "hstrlen", "rpush", "zrem", "zscore", "zmscore", "zrank"), ("x",)
    ),
    **dict.fromkeys(("type", "hlen", "llen", "del", "exists", "zcard", "xlen"), ()),
    **dict.fromkeys(("hset", "zadd"), ("1", "x")),
    **dict.fromkeys(("hincrby", "hsetnx"), ("x", "1")),
    **dict.fromkeys(("zrange", "zcount"), ("0", "1")),
    **dict.fromkeys(("hscan", "zscan"), ("0",)),
    "blpop": ("1",),
    "xadd": ("*", "x", "1"),
    "xrange": ("-", "+"),
    "xrevrange": ("+", "-"),
}


def trials(role: str, queue: str) -> list[list[str]]:
    """Commands to try with ``ACL DRYRUN``: one that is refused is one that the role needs and the user lacks."""
    check_name(queue, "queue name")
    found = [["EVALSHA", "0" * 40, "1", f"boundq:{{{queue}}}:state"], ["TIME"]]
    if role == "producer":
        pairs = [
            (command, key.replace("*", "state").replace("?", "0"))
            for commands, keys in _PRODUCER
            for command in commands.split()
            for key in _keys_of(keys, queue)
        ]
    else:
        found += [["SCRIPT", "LOAD", "return 1"]] if role != "inspector" else []
        part = f"boundq:{{{queue}}}:jobs"
        pairs = [(word, part) for word in rules(role, [queue]) if word.startswith("+") and word[1:] in _TRIED]
    return found + [[word[1:].upper(), key, *_TRIED[word[1:]]] for word, key in pairs]


def _keys_of(patterns: str, queue: str) -> list[str]:
    return [key.rpartition("~")[2] for pattern in patterns.split() for key in _keys(pattern, [queue])]


def _producer(names: Sequence[str]) -> list[str]:
    return [
        _selector(commands, [key for one in keys.split() for key in _keys(one, names)]) for commands, keys in _PRODUCER
    ]


def _reading() -> list[str]:
    """Scripts that say of themselves that they write nothing."""
    return [script.name for script in every() if "no-writes" in script.text.partition("\n")[0]]


def _commands(scripts: Sequence[str]) -> list[str]:
    """Of these scripts, without those that everybody has."""
    found = {command.lower() for script in scripts for command in _CALLED.findall(source(script))}
    return [f"+{command}" for command in sorted(found - set(_ALWAYS))]


def _keys(pattern: str, names: Sequence[str]) -> list[str]:
    access, _, part = pattern.rpartition("~")
    return [f"{access}~boundq:{{{name}}}:{part}" for name in names]


def _selector(commands: str, keys: Sequence[str]) -> str:
    return f"(-@all {commands} {' '.join(keys)})"
