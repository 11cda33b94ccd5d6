"""What a measurement leaves behind when it does not come to its end: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from boundq import DataError, Limits
from boundq._ops.scratch import scratch
from tests._servers import wait_until
from tests.conftest import FreshServer

LONG = {"calibrate": ["--yes", *["--payload", "100B"] * 20], "bench": ["--seconds", "60"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda one: one.name)
@pytest.mark.parametrize("verb", LONG)
def test_a_signal_leaves_nothing(fresh_server: FreshServer, verb: str, number: signal.Signals) -> None:
    """Told to end in the middle, it deletes its queue first, and its exit code says what ended it."""
    server = fresh_server()
    program = [sys.executable, "-m", "boundq", verb, *LONG[verb]]
    env = {**os.environ, "BOUNDQ_URL": server.url}
    with subprocess.Popen(program, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: server.cli("DBSIZE") >= 2, "the scratch queue's jobs", 20)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert server.cli("DBSIZE") == 0


def test_jobs_in_any_state_and_a_queue_that_cannot_be_used(fresh_server: FreshServer) -> None:
    """What ends the measurement may be the queue itself: it is deleted all the same, active jobs and all."""
    server = fresh_server()

    def measure() -> None:
        with scratch(server.url, "test", Limits()) as queue:
            queue.enqueue_many([b"x"] * 10)
            assert len(queue.claim(5)) == 5
            server.cli("HSET", f"boundq:{{{queue.name}}}:state", "format", "99")
            queue.purge()

    with pytest.raises(DataError, match="newer boundq"):
        measure()
    assert server.cli("DBSIZE") == 0


def test_signals_are_as_they_were(fresh_server: FreshServer) -> None:
    """Handlers are given back; what was ignored, as under nohup, stays ignored meanwhile."""
    server = fresh_server()
    before = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with scratch(server.url, "test", Limits()):
            assert signal.getsignal(signal.SIGTERM) is not before
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGHUP, hangup)
