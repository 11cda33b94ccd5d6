"""The head of every script is true: keys, arguments, statuses, flags; and no script does what none may do."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lupa.lua51
import pytest

from boundq import _status
from boundq._core.audit import STEP as AUDIT_STEP
from boundq._core.control import EVENTS_PAGE, PURGE_STEP, RETRY_STEP
from boundq._scripts import load, source
from boundq.sync import archive

FOLDER = Path(__file__).resolve().parent.parent.parent / "lua"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.lua"))
PIECES = sorted(path.stem for path in (FOLDER / "lib").glob("*.lua"))

GLOBALS = {
    *("KEYS", "ARGV", "redis", "string", "table", "math", "cjson"),
    *("tonumber", "tostring", "type", "ipairs", "pairs", "unpack", "select", "next", "error", "assert"),
}
"""What a script may use without `local`: what Redis, Valkey and fakeredis have, and nothing of `os` or `bit`."""

READS = {"audit", "events", "get", "peek", "recount", "stats"}
ADMITS = {"enqueue", "enqueue_general"}


def header(name: str) -> str:
    """The comment at the top of the file, without the marks."""
    lines = []
    for line in (FOLDER / f"{name}.lua").read_text().split("\n")[1:]:
        if not line.startswith("--"):
            break
        lines.append(line[2:].removeprefix(" "))
    return "\n".join(lines)


def section(name: str, title: str) -> str:
    """What stands under KEYS, ARGV, RETURNS or COST, or beside it."""
    match = re.search(rf"^{title}\b(.*?)(?=^(?:KEYS|ARGV|RETURNS|COST)\b|\Z)", header(name), re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


def declared(text: str) -> set[int]:
    """The places that a section numbers: ``1 state  2 jobs  4..7 due0..due3  5.. envelopes``."""
    places: set[int] = set()
    for first, dots, last in re.findall(r"(?:^|  )(\d+)(\.\.)?(\d+)?(?= )", text.replace("\n", "  "), re.MULTILINE):
        end = int(last) if last else 10_000 if dots else int(first)
        places |= set(range(int(first), end + 1))
    return places


def code(name: str) -> str:
    """The whole script, its pieces included, without comments and strings of prose."""
    return re.sub(r"--[^\n]*", "", source(name))


def constants(name: str, table: str) -> set[int]:
    """The places of KEYS or ARGV that the code names by number, those of ``KEYS[4 + k]`` by the number it adds to."""
    return {int(number) for number in re.findall(rf"\b{table}\[(\d+)", code(name))}


@cache
def _dump() -> object:
    runtime = lupa.lua51.LuaRuntime(encoding=None)
    return runtime.eval(b"function(text) return string.dump(assert(loadstring(text))) end")


def compiled(text: str) -> bytes:
    """Bytecode of Lua 5.1, which every server runs; a LuaError where the text is none."""
    return bytes(_dump()(text.encode()))


def global_uses(bytecode: bytes) -> Iterator[tuple[str, str]]:
    """Each ``get`` or ``set`` of a global variable, in the chunk and in the functions inside it."""
    at = 12  # signature, version, format, endianness, sizes
    int_size, size_size, number_size = bytecode[7], bytecode[8], bytecode[10]

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return bytecode[at - count : at]

    def number(size: int = int_size) -> int:
        return int.from_bytes(take(size), "little")

    def text() -> bytes:
        return take(number(size_size))[:-1]

    def function() -> Iterator[tuple[str, str]]:
        text()
        take(2 * int_size + 4)
        words = [struct.unpack("<I", take(4))[0] for _ in range(number())]
        names: list[bytes] = []
        for _ in range(number()):
            kind = take(1)[0]
            names.append({0: lambda: b"", 1: lambda: take(1), 3: lambda: take(number_size), 4: text}[kind]())
        for word in words:
            if word & 0x3F in (5, 7):  # GETGLOBAL, SETGLOBAL
                yield ("get" if word & 0x3F == 5 else "set"), names[word >> 14].decode()
        for _ in range(number()):
            yield from function()
        take(number() * int_size)
        for _ in range(number()):
            text()
            take(2 * int_size)
        for _ in range(number()):
            text()

    yield from function()


def test_scripts_are_found() -> None:
    """There are scripts and pieces: no test here passes because it looked nowhere."""
    assert {"enqueue", "claim", "settle"} <= set(SCRIPTS)
    assert {"status", "charge"} <= set(PIECES)
    assert all(load(name).text == source(name) for name in SCRIPTS)


def test_the_check_of_globals_works() -> None:
    """A global that is set or read is found, in inner functions too."""
    found = set(global_uses(compiled("local a = 1\nlocal function f() leak = os.time() + a end\nreturn f")))
    assert found == {("set", "leak"), ("get", "os")}
    with pytest.raises(lupa.lua51.LuaError):
        compiled("local = 5")


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_is_complete(name: str) -> None:
    """Name and purpose, KEYS, ARGV where there are any, RETURNS, COST."""
    head = header(name)
    assert head.startswith(f"{name}: ")
    for title in ("KEYS", "RETURNS", "COST"):
        assert section(name, title).strip(), f"no {title}"
    assert ("ARGV" in head) == bool(re.search(r"\bARGV\b", code(name)))


@pytest.mark.parametrize("name", SCRIPTS)
def test_keys_used_are_declared(name: str) -> None:
    """Every KEYS[n] of the code stands in the header, and the last of the header is used or passed on."""
    named = declared(section(name, "KEYS"))
    used = constants(name, "KEYS")
    assert used <= named, f"used, not declared: {sorted(used - named)}"
    assert named == set(range(1, max(named) + 1)), "a gap"
    if "ipairs(KEYS)" not in code(name):
        reached = {place + offset for place in used for offset in range(4)} if "KEYS[4 +" in code(name) else used
        if "KEYS[8 +" in code(name):
            reached |= {8, 9, 10, 11}
        assert named <= reached | used, f"declared, not used: {sorted(named - reached)}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_arguments_used_are_declared(name: str) -> None:
    """Every ARGV[n] of the code stands in the header."""
    used = constants(name, "ARGV")
    named = declared(section(name, "ARGV"))
    assert used <= named, f"used, not declared: {sorted(used - named)}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_statuses_named_exist_and_are_returned(name: str) -> None:
    """RETURNS names statuses of lib/status only, all that the code can answer, and none that it cannot."""
    known = {key for key, value in vars(_status).items() if isinstance(value, int)}
    named = set(re.findall(r"\b[A-Z][A-Z_]{1,}\b", section(name, "RETURNS"))) & known
    text = code(name)
    body = text.replace(re.sub(r"--[^\n]*", "", source("lib/status")), "")
    answered = set(re.findall(r"\b[A-Z][A-Z_]+\b", body)) & known
    assert answered - named == set(), f"answered, not in RETURNS: {answered - named}"
    assert named - answered == set(), f"in RETURNS, never answered: {named - answered}"


def test_statuses_mirror_python() -> None:
    """lua/lib/status.lua and boundq/_status.py are one table."""
    text = re.sub(r"--[^\n]*", "", source("lib/status"))
    found: dict[str, int] = {}
    for names, values in re.findall(r"local ([A-Z_, ]+?) = ([\d, ]+)", text):
        found.update(zip(names.split(", "), map(int, values.split(", ")), strict=True))
    assert found == {key: value for key, value in vars(_status).items() if key.isupper() and isinstance(value, int)}
    assert len(set(found.values())) == len(found)
    assert set(_status.REASONS) <= set(found.values())


@pytest.mark.parametrize("name", SCRIPTS)
def test_flags(name: str) -> None:
    """Reads say so; all but the enqueues run at maxmemory; the enqueues must not (R-85)."""
    first = (FOLDER / f"{name}.lua").read_text().split("\n", 1)[0]
    if name in ADMITS:
        assert first == "#!lua"
    elif name in READS:
        assert first == "#!lua flags=no-writes,allow-oom"
    else:
        assert first == "#!lua flags=allow-oom"


WRITES = {
    *("HSET", "HDEL", "HINCRBY", "ZADD", "ZREM", "RPUSH", "LPUSH", "LPOP", "DEL", "UNLINK", "XADD", "SET", "INCR"),
    *("INCRBY", "EXPIRE", "PEXPIRE", "SADD", "SREM", "RENAME", "ZREMRANGEBYSCORE", "ZREMRANGEBYRANK", "PUBLISH"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_commands(name: str) -> None:
    """
    No step over everything (KEYS, SCAN, whole ranges), no fan-out, no key with a time to live; a script that says
    it only reads does so.
    """
    text = code(name)
    commands = set(re.findall(r"\bp?call\(\s*'([A-Za-z]+)'", text))
    assert commands, "no command found: the pattern is wrong"
    assert not re.search(r"\bp?call\(\s*[^'\s]", text), "a command that is not spelled out"
    forbidden = {
        *("KEYS", "SCAN", "SSCAN", "SMEMBERS", "HKEYS", "HVALS", "PUBLISH", "SORT", "FLUSHDB", "FLUSHALL"),
        *("EXPIRE", "PEXPIRE", "EXPIREAT", "SETEX", "PSETEX", "EVAL", "EVALSHA", "RANDOMKEY", "SUNION", "HGETALL"),
    }
    assert not commands & forbidden
    assert not commands & {"HSCAN", "ZSCAN"} or name in ("recount", "audit")
    assert not re.search(r"'Z?RANGE'[^\n]*,\s*0\s*,\s*-1", text), "a whole range"
    assert not re.search(r"'LRANGE'[^\n]*-1", text)
    for ranged in re.findall(r"\bcall\('ZRANGE',[^\n]*(?:\n[^\n]*)?", text):
        assert "LIMIT" in ranged or "BYSCORE" not in ranged, f"not bounded: {ranged}"
    own = set(re.findall(r"\bp?call\(\s*'([A-Z]+)'", re.sub(r"--[^\n]*", "", (FOLDER / f"{name}.lua").read_text())))
    assert not own & WRITES if name in READS else commands & WRITES


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_local_variables(name: str) -> None:
    """No script sets a global, and none reads one that a server may not have."""
    uses = set(global_uses(compiled(load(name).plain)))
    assert {variable for kind, variable in uses if kind == "set"} == set()
    assert {variable for kind, variable in uses if kind == "get"} <= GLOBALS


@pytest.mark.parametrize("name", SCRIPTS)
def test_includes_resolve(name: str) -> None:
    """Every include is replaced, once each in one scope, and its file exists."""
    raw = (FOLDER / f"{name}.lua").read_text()
    included = re.findall(r"-- @include (\S+)", raw)
    assert all((FOLDER / f"{piece}.lua").is_file() for piece in included)
    whole = re.findall(r"^-- @include (\S+)", raw, re.MULTILINE)  # an indented one is in a block's scope
    assert len(whole) == len(set(whole))
    assert "@include" not in source(name)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("remove", PURGE_STEP),
        ("purge", PURGE_STEP),
        ("take", archive.STEP),
        ("retry_dead", RETRY_STEP),
        ("drop_texts", AUDIT_STEP),
        ("events", EVENTS_PAGE),
    ],
)
def test_steps_are_as_the_callers_send_them(name: str, most: int) -> None:
    """A header says how much comes in one call: as much as is sent, no other figure."""
    assert re.findall(r"at most (\d+)", section(name, "ARGV")) == [str(most)]


def test_every_piece_is_used() -> None:
    """A piece that no script includes is dead."""
    text = "".join(path.read_text() for path in FOLDER.rglob("*.lua"))
    assert {f"lib/{piece}" for piece in PIECES} == set(re.findall(r"-- @include (\S+)", text))


@pytest.mark.parametrize("name", SCRIPTS)
def test_names_are_constant(name: str) -> None:
    """All key names come in through KEYS: none is put together inside a script (R-42)."""
    assert "boundq:" not in code(name)
    assert not re.search(r"KEYS\[\d+\]\s*\.\.", code(name))
