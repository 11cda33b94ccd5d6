"""What the verbs for operators have in common: examples that run, a full server, hostile bytes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from boundq import Limits, Queue
from tests._servers import Server
from tests.conftest import FreshServer

VERBS = ("doctor", "plan", "audit", "check", "acl", "calibrate", "reap")


def run(url: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "BOUNDQ_URL": url, "NO_COLOR": "1", "COLUMNS": "200"}
    program = [sys.executable, "-m", "boundq", *words]
    return subprocess.run(program, env=env, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def sound(fresh_server: FreshServer) -> Server:
    """A server that doctor finds nothing wrong with, and the two queues that the examples name."""
    server = fresh_server(appendonly="yes", maxmemory="64mb")
    for name in ("emails", "reports"):
        queue = Queue(name, server.url, limits=Limits(max_bytes="2 MiB", max_dead_bytes="1 MiB"))
        queue.enqueue_bytes(b"x")
        assert queue.claim(lease=3600)
    server.cli("ACL", "SETUSER", "shop", "on", ">p", "~*", "+@all")
    return server


@pytest.mark.parametrize("verb", VERBS)
def test_examples_run(sound: Server, tmp_path: Path, verb: str) -> None:
    """Every example of ``--help``, as far as it is boundq's, ends with 0."""
    text = run(sound.url, verb, "--help").stdout
    lines = [line.strip() for line in text.partition("Examples:")[2].splitlines()]
    examples = [line.split(" | ")[0].split(" > ")[0] for line in lines if line.startswith("boundq ")]
    assert len(examples) >= 2
    if verb == "calibrate":  # which measures memory: not beside a buffer that grows while the disk is slow
        sound.cli("CONFIG", "SET", "appendonly", "no")
    for example in examples:
        words = shlex.split(example)[1:]
        assert words[0] == verb
        done = run(sound.url, *words, *(("--timeout", "60") if verb == "check" else ()), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), example
        assert done.stdout.strip()


def test_on_a_full_server(fresh_server: FreshServer) -> None:
    """At maxmemory they work; doctor says so."""
    server = fresh_server(appendonly="yes", maxmemory="64mb")
    queue = Queue("emails", server.url, limits=Limits(max_bytes="2 MiB", max_dead_bytes="1 MiB"))
    queue.enqueue_many([b"x"] * 100)
    server.cli("CONFIG", "SET", "maxmemory", 1_000_000)
    server.cli("SCRIPT", "FLUSH")
    for words, code in (
        (["audit"], 0),
        (["audit", "--repair"], 0),
        (["check", "--timeout", "60"], 0),
        (["reap"], 0),
        (["plan", "--existing"], 0),
        (["doctor"], 2),
        (["calibrate", "--yes"], 78),
    ):
        done = run(server.url, *words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    assert queue.stats().jobs == 100


def test_hostile_text_steers_no_terminal(fresh_server: FreshServer) -> None:
    """Names of keys and users, who paused and why: no control reaches the terminal."""
    server = fresh_server()
    evil = "\x1b]52;c;aGk=\x07\x9b31m\u202eevil\nnext"
    queue = Queue("emails", server.url)
    queue.enqueue_bytes(b"x", headers={"a": evil})
    queue.pause(evil)
    queue.seal(evil)
    server.cli("SET", evil, "x")
    server.cli("SET", b"\xff\x1b[2J", "x")
    for words in (["doctor"], ["doctor", "--json"], ["doctor", "--known", "emails"], ["check", "--warn", f"{evil}=1"]):
        done = run(server.url, *words)
        printed = done.stdout + done.stderr
        assert printed
        assert not set(printed) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "Traceback" not in printed


def test_the_docs_name_every_finding_and_show_what_is_printed() -> None:
    """docs/operations.md has a row for each check of doctor's, and its sizing example is what the program prints."""
    root = Path(__file__).parents[2]
    text = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    sources = [root / "boundq" / path for path in ("_ops/diagnose.py", "cli/doctor.py")]
    names = {name for path in sources for name in re.findall(r'Finding\(\s*"([a-z]+)"', path.read_text())}
    assert len(names) > 15
    table = text.partition("## doctor")[2].partition("## check")[0]
    assert {name for name in names if f"`{name}`" not in table} == set()
    block = text.partition("    $ boundq plan")[2]
    command, _, shown = ("plan" + block).partition("\n")
    expected = [line.removeprefix("    ").rstrip() for line in shown.partition("\nA job of")[0].splitlines()]
    printed = [line.rstrip() for line in run("", *shlex.split(command)).stdout.splitlines()]
    while expected and not expected[-1]:
        expected.pop()
    assert printed[: len(expected)] == expected
