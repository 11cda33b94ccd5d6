"""The bench of the peers, without the peers: redis-py and boundq go through the same adapters, nothing is installed."""

from __future__ import annotations

import ast
import json
import math
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench._harness import Column, Group, Options
from bench._place import Place
from bench._report import save
from bench.peers import _bench, _peer
from bench.peers._command import main
from bench.peers._peer import NotRun, Peer, peers
from tests._servers import VALKEY_9_1
from tests.bench._processes import started


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("any_server")  # where there is no such server, this is skipped
def test_measure(tmp_path: Path) -> None:
    """
    Those that run have all figures; each of the others is left out, with its reason, and nobody is held up by it.

    No process is left behind.
    """
    others = [
        Peer(name="absent", module="tests.bench._no_such_peer", drain=10),
        Peer(name="dying", module="tests.bench._dying_peer", drain=10),
        Peer(name="too new", module="tests.bench._no_such_peer", drain=10, packages=("none==1",), python=(9, 9)),
    ]
    options = Options("tiny", rounds=2)
    with Place(VALKEY_9_1, tcp=True) as place:
        result = _bench.measure_peers(others)(place, options)
    assert started() == set()

    assert [group.title for group in result.groups] == list(_bench.GROUPS)
    for group in result.groups:
        assert list(group.runs) == ["redis-py", "boundq", "boundq asyncio"]
        for runs in group.runs.values():
            assert len(runs) == 2
            for column in group.columns:
                assert all(run[column.figure] > 0 for run in runs)
                assert all(math.isfinite(run[column.figure]) for run in runs)
    failures = result.facts["failures"]
    assert "No module named 'tests.bench._no_such_peer'" in failures["absent"]
    assert "out of luck" in failures["dying"]
    assert failures["too new"] == "needs Python 9.9"
    assert "not run: too new: needs Python 9.9" in result.notes

    data = json.loads(save(tmp_path, "peers", options, {"valkey-9.1": ("9.1", result)}).read_text())
    assert data["servers"]["valkey-9.1"]["facts"]["failures"] == failures


@pytest.mark.parametrize("name", peers())
def test_adapters(name: str) -> None:
    """Each peer has an adapter that says how to enqueue, to stamp and to work, and pins what is installed for it."""
    peer = peers()[name]
    path = Path(_peer.__file__).with_name(peer.module.rpartition(".")[2] + ".py")
    defined = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    assert {"enqueue", "stamp"} <= defined
    assert defined & {"WORKER", "work"}
    assert peer.packages
    assert all("==" in package for package in peer.packages)
    assert set(peer.does) == set(_peer.TOPICS)


def test_cannot_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that fails is no error of ours, but says why; the next time it is tried again."""
    monkeypatch.setattr(_peer, "FOLDER", tmp_path)
    peer = Peer(name="nonsense", module="bench.peers.redis_py", drain=1, packages=("not a requirement",))
    with pytest.raises(NotRun, match=r"cannot be installed: .*requirement"):
        peer.interpreter()
    assert not (tmp_path / "nonsense" / ".ready").exists()


def test_python_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name on PATH is not enough, as pyenv has one for every version; what is taken has to run."""
    shim = tmp_path / "python3.98"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    peer = Peer(name="new", module="bench.peers.redis_py", drain=1, packages=("none==1",), python=(3, 98))
    with pytest.raises(NotRun, match=r"needs Python 3\.98"):
        peer.interpreter()


def test_beside_the_best() -> None:
    """Ours is compared with the best of the others: the highest rate, the shortest wait; redis-py is no peer."""
    runs = {
        "redis-py": [{"rate": 99.0, "p50": 0.1}],
        "boundq": [{"rate": 30.0, "p50": 1.0}],
        "slow": [{"rate": 5.0, "p50": 2.0}],
        "fast": [{"rate": 10.0, "p50": 4.0}],
    }
    columns = [Column("rate", "jobs/s", compared=True), Column("p50", "p50 ms", compared=True)]
    assert _bench.beside_the_best(Group("work", runs, "redis-py", columns)) == [
        "work, jobs/s: of the best peer's (fast): boundq 3.00",
        "work, p50 ms: of the best peer's (slow): boundq 0.50",
    ]


def test_list() -> None:
    """``--list`` names all peers with their versions, and runs none."""
    done = CliRunner().invoke(main, ["--list"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == list(peers())


def test_wrong_name() -> None:
    """A peer that there is not is refused, with those that there are."""
    done = CliRunner().invoke(main, ["hueyy"])
    assert done.exit_code == 2
    assert all(name in done.output for name in peers())
