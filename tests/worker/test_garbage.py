"""Whatever lies in a queue: it is buried with its reason and bytes, and the good jobs behind it are done."""

from __future__ import annotations

import json
import random

import pytest

from boundq import Queue
from boundq._job import Prepared, prepare
from boundq._keys import Keys
from tests._servers import Server
from tests.worker._tree import Folder, balanced
from tests.worker.conftest import NewTree

PAYLOADS = {
    "no JSON": (b"\x00\xff\xfe", "undecodable"),
    "nothing": (b"", "undecodable"),
    "cut off": (b'[[1],{"word":"x', "undecodable"),
    "no pair": (b"{}", "undecodable"),
    "three": (b"[[],{},1]", "undecodable"),
    "args no list": (b"[1,{}]", "undecodable"),
    "bad UTF-8 inside a string": (b'[["\xff\xfe"],{}]', "undecodable"),
    "bad UTF-8 in a name": (b'[[],{"\xff":1}]', "undecodable"),
    "half a surrogate": (b'[["\\ud800"],{}]', "undecodable"),
    "deep": (b"[" * 50_000 + b"]" * 50_000, "undecodable"),
    "a number of 5,000 digits": (b"[[" + b"1" * 5000 + b"],{}]", "undecodable"),
    "too few": (b"[[],{}]", "bad_arguments"),
    "too many": (b'[[1,"a",3],{}]', "bad_arguments"),
    "unknown name": (b'[[1],{"nosuch":1}]', "bad_arguments"),
    "name twice": (b'[[1],{"number":1}]', "bad_arguments"),
    "no name": (b'[[1],{"":1}]', "bad_arguments"),
    "wrong type": (b'[["one"],{}]', "bad_arguments"),
    "null": (b"[[null],{}]", "bad_arguments"),
    "1e400": (b"[[1e400],{}]", "undecodable"),
}


def _raw(queue: Queue, task: str, payload: bytes) -> Prepared:
    """A job of a task with a payload that no client of ours would have made."""
    return prepare(queue.name, task, payload, {})


def _add(queue: Queue, task: str, payload: bytes) -> str:
    """Enqueue one of those; its id."""
    (result,) = queue.enqueue_many([_raw(queue, task, payload)])
    assert result.receipt is not None
    return result.receipt.id


def _wreck(envelope: bytes) -> dict[str, bytes]:
    """Envelopes of the same length that cannot be read."""
    size = len(envelope)
    headers = b"\x01\x04" + envelope[2:8] + b"\x05typed" + b"\x00\x10" + b"{" * size
    return {
        "zeros": bytes(size),
        "newer version": b"\x02" + envelope[1:],
        "ones": b"\xff" * size,
        "task name beyond the end": envelope[:8] + b"\xff" + envelope[9:],
        "task name is no text": envelope[:9] + b"\xff" * 5 + envelope[14:],
        "headers beyond the end": b"\x01\x04" + envelope[2:14] + b"\xff\xff" + envelope[16:],
        "headers are no JSON": headers[:size],
    }


def test_bad_payloads_are_buried_and_the_good_jobs_are_done(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """Each kind once, good jobs between: every bad one is buried with its reason and payload, by one process."""
    wanted = {}
    for number, (payload, reason) in enumerate(PAYLOADS.values()):
        wanted[_add(queue, "typed", payload)] = (reason, payload)
        queue.named("typed").enqueue(number)
    unknown = json.dumps([[1], {}]).encode()
    wanted[_add(queue, "nosuch", unknown)] = ("unknown_task", unknown)
    wanted[queue.enqueue_bytes(b"raw").id] = ("unknown_task", b"raw")
    queue.named("typed").enqueue(99, word="last")
    workers = tree("--threads", "4")
    workers.until(lambda: queue.stats().jobs == 0, "all have ended")
    assert {job.id: (job.reason, job.payload) for job in queue.peek("dead", 100).jobs} == wanted
    assert folder.keys() == dict.fromkeys([*range(len(PAYLOADS)), 99], 1)
    assert workers.said("worker 1 is process") == 1, "nobody was replaced"
    assert workers.said("Traceback") == 0
    assert all(job.error for job in queue.peek("dead", 100).jobs)
    assert balanced(queue)


@pytest.mark.parametrize("task", ["picky", "odd"])
def test_a_task_that_cannot_take_its_arguments_ends_no_worker(
    queue: Queue, tree: NewTree, folder: Folder, task: str
) -> None:
    """A type that raises an error of its own, an annotation that names nothing: the jobs behind are done."""
    bad = _add(queue, task, b'[[{"value":-1}],{}]')
    queue.enqueue_many([queue.named("work").call(key) for key in range(20)])
    workers = tree("--threads", "4")
    workers.until(lambda: queue.stats().jobs == 0, "all have ended", 8)
    done = [run.key for run in folder.runs("done") if run.id != bad]
    assert sorted(done) == list(range(20))
    assert workers.said("worker 1 is process") == 1
    if task == "picky":
        assert [(job.id, job.reason) for job in queue.peek("dead").jobs] == [(bad, "bad_arguments")]


def test_unreadable_envelopes_are_buried_with_their_bytes(
    any_server: Server, queue: Queue, tree: NewTree, folder: Folder
) -> None:
    """Bytes that nobody wrote: buried as they are, with the reason; good jobs are done, the counters are right."""
    (jobs_key,) = Keys(queue.name).of("jobs")
    good = b'[[1],{"word":"abcdefgh"}]'
    wanted = {}
    first = _add(queue, "typed", good)
    for name, wreck in _wreck(any_server.cli("HGET", jobs_key, first)).items():
        job = _add(queue, "typed", good)
        any_server.cli("HSET", jobs_key, job, wreck)
        reason = "undecodable" if wreck[0] == 1 else "unknown_version"
        wanted[job] = (reason, wreck, name)
    queue.named("typed").enqueue(2)
    workers = tree()
    workers.until(lambda: queue.stats().jobs == 0, "all have ended")
    for job, (reason, wreck, name) in wanted.items():
        assert any_server.cli("HGET", jobs_key, job) == wreck, name
        (errors_key,) = Keys(queue.name).of("errors")
        assert any_server.cli("HGET", errors_key, job).startswith(reason.encode()), name
    assert folder.keys() == {1: 1, 2: 1}
    assert queue.stats().dead == len(wanted)
    assert workers.said("worker 1 is process") == 1
    assert balanced(queue)


def test_fuzzed_payloads_end_no_worker(queue: Queue, tree: NewTree, folder: Folder) -> None:
    """2,000 randomly damaged payloads: each is run or buried, the process lives, the good jobs behind them are done."""
    dice = random.Random(4711)
    stock = [b'[[1],{"word":"a"}]', b'[["x",null,{"a":[1.5e3]}],{}]', b'[[12],{"word":"\xc3\xa9\\n"}]']
    payloads = []
    for _ in range(2000):
        payload = bytearray(dice.choice(stock))
        for _ in range(dice.randrange(4)):
            at = dice.randrange(len(payload))
            how = dice.randrange(3)
            if how == 0:
                payload[at] = dice.randrange(256)
            elif how == 1:
                del payload[at:]
                payload += b"]"
            else:
                payload[at:at] = bytes([dice.choice(b'"[]{},:\\0-')])
        payloads.append(bytes(payload))
    queue.enqueue_many(_raw(queue, "typed", payload) for payload in payloads)
    queue.enqueue_many([queue.named("typed").call(10_000 + key) for key in range(50)])
    workers = tree("--threads", "4", "--quiet")
    workers.until(lambda: queue.stats().jobs == 0, "all have ended", 30)
    assert {run.key for run in folder.runs("done") if run.key >= 10_000} == set(range(10_000, 10_050))
    stats = queue.stats()
    assert stats.deliveries == 2050, "each was delivered once"
    assert stats.acked + stats.dead == 2050
    assert workers.said("Traceback") == 0
    assert balanced(queue)


@pytest.mark.parametrize("task", ["leave", "aleave"])
def test_sys_exit_in_a_handler_is_a_failure(queue: Queue, tree: NewTree, folder: Folder, task: str) -> None:
    """SystemExit is no success: the job is tried again, then buried; the worker goes on."""
    bad = queue.named(task).enqueue(1).id
    workers = tree("--lease", "2")
    workers.until(lambda: queue.stats().jobs == 0, "it has ended", 10)
    assert [job.id for job in queue.peek("dead").jobs] == [bad]
    assert folder.keys("start") == {1: 2}
    queue.named("awork").enqueue(2)
    queue.named("work").enqueue(3)
    workers.until(lambda: folder.keys() == {2: 1, 3: 1}, "others are done", 5)
