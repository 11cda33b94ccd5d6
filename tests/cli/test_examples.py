"""
Every verb has --help, and every example in it works as typed: in a shell, on a server like the one that the examples
speak of. A new verb is found by itself; what it needs beside that goes into the tables here.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from boundq import Queue
from boundq.cli import VERBS, app
from boundq.worker.health import HealthFile
from tests._servers import Server
from tests.conftest import FreshServer

# Verbs whose examples are run elsewhere, and where.
ELSEWHERE = {"demo": "tests/cli/test_demo.py"}
# What is added to an example so that it ends by itself.
ADDED = {"worker": " --burst", "purge": " --yes", "restore": " --yes"}
# Folders of a real machine that examples name, and are the test's own here.
FOLDERS = ("/run/boundq/", "/var/lib/node_exporter/")
# Exit codes of examples that are not 0: what the example says of itself depends on the server.
CODES = {"boundq limits suggest": {3}, "boundq doctor": {0, 1, 2}, "boundq check": {0, 1, 2}}
# Programs that examples pipe from and into, where the machine has none: they pass on what they get.
STAND_INS = {"jq": "cat", "xxd": "cat", "generate": "echo '[1]'"}

SHOP = """
from boundq import Queue

emails, reports = Queue("emails"), Queue("reports")

@emails.task(retries=0)
def send(campaign: int, to: str = "") -> None: ...

@reports.task(retries=0)
def render(customer: int) -> None: ...
"""


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A verb, and the verbs of its group."""
    yield name, command
    if isinstance(command, click.Group):
        for inner, one in command.commands.items():
            yield from commands(one, f"{name} {inner}")


ALL = [found for verb in VERBS for found in commands(importlib.import_module(f"boundq.cli.{verb}").command, verb)]


def examples(command: click.Command) -> list[str]:
    """The lines under "Examples:" in a help text."""
    text = (command.help or "").replace("\b", "")
    _, _, block = text.partition("Examples:\n")
    return [line.strip() for line in block.split("\n") if line.strip()]


EXAMPLES = [(name, line) for name, command in ALL for line in examples(command) if name.split()[0] not in ELSEWHERE]


@pytest.mark.parametrize(("name", "command"), ALL, ids=[name for name, _ in ALL])
def test_every_verb_has_help_with_examples_of_itself(name: str, command: click.Command) -> None:
    """The help says what it does, shows how it is used, and explains each option."""
    lines = examples(command)
    assert lines, f"{name} --help has no examples"
    assert all(f"boundq {name}" in line for line in lines), lines
    assert (command.help or "").strip().split("\n")[0].endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and name != "demo":
            assert parameter.help, f"{name}: {parameter.opts} has no help"


def test_the_table_of_verbs_is_what_there_is() -> None:
    """Help lists every verb, each with a line of its own."""
    assert app.list_commands(click.Context(app)) == list(VERBS)
    assert len(EXAMPLES) > 40


@pytest.fixture
def shell(fresh_server: FreshServer, tmp_path: Path) -> tuple[Server, dict[str, str]]:
    """A server with queues `emails` and `reports`, and an environment with the programs that examples use."""
    server = fresh_server(maxmemory="200mb", maxmemory_policy="noeviction")
    emails, reports = Queue("emails", server.url), Queue("reports", server.url)
    for number in range(2):
        emails.named("send").enqueue(number, to="ada@example.org")  # ids 9 and 17
    error = "Traceback ...\nTimeoutError: timeout"
    assert emails.settle(buries=[(lease, "retries", error) for lease in emails.claim(2)]) == []
    for number in range(5):
        emails.named("send").enqueue(number, to="ada@example.org")  # ids 25, 33, ...
    reports.named("render").enqueue(7)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text(SHOP)
    (tmp_path / "shop" / "jobs.py").write_text(SHOP)
    (tmp_path / "jobs.ndjson").write_text('[1, "ada"]\n{"campaign": 2}\n')
    home = tmp_path / "home"
    for folder in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (home / folder).mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"boundq": f'exec {sys.executable} -m boundq "$@"'}
    scripts |= {name: what for name, what in STAND_INS.items() if not shutil.which(name)}
    for name, what in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{what}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return server, {**os.environ, "PATH": path, "HOME": str(home), "BOUNDQ_URL": server.url, "NO_COLOR": "1"}


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_the_example_works(name: str, line: str, shell: tuple[Server, dict[str, str]], tmp_path: Path) -> None:
    """Typed into a shell it ends with 0, says nothing of wrong usage, and shows no traceback."""
    server, env = shell
    if name.split()[0] == "drain" or "&& boundq drain" in line:
        for queue in ("emails", "reports"):
            Queue(queue, server.url).purge()
    if name == "restore":
        emails = Queue("emails", server.url)
        assert emails.purge(to=tmp_path / "emails.ndjson.zst") == 5
        assert emails.purge("dead", to=tmp_path / "dead.ndjson") == 2
    if name == "health":
        health = HealthFile(tmp_path / "health")
        health.started(1, os.getpid())
        health.heard(1, {"state": "running", "loop": None, "queues": {"emails": (0.1, False)}})
        health._replace("running")
    typed = line + ADDED.get(name, "") if "|" not in line else line
    if (name == "top" or "--watch" in line) and "--count" not in line:
        typed += " --count 2"
    for folder in FOLDERS:
        typed = typed.replace(folder, f"{tmp_path}/")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {typed}"],
        env=env,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    allowed = next((codes for words, codes in CODES.items() if words in line), {0})
    assert done.returncode in allowed, done.stdout + done.stderr
    assert not re.search(r"Traceback \(|^Usage:|^Error:", done.stderr, re.MULTILINE), done.stderr
