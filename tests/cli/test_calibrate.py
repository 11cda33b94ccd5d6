"""``boundq calibrate``: what it measures on each server, what it leaves behind (nothing), and when it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from boundq import Queue
from boundq._ops.calibrate import Calibration, Sample
from tests._servers import Kind
from tests.conftest import FreshServer


def run(url: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "BOUNDQ_URL": url, "NO_COLOR": "1"}
    program = [sys.executable, "-m", "boundq", "calibrate", *words]
    done = subprocess.run(program, env=env, input=stdin, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_the_charge_holds_and_nothing_is_left(server_kind: Kind, fresh_server: FreshServer) -> None:
    """Each size in each state, real below what is charged and near it for large ones; no key is left, none touched."""
    server = fresh_server(server_kind)
    queue = Queue("emails", server.url)
    queue.enqueue_bytes(b"x")
    keys = sorted(server.cli("KEYS", "*"))
    done = run(server.url, "--yes", "--json", "--payload", "1KiB", "--payload", "16 KiB")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [(one["payload"], one["state"]) for one in found["samples"]] == [
        (size, state) for size in (1024, 16384) for state in ("ready", "active", "scheduled")
    ]
    for one in found["samples"]:
        assert 0.7 < one["share"] < 1.02, one
    assert found["server"].lower().startswith(server_kind.id.split("-")[0])
    assert sorted(server.cli("KEYS", "*")) == keys
    assert queue.stats().jobs == 1


def test_it_asks_first(fresh_server: FreshServer) -> None:
    """Where nobody can be asked nothing is written; --yes is an answer."""
    server = fresh_server()
    done = run(server.url, "--payload", "1KiB", stdin="n\n")
    assert done.returncode == 2
    assert "scratch queue" in done.stderr
    assert server.cli("DBSIZE") == 0
    done = run(server.url, "--payload", "1KiB", "--yes")
    assert done.returncode == 0
    assert "real / charged" in done.stdout
    assert server.cli("DBSIZE") == 0


def test_it_refuses_where_there_is_no_room(fresh_server: FreshServer) -> None:
    """Near maxmemory it does not begin; a payload beyond what it measures is refused as well."""
    server = fresh_server(maxmemory="3mb")
    done = run(server.url, "--yes", "--payload", "64KiB")
    assert (done.returncode, done.stdout) == (78, "")
    assert "bytes free" in done.stderr
    assert run(server.url, "--yes", "--payload", "2MiB").returncode == 78
    assert server.cli("DBSIZE") == 0


def test_more_than_the_charge_is_not_ok() -> None:
    """A job that takes more than it is charged, beyond what moves by itself, is what the verb is for."""
    assert not Calibration("s", 0, [Sample(10, "ready", 1000, 300.0, 400.0)]).ok
    assert Calibration("s", 0, [Sample(10, "ready", 1000, 300.0, 300.0)]).ok
    assert Calibration("s", 200_000, [Sample(10, "ready", 1000, 300.0, 400.0)]).ok
