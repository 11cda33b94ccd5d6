"""``boundq check`` and ``boundq reap``: thresholds, exit codes and formats; jobs of dead workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from boundq import Limits, Queue
from boundq._ops.thresholds import METRICS, Checked, check, nagios, overall, parse
from boundq.cli.check import command
from boundq.errors import ConfigError
from tests._servers import Server, wait_until
from tests.conftest import FreshServer


def run(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "BOUNDQ_URL": url, "NO_COLOR": "1"}
    program = [sys.executable, "-m", "boundq", *words]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def queue(any_server: Server, queue_name: str) -> Queue:
    return Queue(queue_name, any_server.url, limits=Limits(max_jobs=10, max_bytes="1 MiB"))


def severity(queue: Queue, warn: str = "", critical: str = "") -> str:
    return check(queue.stats(), parse(warn, "--warn"), parse(critical, "--critical")).severity


def test_each_number_against_its_thresholds(queue: Queue, any_server: Server) -> None:
    """Below both ok, from the lower on warning, from the upper on critical; numbers without a threshold say nothing."""
    assert severity(queue, "fill=0.1,jobs=1,dead=1,ledger=1,paused=0.001", "jobs=1") == "ok"
    queue.enqueue_many([b"x"] * 8)
    assert severity(queue, "fill=0.8") == "warning"
    assert severity(queue, "fill=0.8", "fill=80%") == "critical"
    assert severity(queue, "fill=81%", "fill=0.9,jobs=9") == "ok"
    assert severity(queue, "", "jobs=8") == "critical"
    wait_until(lambda: (queue.stats().oldest_age or 0) > 0.01, "an age")
    assert severity(queue, "age=0.01") == "warning"
    # Nobody has ever asked for these jobs: not since the first of them is there.
    assert severity(queue, "silence=3600") == "ok"
    assert severity(queue, "silence=0.01") == "warning"
    (lease,) = queue.claim()
    assert severity(queue, "silence=3600") == "ok"
    assert severity(queue, "silence=0") == "warning"
    lease.bury("why")
    assert severity(queue, "dead=1,dead_fill=1") == "warning"
    queue.pause()
    queue.seal()
    wait_until(lambda: severity(queue, "paused=0.001", "sealed=0.001") == "critical", "some time of pause")
    any_server.cli("HINCRBY", f"boundq:{{{queue.name}}}:state", "acked", 2)
    assert severity(queue, "", "ledger=2") == "critical"


def test_formats_agree(queue: Queue, any_server: Server) -> None:
    """Text, JSON, Nagios and Prometheus have the same verdict; exit code 2 with each; the last two can be parsed."""
    queue.enqueue_many([b"x"] * 9)
    words = ("check", queue.name, "--critical", "fill=0.9", "--timeout", "60")
    done = {form: run(any_server.url, *words, "--format", form) for form in ("text", "nagios", "prometheus")}
    done["json"] = run(any_server.url, *words, "--json")
    assert {one.returncode for one in done.values()} == {2}
    assert done["text"].stdout.endswith("critical\n")
    shown = json.loads(done["json"].stdout)
    assert (shown["verdict"], shown["error"]) == ("critical", "")
    assert set(shown["queues"][0]["numbers"]) == set(METRICS)
    assert shown["queues"][0]["numbers"]["fill"]["value"] == 0.9
    line = done["nagios"].stdout
    assert re.fullmatch(r"BOUNDQ CRITICAL - [^|\n]+ \| [^|\n]+\n", line)
    assert f"'{queue.name}.fill'=0.9;0.8;0.9;0" in line
    families = {one.name: one for one in text_string_to_metric_families(done["prometheus"].stdout)}
    assert families["boundq_up"].samples[0].value == 1
    assert families["boundq_check_status"].samples[0].value == 2
    (fill,) = families["boundq_check_fill"].samples
    assert (fill.labels, fill.value) == ({"queue": queue.name}, 0.9)


def test_all_queues_and_none(fresh_server: FreshServer) -> None:
    """Without a name all queues are looked at; a server without queues is ok, a queue that is missing unknown."""
    server = fresh_server()
    assert run(server.url, "check", "--timeout", "60").returncode == 0
    Queue("a", server.url).enqueue_bytes(b"x")
    Queue("b", server.url, max_jobs=1).enqueue_bytes(b"x")
    done = run(server.url, "check", "--json", "--timeout", "60")
    assert done.returncode == 2
    assert [one["severity"] for one in json.loads(done.stdout)["queues"]] == ["ok", "critical"]
    done = run(server.url, "check", "a", "nosuch", "--format", "nagios", "--timeout", "60")
    assert done.returncode == 3
    assert "nosuch" in done.stdout


def test_no_answer_is_unknown(fresh_server: FreshServer) -> None:
    """A server that hangs, and one that is gone: exit code 3, said in each format; no old numbers, no password."""
    server = fresh_server()
    Queue("a", server.url).enqueue_bytes(b"x")
    url = server.url.replace("unix://", "unix://:s3cr3t-w0rd@")
    with server.paused():
        done = run(server.url, "check", "--format", "prometheus")
        assert (done.returncode, done.stderr) == (3, "")
        families = {one.name: one for one in text_string_to_metric_families(done.stdout)}
        assert families["boundq_up"].samples[0].value == 0
        assert set(families) == {"boundq_up", "boundq_check_status"}
        done = run(url, "check", "a", "--format", "nagios")
        assert done.returncode == 3
        assert done.stdout.startswith("BOUNDQ UNKNOWN - ")
    server.stop()
    done = run(url, "check", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["nosuch=1", "fill", "fill=", "fill=x", "fill=-1", "fill=nan", "age=inf", "=1"])
def test_bad_thresholds(text: str) -> None:
    """What is no threshold is named."""
    with pytest.raises(ConfigError, match="--warn"):
        parse(text, "--warn")


def test_thresholds_of_a_bad_shape_exit_78(any_server: Server) -> None:
    """And not with a code that a monitoring system takes for a state of the queue."""
    assert run(any_server.url, "check", "--warn", "fil=1").returncode == 78
    assert parse(" fill=80% , age=5 ,", "x") == {"fill": 0.8, "age": 5.0}


def test_nagios_text_holds_no_bar() -> None:
    """A bar would begin the performance data."""
    line = nagios([Checked("q", [], "a | b")], overall([]), "")
    assert line == "BOUNDQ OK - q: a / b"


# ---------------------------------------------------------------- reap


def test_reap_gives_the_jobs_of_the_dead_back(queue: Queue, any_server: Server) -> None:
    """Expired leases are due again, others stay as they are; jobs that lost too many are buried."""
    queue.enqueue_many([b"a", b"b", b"c", b"d"])
    queue.claim(2, lease=0.1)
    (held,) = queue.claim(1, lease=100)
    wait_until(lambda: queue.stats().next_event == 0.0, "a lease to expire")
    dry = run(any_server.url, "reap", queue.name, "--dry-run", "--json")
    (looked,) = json.loads(dry.stdout)["queues"]
    assert (looked["leases"], looked["buried"], looked["active"]) == (2, 0, 3)
    assert "2 leases have expired, nothing was done" in run(any_server.url, "reap", queue.name, "--dry-run").stdout
    done = run(any_server.url, "reap", queue.name, "--json")
    assert done.returncode == 0
    (row,) = json.loads(done.stdout)["queues"]
    assert row == {
        "name": queue.name,
        "paused": False,
        "leases": 2,
        "buried": 0,
        "ready": 1,
        "scheduled": 2,
        "active": 1,
    }
    held.ack()
    leases = queue.claim(10)
    assert sorted(lease.payload for lease in leases) == [b"a", b"b", b"d"]
    assert sorted(lease.expired_leases for lease in leases) == [0, 1, 1]
    queue.settle(acks=leases)
    assert queue.audit().differences == []


def test_reap_buries_and_leaves_a_paused_queue_alone(queue: Queue, any_server: Server) -> None:
    """The cap on deliveries holds; a queue that is paused gives nothing to anybody, and is said to be."""
    queue.configure(Limits(max_jobs=10, max_deliveries=1))
    queue.enqueue_bytes(b"x")
    queue.claim(lease=0.1)
    wait_until(lambda: queue.stats().next_event == 0.0, "a lease to expire")
    queue.pause()
    done = run(any_server.url, "reap", queue.name)
    assert (done.returncode, queue.stats().active) == (0, 1)
    assert "paused" in done.stdout
    queue.resume()
    assert "1 jobs were buried" in run(any_server.url, "reap", queue.name).stdout
    assert queue.stats().dead == 1


def test_reap_at_maxmemory_and_with_nothing_to_do(fresh_server: FreshServer) -> None:
    """It works on a full server, and does nothing where nothing has expired."""
    server = fresh_server()
    queue = Queue("a", server.url)
    queue.enqueue_many([b"x"] * 3)
    queue.claim(lease=0.1)
    server.cli("CONFIG", "SET", "maxmemory", 1)
    wait_until(lambda: queue.stats().next_event == 0.0, "a lease to expire")
    assert "1 leases had expired" in run(server.url, "reap").stdout
    before = queue.stats().deliveries
    assert "0 leases had expired" in run(server.url, "reap").stdout
    assert queue.stats().deliveries == before


def test_a_mistake_of_ours_is_unknown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that is none of boundq's: exit code 3 and a line, neither a traceback nor "ok"."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("boundq.cli.check.Server", broken)
    with pytest.raises(SystemExit) as ended:
        command.main(["a", "--format", "nagios"], standalone_mode=False)
    assert ended.value.code == 3
    assert "RuntimeError: out of luck" in capsys.readouterr().out
