"""
The runbook (README, "On call"): each command in it is typed, in its order, at a server in the state that its row is
about, and says what the row sends one to look for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import pytest

from boundq import Limits, Queue
from boundq.task import EnqueueOptions
from tests._servers import Server
from tests.cli.conftest import Run
from tests.conftest import FreshServer

SECTION = (
    (Path(__file__).parents[2] / "README.md")
    .read_text(encoding="utf-8")
    .partition("\n## On call\n")[2]
    .partition("\n## ")[0]
)
ROWS = [line.split(" | ") for line in SECTION.splitlines() if line.startswith("| ") and not line.startswith("| what")]
BLOCK = [line.strip() for line in SECTION.splitlines() if line.startswith("    boundq ")]
COMMAND = re.compile(r"`(boundq [^`]+|(?!queue)[a-z ]+ Q\b[^`]*)`")
# What stands for something in the runbook; of what is not here, the row's own table says it.
WORDS = {"Q": "emails", "M:Q": "shop:emails", "N": "200", "TEXT": "timeout", "NAME": "send", "FILE": "dead.ndjson"}
# Where nobody can be asked.
ADDED = {"cancel": " --yes", "dead drop": " --yes", "worker": " --burst", "purge": " --yes", "restore": " --yes"}

SHOP = """
from boundq import Queue
emails = Queue("emails")
@emails.task(retries=0)
def send(campaign: int, to: str = "") -> None: ...
"""


def emails(server: Server, limits: Limits | None = None) -> Queue:
    """The queue that the runbook is typed for."""
    return Queue("emails", server.url, limits=limits or Limits(max_jobs=100))


def add(queue: Queue, count: int, **options: Unpack[EnqueueOptions]) -> None:
    """So many jobs."""
    send = queue.named("send", **options)
    for number in range(count):
        send.enqueue(number)


def full(server: Server) -> None:
    """As many jobs as it may hold."""
    add(emails(server), 100)


def stuck(server: Server) -> None:
    """Jobs that a worker has in its hands."""
    add(emails(server), 5)
    emails(server).claim(2, lease=600)


def failing(server: Server) -> None:
    """Dead letters: three that can be helped, and one that cannot."""
    queue = emails(server)
    add(queue, 4)
    errors = ["TimeoutError: timeout"] * 3 + ["ValueError: no such campaign"]
    queue.settle(buries=[(lease, "retries", error) for lease, error in zip(queue.claim(4), errors, strict=True)])


def at_maxmemory(server: Server) -> None:
    """Jobs, and no memory for another."""
    add(emails(server), 5)
    server.cli("CONFIG", "SET", "maxmemory", "1")


def paused(server: Server) -> None:
    """Somebody paused it; some of the jobs are not due."""
    add(emails(server), 2)
    add(emails(server), 1, delay=600)
    emails(server).pause("ada: a broken release")


def empty(server: Server) -> None:
    """It has done its work."""
    emails(server).stats()


Case = tuple[Callable[[Server], None], list[tuple[int, str]]]
# The row's first words, the state, and for each of its commands the exit code and what it says.
CASES: dict[str, Case] = {
    "Producers get": (
        full,
        [(0, "drain      unknown"), (0, "done, 0 not"), (3, "suggestion: unknown"), (0, "100 -> 200")],
    ),
    "`oldest` rises": (stuck, [(0, "send"), (0, "9"), (0, "send")]),
    "`dead` grows": (
        failing,
        [
            *((0, "TimeoutError: timeout"), (0, "TimeoutError: timeout"), (0, "paused"), (0, "resumed")),
            *((0, "1 dead letters are still there"), (0, "1 "), (0, "1 ")),
        ],
    ),
    "Redis is at": (at_maxmemory, [(0, "server memory"), (0, "sealed"), (0, "max_bytes: ")]),
    "A worker is alive": (paused, [(0, "paused since"), (0, "resumed"), (0, "send")]),
    "A deploy": (empty, [(0, "emails: empty"), (0, "unsealed")]),
}


def typed(command: str) -> str:
    """The command as one types it, with names for what stands for them."""
    words = ["boundq", *command.removeprefix("boundq ").split()]
    previous = ["", *words]
    values = {"--reason": "because", "--max-bytes": "1MiB"}
    words = [
        "9" if word == "ID" else values[before] if word == "…" else WORDS.get(word, word)
        for before, word in zip(previous, words, strict=False)
    ]
    line = " ".join(words)
    return line + next((more for verb, more in ADDED.items() if line.startswith(f"boundq {verb} ")), "")


@pytest.mark.parametrize("begins", CASES)
def test_a_row_is_typed(
    fresh_server: FreshServer, run_on: Callable[[Server], Run], tmp_path: Path, begins: str
) -> None:
    """In its order, each command ends with the code and the words that the case says."""
    (tmp_path / "shop.py").write_text(SHOP)
    server = fresh_server()
    run = run_on(server)
    prepare, expected = CASES[begins]
    prepare(server)
    (row,) = [row for row in ROWS if row[0].removeprefix("| ").startswith(begins)]
    commands = COMMAND.findall(row[-1])
    assert len(commands) == len(expected), commands
    for command, (code, says) in zip(commands, expected, strict=True):
        done = run(*typed(command).split()[1:])
        assert done.returncode == code, (typed(command), done.stdout, done.stderr)
        assert says in done.stdout + done.stderr, (typed(command), done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_every_row_with_a_command_has_a_case() -> None:
    """A new row, or command, is one that has been typed."""
    rows = [row[0].removeprefix("| ") for row in ROWS if COMMAND.search(row[-1])]
    assert [next((case for case in CASES if row.startswith(case)), row) for row in rows] == list(CASES)


def test_purge_and_put_back(fresh_server: FreshServer, run_on: Callable[[Server], Run]) -> None:
    """The block as it stands: counted, written and deleted, and all of it back."""
    server = fresh_server()
    run = run_on(server)
    queue = emails(server)
    add(queue, 5)
    dry, purge, restore = (re.split(r"  +", line)[0] for line in BLOCK)
    old = "--older-than 0s"  # nothing is two hours old here
    for line, left in ((dry, 5), (purge, 0), (restore, 5)):
        assert "--older-than 2h" in line or line is restore
        done = run(*typed(line.replace("--older-than 2h", old)).split()[1:])
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert "5" in done.stdout
        assert queue.stats().jobs == left, line
