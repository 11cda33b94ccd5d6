"""Logs of a worker: for people and as JSON, with the ids of the job, without payloads, secrets and steering bytes."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import textwrap
from typing import Any

import pytest

from boundq import Queue
from boundq.cli._logs import JsonFormatter, TextFormatter
from tests.worker._tree import Folder, Tree
from tests.worker.conftest import NewTree

TASKS = """
    import logging, os, threading, warnings
    from boundq import Queue

    jobs = Queue(os.environ["BQ_QUEUE"])

    @jobs.task(retries=0)
    def fails(secret: str) -> None:
        logging.getLogger("some.library").info("about to fail\\x1b[2J")
        raise ValueError("no such thing")

    @jobs.task(retries=0)
    async def on_loop() -> None:
        logging.getLogger("some.library").info("on the loop")
        warnings.warn("mind this")

    @jobs.task(retries=0)
    def throws() -> None:
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
"""


def lines(workers: Tree) -> list[dict[str, Any]]:
    """The log; each line has to be an object."""
    found = [json.loads(line) for line in workers.log.splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


def test_json_logs_of_a_whole_tree(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Every line of supervisor and workers, from the banner to the end, is one object with the ids that are known."""
    (folder.path / "shop.py").write_text(textwrap.dedent(TASKS))
    workers = tree("shop:jobs", "--log-format", "json", "--lease", "5")
    failed = queue.named("fails").enqueue("s3cret-payload")
    looped = queue.named("on_loop").enqueue()
    queue.named("throws").enqueue()
    workers.until(lambda: queue.stats().jobs == 0, "all have ended")
    workers.until(lambda: workers.said("ZeroDivisionError") == 1, "the thread's error is logged")
    workers.signal(signal.SIGKILL, *workers.workers)
    workers.until(lambda: workers.said("is process") == 2, "the worker was replaced")
    workers.until(lambda: workers.said("was killed by signal 9") == 1, "and that is logged")
    assert workers.stop() == 0
    found = lines(workers)
    assert all({"time", "level", "logger", "message", "pid"} <= set(line) for line in found)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in found)
    assert "s3cret-payload" not in workers.log
    assert "\x1b" not in workers.log

    ids = {"queue": queue.name, "job_id": failed.id, "task": "fails", "attempt": 1}
    (library,) = [line for line in found if line["message"].startswith("about to fail")]
    assert library["logger"] == "some.library"
    assert {name: library.get(name) for name in ids} == ids
    (buried,) = [line for line in found if "is buried" in line["message"]]
    assert (buried["level"], {name: buried.get(name) for name in ids}) == ("warning", ids)
    (on_loop,) = [line for line in found if line["message"] == "on the loop"]
    assert (on_loop["job_id"], on_loop["task"]) == (looped.id, "on_loop")
    assert any("mind this" in line["message"] for line in found if line["logger"] == "py.warnings")
    (uncaught,) = [line for line in found if line["level"] == "critical"]
    assert uncaught["exception"].rstrip().endswith("ZeroDivisionError: division by zero")
    assert any("Ctrl-C stops" in line["message"] for line in found)


def test_a_start_that_fails_is_json_too(tree: NewTree) -> None:
    """A target that cannot be used, and a setting that makes no sense: one object, and the exit code as ever."""
    for words, code in ((("tasks:nothing",), 2), (("tasks:jobs", "--lease", "0.01"), 78)):
        workers = tree(*words, "--log-format", "json")
        assert workers.process.wait(30) == code
        (line,) = lines(workers)
        assert line["level"] == "critical"
        assert ("nothing is no queue" if code == 2 else "lease") in line["message"]


def test_quiet_json_has_no_more_than_it_should(queue: Queue, tree: NewTree) -> None:
    """With --quiet the lines of INFO are gone."""
    workers = tree("--log-format", "json", "--quiet", "--burst")
    assert workers.process.wait(30) == 0
    assert {line["level"] for line in lines(workers)} <= {"info"}
    assert not any("is process" in line["message"] for line in lines(workers))


def record(message: str, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.WARNING, "f", 1, message, args, extra.pop("exc_info", None))
    made.__dict__.update(extra)
    return made


def raised(error: Exception) -> Any:
    try:
        raise error
    except Exception:
        return sys.exc_info()


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])
def test_no_line_can_do_harm(formatter: logging.Formatter) -> None:
    """Control bytes and line ends are escaped, passwords in URLs masked, sizes bounded."""
    line = formatter.format(record("a\nFAKE LINE\x1b[2J \x9b31m \u202e %s", "redis://user:hunter2@host/0"))
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", line)
    assert "hunter2" not in line
    assert "redis://user:***@host/0" in line
    assert len(formatter.format(record("x" * 100_000))) < 5000
    assert "arguments left out" in formatter.format(record("%d", "no number"))
    trace = formatter.format(
        record("y", exc_info=raised(ValueError("z" * 100_000 + "redis://:hunter2@h \x1b[2J the end")))
    )
    assert len(trace) < 20_000
    assert "the end" in trace
    assert "hunter2" not in trace
    assert "\x1b" not in trace


def test_only_ids_are_taken_from_a_record() -> None:
    """What else another library puts into its records stays out: it may be a payload."""
    line = json.loads(JsonFormatter().format(record("m", queue="q", job_id="7", task="t", attempt=2, body="secret")))
    assert {name: line[name] for name in ("queue", "job_id", "task", "attempt")} == {
        "queue": "q",
        "job_id": "7",
        "task": "t",
        "attempt": 2,
    }
    assert "secret" not in json.dumps(line)
    assert json.loads(JsonFormatter().format(record("m", queue=object()))).get("queue") is None


def test_text_leaves_the_record_as_it_was() -> None:
    """Other handlers format the same record."""
    one = record("a %s", "b\n", exc_info=raised(KeyError("k")))
    text = TextFormatter().format(one)
    assert text.splitlines()[0].endswith("WARNING x: a b\\n")
    assert text.splitlines()[-1] == "KeyError: 'k'"
    assert (one.msg, one.args, one.exc_text) == ("a %s", ("b\n",), None)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun@ter2@host/0",
        "rediss://ada:hun@ter2/x@host/0",
        "redis://ada:hun%40ter2@host:6379",
        "redis+sentinel://h:1/m/0?sentinel_password=hunter2&db=1",
        "redis://a@da:hunter2@host/0",
    ],
)
def test_a_password_is_masked_whatever_is_in_it(formatter: logging.Formatter, url: str) -> None:
    """An @ or a slash, as such or percent-encoded; in a message and in a traceback."""
    line = formatter.format(record("cannot reach %s now", url, exc_info=raised(ValueError(url))))
    assert "***" in line
    assert not re.search("hun|ter2", line)
    assert "now" in line
