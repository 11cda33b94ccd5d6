"""The verbs through the real program, on a real server: output, exit codes, and no byte that steers a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boundq import Limits, Queue
from tests._servers import Server, wait_until
from tests.cli.conftest import Run


@pytest.fixture
def queue(any_server: Server, queue_name: str) -> Queue:
    """A queue of three jobs at most."""
    return Queue(queue_name, any_server.url, max_jobs=3)


def test_enqueue_prints_the_id_and_stores_the_arguments(run: Run, queue: Queue) -> None:
    """JSON words become values, others text, name=value keyword arguments."""
    done = run("enqueue", "--create", queue.name, "send", "42", "ada", 'to={"x": [1]}', "flag=true")
    assert (done.returncode, done.stderr) == (0, "")
    job = queue.get(done.stdout.split()[1])
    assert job is not None
    assert job.task == "send"
    assert json.loads(job.payload) == [[42, "ada"], {"to": {"x": [1]}, "flag": True}]


def test_enqueue_at_a_full_queue_exits_75_with_one_line(run: Run, queue: Queue) -> None:
    """Nothing is stored, and a shell script can tell a full queue from an absent server."""
    queue.enqueue_many([b"x"] * 3)
    done = run("enqueue", queue.name, "send", "1")
    assert done.returncode == 75
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "3 of 3 jobs" in done.stderr
    assert queue.stats().jobs == 3
    queue.seal("me: deploy")
    assert run("enqueue", queue.name, "send", "1").returncode == 75


def test_enqueue_does_not_create_a_queue_by_a_typing_mistake(run: Run, queue: Queue) -> None:
    """Without --create a queue that does not exist is an error that says so."""
    done = run("enqueue", queue.name, "send", "1")
    assert done.returncode == 65
    assert "no such queue" in done.stderr


def test_enqueue_from_ndjson_stops_at_the_limit(run: Run, queue: Queue) -> None:
    """Lines are jobs, in order; the rest is named and not read; exit code 75."""
    lines = "".join(f'[{number}, {{"k": "v"}}]\n\n' for number in range(5))
    done = run("enqueue", "--create", queue.name, "send", "--from", "-", "--json", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["admitted"] == 5
    queue.configure(Limits(max_jobs=7))
    done = run("enqueue", queue.name, "send", "--from", "-", stdin=lines)
    assert done.returncode == 75
    assert "2 admitted, 3 not" in done.stdout
    assert [json.loads(job.payload)[0][0] for job in queue.peek(n=10).jobs] == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    ("line", "says"), [("{not json", "line 2"), ("7", "an array or an object"), ('{"1a":', "line 2")]
)
def test_enqueue_from_a_damaged_file_names_the_line(run: Run, queue: Queue, line: str, says: str) -> None:
    """What cannot be read is named by its number; exit code 78."""
    done = run("enqueue", "--create", queue.name, "send", "--from", "-", stdin=f"[1]\n{line}\n")
    assert done.returncode == 78
    assert says in done.stderr


def test_ls_and_stats_agree(run: Run, queue: Queue) -> None:
    """Both show the queue, as text and as JSON of the documented shape."""
    queue.enqueue_many([b"x"] * 2)
    assert f"{queue.name} " in run("ls").stdout
    (listed,) = (one for one in json.loads(run("ls", "--json").stdout)["queues"] if one["name"] == queue.name)
    shown = json.loads(run("stats", queue.name, "--json").stdout)
    assert listed["jobs"] == shown["jobs"] == 2
    assert shown["fill"] == pytest.approx(2 / 3, abs=1e-3)
    assert shown["imbalance"] == 0
    text = run("stats", queue.name).stdout
    assert "2 of 3" in text
    assert "2 admitted = 0 acked" in text


def test_stats_of_no_queue_and_of_a_bad_name(run: Run) -> None:
    """A missing queue exits 65, an impossible name 78; neither shows a traceback."""
    for name, code in (("nosuchqueue", 65), ("a{b}", 78)):
        done = run("stats", name)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_no_server_exits_69_and_a_password_is_never_shown(run: Run, tmp_path: Path) -> None:
    """The URL of a server that is not there leads to one line without the password; --url with one is warned about."""
    url = f"redis://user:s3cr3t-w0rd@127.0.0.1:1/0?socket_timeout=1&x={tmp_path.name}"
    for done in (run("stats", "q", "--url", url), run("ls", BOUNDQ_URL=url)):
        assert done.returncode == 69
        assert "s3cr3t-w0rd" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert "--url-file" in run("ls", "--url", url).stderr
    (tmp_path / "url").write_text(url + "\n")
    assert run("ls", "--url-file", "url").returncode == 69


def test_hostile_names_cannot_steer_the_terminal(run: Run, queue: Queue) -> None:
    """Who sealed a queue is other people's text: controls and bidi marks come out as escapes."""
    queue.enqueue_bytes(b"x")
    queue.seal("\x1b]52;c;aGk=\x07\x9b31m\u202eevil\nnext")
    for done in (run("stats", queue.name), run("stats", queue.name, "--json"), run("enqueue", queue.name, "t")):
        printed = done.stdout + done.stderr
        assert not set(printed) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "evil" in printed


WORKER = """
import os
from boundq import Queue

jobs = Queue({name!r})

@jobs.task(retries=0)
def note(word: str) -> None:
    with open("done.txt", "a") as file:
        file.write(word + "\\n")

@jobs.task(retries=0)
def fail() -> None:
    raise ValueError("no")
"""


def test_worker_runs_a_module_s_tasks(run: Run, queue: Queue, tmp_path: Path) -> None:
    """--burst drains and exits 0; failures are buried with their reason, and the jobs behind them are done."""
    (tmp_path / "shop.py").write_text(WORKER.format(name=queue.name))
    queue.configure(Limits())  # three would not do
    for task, args in (("fail", ()), ("nosuch", ()), ("note", ("a",)), ("note", ("b",))):
        queue.named(task).enqueue(*args)
    done = run("worker", "shop:jobs", "--burst", "--threads", "2")
    assert done.returncode == 0, done.stderr
    words = sorted((tmp_path / "done.txt").read_text().split())
    assert words == ["a", "b"]
    assert sorted(job.reason for job in queue.peek("dead").jobs) == ["retries", "unknown_task"]
    assert queue.stats().jobs == 0


@pytest.mark.parametrize(
    ("target", "says"),
    [("nosuch_module:q", "cannot import"), ("shop:nothing", "no queue"), ("empty", "declares no queue")],
)
def test_worker_says_why_a_target_cannot_be_used(
    run: Run, queue: Queue, tmp_path: Path, target: str, says: str
) -> None:
    """Exit code 2, before anything is claimed."""
    (tmp_path / "shop.py").write_text(WORKER.format(name=queue.name))
    (tmp_path / "empty.py").write_text("")
    done = run("worker", target)
    assert done.returncode == 2
    assert says in done.stderr


def test_worker_stops_on_sigterm(any_server: Server, queue: Queue, tmp_path: Path) -> None:
    """It says what it does at the start, does it, and ends with 0 when told to."""
    (tmp_path / "shop.py").write_text(WORKER.format(name=queue.name))
    env = {**os.environ, "BOUNDQ_URL": any_server.url}
    words = [sys.executable, "-m", "boundq", "worker", "shop"]
    with subprocess.Popen(words, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        queue.named("note").enqueue("a")
        wait_until(lambda: queue.stats().acked == 1, "the job is done", 20)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "note" in errors
    assert "stopped: 1 done" in errors
