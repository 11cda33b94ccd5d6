"""Other people's bytes, and our own secrets: nothing printed steers a terminal, and no password is printed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from boundq import Limits, Queue
from boundq._job import Prepared
from boundq.cli._jobs import details, in_full, summary
from tests._servers import Server, wait_until
from tests.cli.conftest import Run
from tests.conftest import FreshServer

STEERING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
NASTY = [
    b"\x1b]52;c;aGk=\x07",
    b"\x1b[2J\x1b[31m",
    b"\x1b]0;title\x1b\\",
    b"\x1b]8;;http://x\x1b\\",
    b"\x9b31m",
    "\u202eevil\u2066\u2069".encode(),
    "\u2028\u2029\u0085".encode(),
    "\ue000\U000e0001\ufeff\u200b".encode(),
    b"\x00\x01\x7f\r\n\t\x08\x0c",
    b"\xff\xfe\xc3\x28\xed\xa0\x80",
    b"[bold red]x[/] {} %s $(id) `id`",
    "é日本👩‍👩‍👧".encode(),
    b'"\\"',
]


def fuzz(rng: random.Random, most: int = 6) -> bytes:
    """Some of what is nasty, and noise."""
    parts = [rng.choice(NASTY) for _ in range(rng.randint(0, most))] + [rng.randbytes(rng.randint(0, 12))]
    rng.shuffle(parts)
    return b"".join(parts)


def hostile(rng: random.Random, number: int) -> Prepared:
    """A job as a foreign producer could store it: any bytes as payload and headers, any ASCII as the task's name."""
    text = fuzz(rng).decode("utf-8", "replace")
    task = fuzz(rng).decode("ascii", "ignore").encode()[:64] if number % 3 else b"send"
    if number % 2:
        payload = msgspec.json.encode([[text, number, [text] * (number % 4)], {"to": text, text: None}])
    else:
        payload = fuzz(rng)
    if number % 1000 == 0:
        payload = b"\x1b[31m" * 200_000 + b"\n" + payload
    headers = msgspec.json.encode({text: text}) if number % 5 == 0 else b""
    rest = bytes((len(task),)) + task + (len(headers).to_bytes(2, "big") + headers if headers else b"") + payload
    return Prepared(number % 4, bytes((1, 4 if headers else 0)), rest)


def check_safe(text: str) -> None:
    """No character of it steers a terminal."""
    wrong = {one for one in set(text) - {"\n"} if unicodedata.category(one) in STEERING}
    assert not wrong, wrong


def pages(run: Run, *words: str) -> list[dict[str, Any]]:
    """All pages of a listing, printed as text and as JSON; the jobs of the JSON."""
    jobs: list[dict[str, Any]] = []
    after: list[str] = []
    while True:
        for form in ([], ["--json"]):
            done = run(*words, "--limit", "1000", *after, *form)
            assert done.returncode == 0, done.stderr
            check_safe(done.stdout + done.stderr)
        page = json.loads(done.stdout)
        assert done.stdout.isascii()
        jobs += page["jobs"]
        if page["after"] is None:
            return jobs
        after = ["--after", page["after"]]


@pytest.mark.timeout(300)  # 10,000 of everything
def test_ten_thousand_hostile_jobs(
    fresh_server: FreshServer, run_on: Callable[[Server], Run], queue_name: str, tmp_path: Path
) -> None:
    """Listings, details and exports of 10,000 jobs and dead letters: no control byte but newline, as text and JSON."""
    server, rng = fresh_server(), random.Random(5)
    limits = Limits(max_bytes="1 GiB", max_job_bytes="2 MiB", max_dead_bytes="64 MiB")
    run, queue = run_on(server), Queue(queue_name, server.url, limits=limits)
    assert all(one.ok for one in queue.enqueue_many(hostile(rng, number) for number in range(10_000)))
    while queue.stats().dead < 5000:
        leases = queue.claim(min(200, 5000 - queue.stats().dead))
        texts = [(fuzz(rng, 3).decode("utf-8", "replace"), fuzz(rng, 40).decode("utf-8", "replace")) for _ in leases]
        assert queue.settle(buries=[(one, *words) for one, words in zip(leases, texts, strict=True)]) == []
    assert len(pages(run, "dead", "ls", queue.name)) == 5000
    assert len(pages(run, "peek", queue.name)) == 5000
    for state in ("ready", "dead"):
        after = None
        while True:
            page = queue.peek(state, 500, after)  # type: ignore[arg-type]  # it is a state
            for job in page.jobs:
                for name, text in details(job):
                    check_safe(f"{name}{text}".replace("\n", "\x00"))  # a field is one line
                for value in (summary(job), in_full(job)):
                    assert json.loads(json.dumps(value, allow_nan=False)) == value
            after = page.after
            if after is None:
                break
        for job in queue.peek(state, 3).jobs:  # type: ignore[arg-type]  # likewise
            for words in (("show", queue.name, job.id), ("position", queue.name, job.id)):
                for form in ([], ["--json"]):
                    done = run(*words, *form)
                    assert done.returncode == 0, done.stderr
                    check_safe(done.stdout + done.stderr)
    for kind in ("ndjson", "csv"):
        assert run("dead", "export", queue.name, "--to", f"dead.{kind}", "--format", kind).returncode == 0
        data = (tmp_path / f"dead.{kind}").read_bytes()
        assert data.isascii()
        check_safe(data.decode())


def test_hostile_words_of_operators(run: Run, any_server: Server, queue_name: str) -> None:
    """Reasons, arguments and ids that are nasty come back as escapes, from every verb that repeats them."""
    queue = Queue(queue_name, any_server.url)
    queue.stats()
    nasty = "\x1b]52;c;aGk=\x07\u202e\nx"
    for words in (
        ("pause", queue.name, "--reason", nasty),
        ("pause", queue.name),
        ("limits", "set", queue.name, "--max-jobs", "5", "--reason", nasty),
        ("limits", "show", queue.name),
        ("stats", queue.name),
        ("show", queue.name, nasty),
        ("cancel", queue.name, nasty, "--yes"),
        ("dead", "retry", queue.name, nasty),
        ("seal", nasty),
        ("peek", nasty),
        ("peek", queue.name, "--after", nasty),
        ("dead", "export", queue.name, "--to", f"no/{nasty}"),
        ("limits", "set", queue.name, "--max-bytes", nasty),
        ("limits", "set", queue.name, "--dead-ttl", nasty),
    ):
        done = run(*words)
        check_safe(done.stdout + done.stderr)


SECRET = "s3cr3t-w0rd"
VERBS = [
    ("ls",),
    ("stats", "q"),
    ("enqueue", "q", "send", "1"),
    ("peek", "q"),
    ("show", "q", "9"),
    ("position", "q", "9"),
    ("cancel", "q", "9", "--yes"),
    ("dead", "ls", "q"),
    ("dead", "retry", "q", "--all"),
    ("limits", "show", "q"),
    ("limits", "suggest", "q", "--sample", "0"),
    ("pause", "q"),
    ("drain", "q", "--timeout", "0"),
]


@pytest.mark.parametrize("how", ["flag", "environment", "file"])
def test_no_password_in_any_output(fresh_server: FreshServer, tmp_path: Path, how: str) -> None:
    """
    Not from a server that takes it, one that does not, or none; not with --help; a password in --url is warned about.
    """
    server = fresh_server(tcp=True)
    Queue("q", server.url).enqueue_bytes(b"x")
    server.cli("ACL", "SETUSER", "ada", "on", f">{SECRET}", "~*", "+@all")
    port = server.port
    urls = {
        "right": f"redis://ada:{SECRET}@127.0.0.1:{port}/0",
        "wrong": f"redis://ada:x{SECRET}@127.0.0.1:{port}/0",
        "absent": f"redis://ada:{SECRET}@127.0.0.1:1/0",
    }
    seen = set()
    for case, url in urls.items():
        (tmp_path / "url").write_text(url + "\n")
        for words in VERBS if case == "right" else VERBS[:3]:
            given = {"flag": ["--url", url], "file": ["--url-file", str(tmp_path / "url")]}.get(how, [])
            env = {**os.environ, "BOUNDQ_URL": url} if how == "environment" else dict(os.environ)
            done = subprocess.run(
                [sys.executable, "-m", "boundq", *words, *given],
                env=env,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            seen.add((case, done.returncode))
            assert SECRET not in done.stdout + done.stderr, words
            assert "Traceback" not in done.stderr, words
            assert ("--url-file" in done.stderr) == (how == "flag"), words
    assert {("right", 0), ("wrong", 77), ("absent", 69)} <= seen


def test_no_password_in_the_process_list(fresh_server: FreshServer, tmp_path: Path) -> None:
    """While a verb runs, its command line shows none of what came by environment or file."""
    server = fresh_server(tcp=True)
    Queue("q", server.url).enqueue_bytes(b"x")
    server.cli("ACL", "SETUSER", "ada", "on", f">{SECRET}", "~*", "+@all")
    (tmp_path / "url").write_text(f"redis://ada:{SECRET}@127.0.0.1:{server.port}/0\n")
    words = [sys.executable, "-m", "boundq", "drain", "q", "--url-file", str(tmp_path / "url")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: b"user=ada" in server.cli("CLIENT", "LIST"), "the verb to be connected", 30)
        for name in ("cmdline", "comm"):
            assert SECRET.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()
        process.terminate()


def test_a_terminal_of_eighty_columns(any_server: Server, queue_name: str) -> None:
    """On a terminal a listing fits its width, row by row, and nothing of the jobs steers it."""
    queue = Queue(queue_name, any_server.url)
    assert all(one.ok for one in queue.enqueue_many(hostile(random.Random(6), number) for number in range(1, 41)))
    leases = queue.claim(20)
    assert queue.settle(buries=[(one, "retries", "\x1b[2Jerror \u202e" * 9) for one in leases]) == []
    for words in (("peek", queue.name), ("dead", "ls", queue.name)):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**os.environ, "BOUNDQ_URL": any_server.url, "NO_COLOR": "1", "TERM": "dumb"}
        env.pop("COLUMNS", None)
        with subprocess.Popen(
            [sys.executable, "-m", "boundq", *words], env=env, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
        ) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:  # the other side has gone
                    break
                if not chunk:
                    break
                shown += chunk
        os.close(ours)
        assert process.returncode == 0
        lines = shown.decode().replace("\r\n", "\n").splitlines()
        check_safe("\n".join(lines))
        assert len(lines) == 21
        assert max(map(cell_len, lines)) <= 80
        assert all(line.split()[0].isdecimal() for line in lines[1:]), lines
