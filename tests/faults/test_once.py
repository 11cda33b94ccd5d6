"""
Once only: an answer is lost, in whatever way and wherever, and the call is sent again; each job is there once.

The proxy loses replies of commands that were executed, cuts requests and replies after each byte, and lets
originals come after their resends. Each test runs through both shells, and on each kind of server unless most of its
time is spent waiting.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from boundq import LeaseLost, Queue, QueueFull, QueueSealed, Rejected, Unavailable
from boundq._call import Call, pack
from boundq._core.base import Core
from boundq._session import Session
from tests._proxy import Command, Proxy
from tests._servers import Server, wait_until
from tests.conftest import FreshServer, NewProxy
from tests.contract._env import payloads, take, until_claimed
from tests.faults._shell import (
    SMALL,
    Shell,
    all_answered,
    audit,
    dump,
    forget,
    is_first,
    is_resend,
    is_script,
    meddle,
    stored,
)

RUN = 200
# The first sending waits for its answer half of this, and not less than the second of silence after which the
# asyncio shell takes a connection for dead.
PATIENT = 2.1

Options = dict[str, Any]
KINDS: list[Any] = [
    pytest.param({}, id="plain"),
    pytest.param({"delay": 0.001}, id="delayed"),
    pytest.param({"unique": "key-{}"}, id="unique"),
    pytest.param({"unique": "key-{}", "unique_for": 60, "expires": 60, "priority": "high"}, id="all-options"),
]


def filled(options: Options, number: int) -> Options:
    """The options of the job of this number: its own unique key."""
    return {key: value.format(number) if key == "unique" else value for key, value in options.items()}


def number_of(payload: bytes) -> int:
    return int(payload.split(b"-")[1])


# ---------------------------------------------------------------- replies lost


@pytest.mark.everywhere
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("options", [KINDS[0], KINDS[3]])
def test_every_reply_of_a_run_is_lost(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """Each of 200 enqueues is executed, its reply swallowed and the connection cut: receipts as if nothing were."""
    line = proxy(any_server)
    fault = line.swallow(reply_of=is_first, times=None)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    receipts = [queue.enqueue_bytes(b"job-%d" % n, **filled(options, n)) for n in range(RUN)]
    assert fault.hits == RUN

    smooth = Queue(f"{queue_name}.b", any_server.url, limits=SMALL)
    assert receipts == [smooth.enqueue_bytes(b"job-%d" % n, **filled(options, n)) for n in range(RUN)]
    assert sorted(map(number_of, stored(direct))) == list(range(RUN))
    assert direct.stats().admitted == RUN
    assert [direct.get(receipt.id).payload for receipt in receipts[:3]] == [b"job-0", b"job-1", b"job-2"]
    audit(direct)


@pytest.mark.everywhere
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("options", [KINDS[0], KINDS[2]])
def test_every_reply_of_a_run_is_lost_and_a_worker_has_acked(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """By the time that each resend arrives, the job has been claimed and acked: it is not stored again."""
    line = proxy(any_server)
    line.swallow(reply_of=is_first, times=None)
    worker = Queue(queue_name, any_server.url, limits=SMALL)
    done: list[bytes] = []
    meddle(line, is_resend, lambda: done.extend(take(worker)))
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    receipts = [queue.enqueue_bytes(b"job-%d" % n, **filled(options, n)) for n in range(RUN)]
    assert [number_of(payload) for payload in done] == list(range(RUN))
    assert len({receipt.id for receipt in receipts}) == RUN
    assert not any(receipt.duplicate for receipt in receipts)
    stats = direct.stats()
    assert (stats.jobs, stats.admitted, stats.acked, stats.deliveries) == (0, RUN, RUN, RUN)
    audit(direct)


@pytest.mark.everywhere
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("acked", [False, True])
def test_every_reply_of_merged_enqueues_is_lost(
    any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, acked: bool
) -> None:
    """200 tasks in waves of 10: each script's reply is swallowed, and each task gets the receipt of its own job."""
    line = proxy(any_server)
    fault = line.swallow(reply_of=is_first, times=None)
    worker = Queue(queue_name, any_server.url, limits=SMALL)
    done: list[bytes] = []
    if acked:
        meddle(line, is_resend, lambda: done.extend(take(worker)))

    async def run(queue: Any) -> dict[bytes, str]:
        found = {}
        for wave in waves(RUN, 10):
            names = [b"job-%d" % n for n in wave]
            receipts = await asyncio.gather(*(queue.enqueue_bytes(name) for name in names))
            found |= dict(zip(names, (receipt.id for receipt in receipts), strict=True))
        await queue.close()
        return found

    shell = Shell("async")
    ids = shell.run(run(shell.queue(queue_name, line.url, limits=SMALL).inner))
    shell.close()
    assert fault.hits >= 2 * RUN / 10
    assert len(set(ids.values())) == RUN
    if acked:
        # One that was on its way on a connection that was cut for another's sake is there with its resend only. Those
        # of a wave that is not the last are found with the next resend.
        assert len(done) >= RUN - 10
        done += take(worker)
        assert Counter(done) == Counter(list(ids))
    else:
        assert {name: direct.get(job_id).payload for name, job_id in ids.items()} == {name: name for name in ids}
    assert direct.stats().admitted == RUN
    audit(direct)


def waves(total: int, size: int) -> list[range]:
    """Numbers from 0 in ranges of a size."""
    return [range(start, start + size) for start in range(0, total, size)]


@pytest.mark.everywhere
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("acked", [False, True])
def test_every_reply_of_a_bulk_is_lost(
    shell: Shell,
    any_server: Server,
    direct: Queue,
    proxy: NewProxy,
    queue_name: str,
    options: Options,
    acked: bool,
) -> None:
    """`enqueue_many`, each of whose scripts loses its reply: every job once, results in order."""
    if acked and "delay" in options:
        pytest.skip("a delayed job is not due yet when the resend comes")
    line = proxy(any_server)
    fault = line.swallow(reply_of=is_first, times=None)
    worker = Queue(queue_name, any_server.url, limits=SMALL)
    done: list[bytes] = []
    if acked:
        meddle(line, is_resend, lambda: done.extend(take(worker)))
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    names = [b"job-%d" % n for n in range(1200)]
    common = {key: value for key, value in options.items() if key != "unique_for" and key != "unique"}
    results = queue.enqueue_many(names, **common)
    atomic = queue.enqueue_many([b"job-%d" % n for n in range(2000, 2080)], atomic=True, **common)
    assert fault.hits >= 4
    assert all(result.ok for result in (*results, *atomic))
    assert len({result.receipt.id for result in (*results, *atomic)}) == 1280
    assert direct.stats().admitted == 1280
    done += take(worker, lease=30) if not stored(direct) else stored(direct)
    assert Counter(done).most_common(1)[0][1] == 1
    assert len(done) == 1280
    if not acked:
        assert [direct.get(result.receipt.id).payload for result in results[::97]] == names[::97]
    audit(direct)


@pytest.mark.parametrize("options", [KINDS[0], KINDS[2]])
def test_silence_after_a_lost_reply(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """The reply is swallowed and the line stays open and mute: another connection asks, within the deadline."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL, deadline=PATIENT)
    queue.enqueue_bytes(b"job-0", **filled(options, 0))
    line.swallow(reply_of=is_first, then="silence")
    receipt = queue.enqueue_bytes(b"job-1", **filled(options, 1))
    assert direct.get(receipt.id).payload == b"job-1"
    assert direct.stats().admitted == 2
    assert queue.enqueue_bytes(b"job-2", **filled(options, 2)).jobs == 3


def test_silence_until_the_deadline(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """No reply comes through any more: `unknown`, and the job is in the queue once; the next call goes well."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL, deadline=0.4)
    queue.enqueue_bytes(b"job-0")
    line.swallow(reply_of=is_first, then="silence", times=None)
    with pytest.raises(Unavailable) as caught:
        queue.enqueue_bytes(b"job-1")
    assert (caught.value.outcome, caught.value.retryable) == ("unknown", False)
    line.heal()
    assert sorted(stored(direct)) == [b"job-0", b"job-1"]
    queue.enqueue_bytes(b"job-2")
    assert sorted(stored(direct)) == [b"job-0", b"job-1", b"job-2"]


# ---------------------------------------------------------------- cut after each byte


class Lengths:
    """Whether the n-th byte of a frame is past its end: asked for n = 0, 1, ..."""

    def __init__(self, line: Proxy, side: str) -> None:
        self._side = side
        self.request = 0
        self.resends = 0

        def look(command: Command) -> bool:
            if is_first(command):
                self.request = len(pack(*command))
            self.resends += is_resend(command)
            return False

        line.hold(request_of=look)

    def whole(self, n: int, failures: int) -> bool:
        """The frame that was cut after n bytes was cut after its last one; ``failures`` it caused."""
        return n >= self.request if self._side == "request" else failures == 0


@pytest.fixture(params=[{}, {"delay": 30}], ids=["plain", "general"])
def cutting(
    request: pytest.FixtureRequest, shell: Shell, any_server: Server, proxy: NewProxy, queue_name: str
) -> tuple[Proxy, Callable[[int], Any], int]:
    """A proxy, an enqueue of job n through it on an open connection, and after how many bytes to cut next."""
    line = proxy(any_server)
    queue = shell.queue("q" + queue_name[-11:], line.url, limits=SMALL)

    def enqueue(number: int) -> Any:
        return queue.enqueue_bytes(b"j%05d" % number, **request.param)

    enqueue(99_999)
    return line, enqueue, 3 if request.param else 1


@pytest.fixture
def there(any_server: Server, queue_name: str) -> Any:
    """The queue of ``cutting`` without the proxy; with a short name, since each byte of it is cut."""
    queue = Queue("q" + queue_name[-11:], any_server.url, limits=SMALL)
    yield queue
    queue.close()
    forget(any_server, queue.name)


@pytest.mark.everywhere
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("side", ["request", "reply"])
def test_cut_after_each_byte_and_sent_again(cutting: Any, there: Queue, side: str) -> None:
    """The connection is cut after the n-th byte of a request, or of a reply, for every n: stored once, a receipt."""
    line, enqueue, step = cutting
    lengths = Lengths(line, side)
    for n in itertools.count(0, step):
        before = lengths.resends
        fault = line.cut(**{f"{side}_of": is_first}, keep=n)
        receipt = enqueue(n)
        assert fault.hits == 1
        assert there.get(receipt.id).payload == b"j%05d" % n
        if lengths.whole(n, lengths.resends - before):
            break
    assert n > (200 if side == "request" else 25)
    assert there.stats().admitted == n // step + 2
    assert Counter(stored(there)).most_common(1)[0][1] == 1
    audit(there)


@pytest.mark.everywhere
@pytest.mark.usefixtures("one_attempt")
@pytest.mark.parametrize("side", ["request", "reply"])
def test_cut_after_each_byte_and_the_deadline_is_over(cutting: Any, there: Queue, side: str) -> None:
    """With no time for a second attempt: `not_sent` is only said of a job that was certainly not stored."""
    line, enqueue, step = cutting
    lengths = Lengths(line, side)
    lost = 0
    for n in itertools.count(0, step):
        before = there.stats().admitted
        line.cut(**{f"{side}_of": is_first}, keep=n)
        try:
            enqueue(n)
            outcome = "stored"
        except Unavailable as error:
            outcome = error.outcome
        lost += outcome == "unknown"
        last = lengths.whole(n, outcome != "stored")
        if side == "request" and last:  # the server may still be at it
            wait_until(lambda before=before: there.stats().admitted > before, "the whole request")
        executed = there.stats().admitted - before
        assert executed == (side == "reply" or last)
        assert outcome != "not_sent" or not executed
        assert outcome != "stored" or executed
        if last:
            break
    assert n > (200 if side == "request" else 25)
    assert lost > 0.9 * n / step
    audit(there)


@pytest.mark.everywhere
@pytest.mark.usefixtures("one_attempt")
def test_not_sent_is_said_where_it_is_certain(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """A refused connection: `not_sent`, which may be tried again, and nothing is stored."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    line.refuse()
    with pytest.raises(Unavailable) as caught:
        queue.enqueue_bytes(b"job-0")
    assert (caught.value.outcome, caught.value.reason, caught.value.retryable) == ("not_sent", "refused", True)
    line.heal()
    queue.enqueue_bytes(b"job-1")
    assert stored(direct) == [b"job-1"]


# ---------------------------------------------------------------- the original comes late


@pytest.fixture(params=[{}, {"delay": 30}], ids=["plain", "general"])
def options(request: pytest.FixtureRequest) -> Options:
    found: Options = request.param
    return found


@pytest.mark.everywhere
def test_original_comes_after_its_resend(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """The network held a first sending until its resend was admitted, and a later call too: stored once."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL, deadline=PATIENT)
    queue.enqueue_bytes(b"job-0", **options)
    ghost = line.hold(request_of=is_first)
    assert queue.enqueue_bytes(b"job-1", **options).jobs == 2
    assert queue.enqueue_bytes(b"job-2", **options).jobs == 3
    ghost.release()
    all_answered(line)
    queue.enqueue_bytes(b"job-3", **options)
    assert sorted(stored(direct)) == [b"job-0", b"job-1", b"job-2", b"job-3"]
    assert direct.stats().admitted == 4
    audit(direct)


REFUSALS: dict[str, tuple[Callable[[Queue], object], Callable[[Queue], object], type[Rejected]]] = {
    "full": (
        lambda direct: direct.enqueue_many([b"other"] * 3),
        lambda direct: take(direct),
        QueueFull,
    ),
    "sealed": (lambda direct: direct.seal(), lambda direct: direct.unseal(), QueueSealed),
}


@pytest.mark.everywhere
@pytest.mark.parametrize("why", REFUSALS)
def test_original_comes_after_its_resend_was_refused(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options, why: str
) -> None:
    """A refusal says "certainly not stored": a first sending that comes when there is room again is not admitted."""
    refuse, allow, kind = REFUSALS[why]
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, max_jobs=4, deadline=PATIENT)
    queue.enqueue_bytes(b"job-0", **options)
    meddle(line, is_resend, lambda: refuse(direct))
    ghost = line.hold(request_of=is_first)
    with pytest.raises(kind):
        queue.enqueue_bytes(b"job-1", **options)
    allow(direct)
    ghost.release()
    all_answered(line)
    assert b"job-1" not in stored(direct)
    queue.enqueue_bytes(b"job-2", **options)
    assert b"job-2" in stored(direct)
    assert b"job-1" not in stored(direct)
    audit(direct)


@pytest.mark.everywhere
def test_original_comes_between_a_refused_resend_and_the_next_call(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """A refused call of a bulk whose first sending was held: what the results call refused is never stored."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, max_jobs=5, deadline=PATIENT)
    queue.enqueue_bytes(b"job-0")
    meddle(line, is_resend, lambda: direct.enqueue_many([b"other"] * 2))
    ghost = line.hold(request_of=is_first)
    results = queue.enqueue_many([b"job-%d" % n for n in range(1, 6)])
    assert [result.ok for result in results] == [True, True, False, False, False]
    assert sorted(take(direct)) == [b"job-0", b"job-1", b"job-2", b"other", b"other"]
    ghost.release()
    all_answered(line)
    assert stored(direct) == []
    audit(direct)


@pytest.mark.everywhere
def test_out_of_memory_when_the_resend_comes(
    shell: Shell, fresh_server: FreshServer, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """The first sending was stored, its reply lost, and the server is full at the resend: not called "not stored"."""
    server = fresh_server()
    line = proxy(server)
    queue = shell.queue(queue_name, line.url, limits=SMALL, deadline=1)
    queue.enqueue_bytes(b"job-0", **options)
    meddle(line, is_resend, lambda: server.cli("CONFIG", "SET", "maxmemory", 1))
    line.swallow(reply_of=is_first)
    with pytest.raises(Unavailable) as caught:
        queue.enqueue_bytes(b"job-1", **options)
    assert caught.value.outcome == "unknown"
    server.cli("CONFIG", "SET", "maxmemory", 0)
    assert sorted(stored(Queue(queue_name, server.url))) == [b"job-0", b"job-1"]


# ---------------------------------------------------------------- the server forgets


def strangers(server: Server, name: str, jobs: int) -> None:
    """Others enlist and enqueue, so that they have the ids and numbers that were ours before the flush."""
    for number in range(jobs):
        other = Queue(name, server.url, limits=SMALL)
        other.close()  # a new connection, and the hub's thread keeps its session
        link = other._hub.link()
        link._sessions.clear()
        other.enqueue_bytes(b"other-%d" % number)


def evict(server: Server, name: str) -> None:
    """4,096 producers enlist: the first is forgotten."""
    core = Core(name, SMALL)
    call = next(core.attach(Session(), producer=True))
    assert isinstance(call, Call)
    sha = server.cli("SCRIPT", "LOAD", call.script.text)
    code = "redis.call('HINCRBY', KEYS[1], 'producer', 4095)"
    server.cli("EVAL", code, len(call.keys), *call.keys)
    server.cli("EVALSHA", sha, len(call.keys), *call.keys, *call.args)


@pytest.mark.everywhere
@pytest.mark.parametrize("jobs", [0, 3], ids=["empty", "ids-reused"])
def test_flushed_between_sending_and_resend(
    shell: Shell, any_server: Server, proxy: NewProxy, queue_name: str, options: Options, jobs: int
) -> None:
    """
    All keys are gone when the resend comes, and others may have our producer id and number by then: nobody can
    say what became of the job, so the call says `unknown`, and neither stores it twice nor takes another's receipt.
    """
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_bytes(b"job-0", **options)

    def flush() -> None:
        forget(any_server, queue_name)
        strangers(any_server, queue_name, jobs)

    meddle(line, is_resend, flush)
    line.swallow(reply_of=is_first)
    with pytest.raises(Unavailable) as caught:
        queue.enqueue_bytes(b"job-1", **options)
    assert caught.value.outcome == "unknown"
    direct = Queue(queue_name, any_server.url, limits=SMALL)
    receipt = queue.enqueue_bytes(b"job-2", **options)
    assert direct.get(receipt.id).payload == b"job-2"
    assert sorted(stored(direct)) == [b"job-2", *(b"other-%d" % n for n in range(jobs))]
    audit(direct)


@pytest.mark.everywhere
@pytest.mark.parametrize("jobs", [0, 3], ids=["empty", "ids-reused"])
def test_flushed_between_calls(shell: Shell, any_server: Server, queue_name: str, options: Options, jobs: int) -> None:
    """All keys are gone between two calls: the next one creates the queue anew, whoever has our old id by then."""
    queue = shell.queue(queue_name, any_server.url + "?x=1" if "?" in any_server.url else any_server.url, limits=SMALL)
    for number in range(3):
        queue.enqueue_bytes(b"old-%d" % number, **options)
    forget(any_server, queue_name)
    with ThreadPoolExecutor(1) as others:
        others.submit(strangers, any_server, queue_name, jobs).result()
    for number in range(3):
        queue.enqueue_bytes(b"job-%d" % number, **options)
    direct = Queue(queue_name, any_server.url, limits=SMALL)
    assert sorted(stored(direct)) == sorted(
        [*(b"job-%d" % n for n in range(3)), *(b"other-%d" % n for n in range(jobs))]
    )
    audit(direct)


@pytest.mark.everywhere
def test_forgotten_producer(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """4,096 others enlisted before the resend came: `unknown`, the job is there once, and the next call goes well."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_bytes(b"job-0", **options)
    meddle(line, is_resend, lambda: evict(any_server, queue_name))
    line.swallow(reply_of=is_first)
    with pytest.raises(Unavailable) as caught:
        queue.enqueue_bytes(b"job-1", **options)
    assert caught.value.outcome == "unknown"
    assert sorted(stored(direct)) == [b"job-0", b"job-1"]
    queue.enqueue_bytes(b"job-2", **options)
    evict(any_server, queue_name)
    queue.enqueue_bytes(b"job-3", **options)
    assert sorted(stored(direct)) == [b"job-0", b"job-1", b"job-2", b"job-3"]
    audit(direct)


@pytest.mark.everywhere
def test_scripts_flushed_before_the_resend(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, options: Options
) -> None:
    """The server has lost the script when the resend comes: it is taught again, and recognises the resend."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_bytes(b"job-0", **options)
    flushed = []

    def flush() -> None:
        if not flushed:
            flushed.append(any_server.cli("SCRIPT", "FLUSH"))

    meddle(line, is_resend, flush)
    line.swallow(reply_of=is_first)
    receipt = queue.enqueue_bytes(b"job-1", **options)
    assert flushed
    assert direct.get(receipt.id).payload == b"job-1"
    assert direct.stats().admitted == 2


# ---------------------------------------------------------------- attach, and waiting for room


@pytest.mark.everywhere
def test_lost_reply_of_attach(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """The first call's introduction is answered into the void, three times: it is made again, the job stored once."""
    line = proxy(any_server)
    fault = line.swallow(reply_of=is_script("attach"), times=3)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    assert queue.enqueue_bytes(b"job-0").jobs == 1
    assert fault.hits == 3
    assert stored(direct) == [b"job-0"]


@pytest.mark.parametrize(
    ("lost", "then"), [("first", "cut"), ("BLPOP", "cut"), ("second", "cut"), ("BLPOP", "silence")]
)
def test_lost_reply_while_waiting_for_room(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, lost: str, then: Any
) -> None:
    """A producer stands in line at a full queue and loses a reply on the way: its job is stored once all the same."""
    line = proxy(any_server)
    direct.configure(SMALL)
    queue = shell.queue(queue_name, line.url, max_jobs=1, deadline=PATIENT)
    direct.configure(type(SMALL)(max_jobs=1))
    direct.enqueue_bytes(b"old")
    general = is_script("enqueue_general")
    which = {"first": (general, 0), "BLPOP": ("BLPOP", 0), "second": (general, 1)}[lost]
    fault = line.swallow(reply_of=which[0], after=which[1], then=then)

    def make_room() -> None:
        if lost == "first":
            fault.wait()
        else:
            wait_until(lambda: int(any_server.info("clients")["blocked_clients"]) >= 1, "somebody who waits")
        assert take(direct) == [b"old"]

    thread = threading.Thread(target=make_room)
    thread.start()
    receipt = queue.enqueue_bytes(b"job", wait=8)
    thread.join()
    assert fault.hits == 1
    assert direct.get(receipt.id).payload == b"job"
    assert stored(direct) == [b"job"]
    assert direct.stats().admitted == 2
    audit(direct)


# ---------------------------------------------------------------- settling and claiming


SETTLEMENTS: dict[str, tuple[Callable[[Any], object], Options]] = {
    "ack": (lambda lease: lease.ack(), {"acked": 1, "jobs": 0}),
    "retry": (lambda lease: lease.retry(0), {"retried": 1, "jobs": 1}),
    "release": (lambda lease: lease.release(), {"released": 1, "jobs": 1}),
    "bury": (lambda lease: lease.bury("why", "text"), {"buried": 1, "jobs": 0, "dead": 1}),
}


@pytest.mark.everywhere
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", SETTLEMENTS)
@pytest.mark.parametrize("unique", [None, "key"])
def test_lost_reply_of_a_settlement(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, how: str, unique: str | None
) -> None:
    """It was done, its reply lost, and done again: no error, counted once, and no lease is called lost."""
    settle, expected = SETTLEMENTS[how]
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_bytes(b"job", unique=unique)
    (lease,) = queue.claim()
    fault = line.swallow(reply_of=is_script("settle"), times=2)
    settle(lease)
    assert fault.hits == 2
    stats = direct.stats()
    assert {name: getattr(stats, name) for name in expected} == expected
    assert stats.leases_lost == 0
    audit(direct)


@pytest.mark.everywhere
def test_lost_reply_of_a_settlement_of_a_lost_lease(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """The job is claimed by another since the lease ended: the old lease's ack, sent twice, does not take it away."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_bytes(b"job")
    (old,) = queue.claim(lease=0.1)
    (new,) = until_claimed(direct)
    line.swallow(reply_of=is_script("settle"))
    with pytest.raises(LeaseLost):
        old.ack()
    assert direct.stats().jobs == 1
    new.ack()
    assert direct.stats().acked == 1


@pytest.mark.everywhere
def test_lost_reply_of_a_claim(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """A claim is never sent twice: `unknown`, and what it took comes back when the lease ends."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_many([b"job-%d" % n for n in range(4)])
    claims = is_script("claim")
    line.swallow(reply_of=claims)
    with pytest.raises(Unavailable) as caught:
        queue.claim(2, lease=0.2)
    assert caught.value.outcome == "unknown"
    assert line.count(claims) == 1
    found: list[Any] = []
    wait_until(lambda: found.extend(direct.claim(4)) or len(found) == 4, "the lost leases, and the rest")
    assert sorted(payloads(found)) == [b"job-0", b"job-1", b"job-2", b"job-3"]
    assert direct.stats().deliveries == 6


@pytest.mark.everywhere
@pytest.mark.parametrize("lost", ["settle", "claim"])
def test_lost_reply_of_a_workers_round(
    any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str, lost: str
) -> None:
    """Settle and claim in one write, one reply lost: settled once, no lease called lost; the claimed come back."""
    line = proxy(any_server)
    queue = Queue(queue_name, line.url, limits=SMALL)
    queue.enqueue_many([b"job-%d" % n for n in range(6)])
    leases = queue.claim(3)
    fault = line.swallow(reply_of=is_script(lost))
    lost_leases, claimed = queue._turn(leases[:1], [(leases[1], 0)], [(leases[2], "why", "text")], 2, 0.2)
    assert fault.hits == 1
    assert lost_leases == []
    stats = direct.stats()
    assert (stats.acked, stats.retried, stats.buried, stats.leases_lost) == (1, 1, 1, 0)
    ids = {lease.id for lease in claimed}
    wait_until(lambda: ids.update(lease.id for lease in direct.claim(10)) or len(ids) == 4, "the other four jobs")
    assert direct.stats().jobs == 4


@pytest.mark.everywhere
def test_original_settlement_comes_after_its_resend(
    shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str
) -> None:
    """A held release comes after its resend was done and the job claimed again: the new lease is not touched."""
    line = proxy(any_server)
    queue = shell.queue(queue_name, line.url, limits=SMALL, deadline=PATIENT)
    queue.enqueue_bytes(b"job")
    (lease,) = queue.claim()
    ghost = line.hold(request_of=is_script("settle"))
    lease.release()
    (again,) = direct.claim()
    before = dump(any_server, queue_name, without="state")
    ghost.release()
    all_answered(line)
    assert dump(any_server, queue_name, without="state") == before
    assert direct.stats().released == 1
    again.ack()


# ---------------------------------------------------------------- everything at once


@pytest.mark.usefixtures("hasty")
def test_a_bad_line(shell: Shell, any_server: Server, direct: Queue, proxy: NewProxy, queue_name: str) -> None:
    """
    Four producers and two workers over a line that loses every seventh reply and cuts every eleventh request: each
    job with a receipt is acked once, one without at most once, and the ledger adds up.
    """
    line = proxy(any_server)
    counter = itertools.count(1)

    def every(nth: int) -> Callable[[Command], bool]:
        return lambda command: command[:1] == (b"EVALSHA",) and next(counter) % nth == 0

    line.swallow(reply_of=every(7), times=None)
    line.cut(request_of=every(11), keep=50, times=None)
    sent: dict[bytes, str] = {}
    unknown: set[bytes] = set()
    done: list[bytes] = []
    produced = threading.Event()

    def produce(number: int) -> None:
        queue = shell.queue(queue_name, line.url, limits=SMALL)
        for n in range(25):
            payload = b"job-%d-%d" % (number, n)
            try:
                options = {"unique": payload.decode()} if n % 3 == 0 else {}
                sent[payload] = queue.enqueue_bytes(payload, **options).id
            except Unavailable as error:
                if error.outcome == "unknown":
                    unknown.add(payload)

    def work() -> None:
        queue = shell.queue(queue_name, line.url, limits=SMALL)
        while not (produced.is_set() and direct.stats().jobs == 0):
            try:
                for lease in queue.claim(5, wait=0.05, lease=0.5):
                    lease.ack()
                    done.append(lease.payload)
            except Unavailable:
                pass  # a claim: its jobs come back
            except LeaseLost:
                pass

    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(work) for _ in range(2)]
        for producer in [pool.submit(produce, number) for number in range(4)]:
            producer.result()
        produced.set()
        for worker in workers:
            worker.result()
    stats = direct.stats()
    assert len(sent) <= stats.admitted <= len(sent) + len(unknown)
    assert stats.acked == stats.admitted
    assert set(sent) <= set(done) <= set(sent) | unknown
    audit(direct)
