"""Which peers there are (``peers.toml``), and their virtual environments, made when they are first asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench._report import ROOT

FOLDER = ROOT / "build" / "peers"
_TABLE = Path(__file__).with_name("peers.toml")
_INSTALL_S = 600
TOPICS = ("bound", "lease", "retry")


class NotRun(Exception):
    """A peer cannot be had here, or does not do its work; says why."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """
    One of the compared.

    Args:
        name: In tables.
        module: The adapter; see `bench.peers._child` for what it has.
        drain: Jobs for about a second of its worker.
        packages: To install; none: it runs in our own interpreter.
        python: The least version that it needs.
        venv: Name of its environment; its own, where there is none.
        does: What it does about overload, dead workers and failures; see the table's head.
    """

    name: str
    module: str
    drain: int
    packages: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 11)
    venv: str = ""
    does: Mapping[str, str] = field(default_factory=dict)

    def interpreter(self) -> str:
        """
        The one that has its packages, which are installed now where they are not yet.

        Raises:
            NotRun: No such Python here, or the packages cannot be installed.
        """
        if not self.packages:
            return sys.executable
        folder = FOLDER / (self.venv or self.name)
        ready, wanted = folder / ".ready", "\n".join(self.packages)
        interpreter = str(folder / "bin" / "python")
        if ready.exists() and ready.read_text() == wanted:
            return interpreter
        python = _python(self.python)
        click.echo(f"installing {' '.join(self.packages)} into {folder}", err=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run(python, "-m", "venv", str(folder))
        _run(interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", *self.packages)
        ready.write_text(wanted)
        return interpreter


def _python(least: tuple[int, int]) -> str:
    """An interpreter of this version or a newer one: ours, one on PATH, or one that pyenv or uv has."""
    if sys.version_info[:2] >= least:
        return sys.executable
    for candidate in _candidates(least):
        # One on PATH may be pyenv's word for a version that is not switched on: it is there, and does not run.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    raise NotRun(f"needs Python {least[0]}.{least[1]}")


def _candidates(least: tuple[int, int]) -> Iterator[str | None]:
    major, minor = least
    versions = [f"{major}.{n}" for n in range(minor, minor + 3)]
    for version in versions:
        yield shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in versions:
        yield from (str(found) for found in sorted(pyenv.glob(f"{version}.*/bin/python")))
    if uv := shutil.which("uv"):
        yield subprocess.run(
            [uv, "python", "find", f">={major}.{minor}"], capture_output=True, text=True, check=False
        ).stdout.strip()


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotRun(f"{' '.join(words[:4])} took more than {_INSTALL_S} s") from None
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["no output"]
        raise NotRun(f"cannot be installed: {last[-1]}")


FLOOR = Peer(name="redis-py", module="bench.peers.redis_py", drain=8000)
OURS = (
    Peer(name="boundq", module="bench.peers.boundq_sync", drain=20_000),
    Peer(name="boundq asyncio", module="bench.peers.boundq_async", drain=20_000),
)


def peers() -> dict[str, Peer]:
    """All others, by name."""
    found = {}
    for name, entry in tomllib.loads(_TABLE.read_text()).items():
        major, minor = (int(part) for part in entry.get("python", "3.11").split("."))
        found[name] = Peer(
            name=name,
            module=f"bench.peers.{entry.get('adapter', name)}",
            drain=entry["drain"],
            packages=tuple(entry["packages"]),
            python=(major, minor),
            venv=entry.get("venv", ""),
            does={topic: entry[topic] for topic in TOPICS},
        )
    return found
