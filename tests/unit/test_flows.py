"""Flows by hand: what they send, and what they make of each reply. No server."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from boundq import ConfigError, DataError, Limits, Receipt, Rejection, Unavailable
from boundq import _status as status
from boundq._call import Answer, Call, Full
from boundq._core.admission import FLAGS, MOST_GENERAL, MOST_PLAIN, Admission
from boundq._core.base import Core
from boundq._core.control import Control
from boundq._core.delivery import Deliveries, Settlement
from boundq._core.express import Express
from boundq._core.inspection import Inspection
from boundq._envelope import pack, stamp
from boundq._job import prepare
from boundq._retry import Lost
from boundq._session import CLOCK_SECONDS, Session

NOW = 1_800_000_000_000
LIMITS = Limits(max_jobs=10)


def attached(producer: int = 7, **changed: int) -> list[Any]:
    """What attach answers: the state hash, flat, as bytes."""
    state = {**LIMITS.to_fields(), **changed}
    flat = [word for name, value in state.items() for word in (name.encode(), str(value).encode())]
    return [status.OK, NOW, producer, 0, *flat]


class Driver:
    """Plays the server to a flow."""

    def __init__(self, flow: Generator[Any, Answer, Any]) -> None:
        self._flow = flow
        self.sent: Any = None
        self.result: Any = None
        self.done = False
        self._step(lambda: next(flow))

    def _step(self, step: Any) -> None:
        try:
            self.sent = step()
        except StopIteration as stop:
            self.done, self.result, self.sent = True, stop.value, None

    def reply(self, *reply: Any, resent: bool = False) -> Driver:
        assert not self.done
        self._step(lambda: self._flow.send(Answer(list(reply), resent)))
        return self

    def fail(self, error: Exception) -> Driver:
        self._step(lambda: self._flow.throw(error))
        return self


@pytest.fixture
def core() -> Core:
    return Core("mails", LIMITS)


@pytest.fixture
def session(core: Core) -> Session:
    """One that has met the queue already."""
    session = Session()
    driver = Driver(core.attach(session, producer=True))
    assert driver.sent.script.name == "attach"
    driver.reply(*attached())
    assert driver.done
    return session


def plain(count: int = 1, payload: bytes = b"x") -> list[Any]:
    return [prepare("mails", "", payload, {}) for _ in range(count)]


def test_first_enqueue_attaches(core: Core) -> None:
    """A producer meets the queue first, with its declaration, and then sends numbered calls."""
    session = Session()
    driver = Driver(Admission(core).enqueue(session, plain()))
    assert driver.sent.script.name == "attach"
    assert driver.sent.args[0] == 1, "create it"
    assert [
        value for name, value in zip(driver.sent.args[2::2], driver.sent.args[3::2], strict=True) if name == "max_jobs"
    ] == [10]
    driver.reply(*attached(producer=42))
    call = driver.sent
    assert (call.script.name, call.args[0], call.repeat) == ("enqueue", b"p42", True)
    assert call.args[1] == session.number
    driver.reply(status.OK, 1, 9, 1, 200)
    assert driver.result == [Receipt("9", False, 1, 200)]


def test_numbers_rise(core: Core, session: Session) -> None:
    """Each call has a number of its own, larger than those before."""
    admission, numbers = Admission(core), []
    for _ in range(12):
        driver = Driver(admission.enqueue(session, plain()))
        numbers.append(driver.sent.args[1])
        driver.reply(status.OK, 1, 9, 1, 200)
    assert numbers == sorted(set(numbers))
    assert {len(number) for number in numbers} == {18}


PLAIN_REPLIES = [
    ((status.OK, 1, 9, 5, 1000), [Receipt("9", False, 5, 1000)]),
    ((status.REPEATED, 1, 9, 5, 1000), [Receipt("9", False, 5, 1000)]),
    (
        (status.FULL_JOBS, 0, 0, 10, 500, status.FULL_JOBS, 10, 10, 1, 1500, -1),
        [Rejection("mails", "jobs", 10, 10, 1, 1.5, None)],
    ),
    (
        (status.FULL_BYTES, 0, 0, 10, 500, status.FULL_BYTES, 500, 600, 200, -1, -1),
        [Rejection("mails", "bytes", 500, 600, 200, 0.0, None)],
    ),
    (
        (status.TOO_LARGE, 0, 0, 10, 500, status.TOO_LARGE, 0, 100, 200, -1, -1),
        [Rejection("mails", "job_bytes", 0, 100, 200, 0.0, None)],
    ),
]


@pytest.mark.parametrize(("reply", "expected"), PLAIN_REPLIES, ids=lambda one: str(one)[:24])
def test_plain_replies(core: Core, session: Session, reply: tuple[Any, ...], expected: list[Any]) -> None:
    """Each reply of ``enqueue`` has one meaning."""
    driver = Driver(Admission(core).enqueue(session, plain()))
    driver.reply(*reply)
    assert driver.result == expected


def test_prefix_of_plain_jobs(core: Core, session: Session) -> None:
    """Ids of a prefix are consecutive in their ring; behind them is one refusal."""
    driver = Driver(Admission(core).enqueue(session, plain(5)))
    driver.reply(status.OK, 3, 17, 10, 900, status.FULL_JOBS, 10, 10, 1, 0, -1)
    assert [one.id for one in driver.result[:3]] == ["17", "25", "33"]
    assert driver.result[3].reason == "jobs"
    assert len(driver.result) == 4


def test_retry_after_from_the_rate(core: Core, session: Session) -> None:
    """What is missing, over the drain rate, and up to a quarter more."""
    driver = Driver(Admission(core).enqueue(session, plain()))
    driver.reply(status.FULL_JOBS, 0, 0, 30, 500, status.FULL_JOBS, 30, 10, 1, 0, 3000)  # 21 too many, 3 a second
    assert 7.0 <= driver.result[0].retry_after <= 8.75


def test_general_is_asked_for(core: Core, session: Session) -> None:
    """GENERAL sends the same number through the other script."""
    driver = Driver(Admission(core).enqueue(session, plain()))
    number = driver.sent.args[1]
    driver.reply(status.GENERAL)
    assert (driver.sent.script.name, driver.sent.args[1]) == ("enqueue_general", number)
    driver.reply(status.OK, 1, 5, 1000, 0, 0, 0, 0, -1, -1, 0, 9, 0)
    assert driver.result == [Receipt("9", False, 5, 1000)]


def test_general_jobs_go_there_at_once(core: Core, session: Session) -> None:
    """Options, and mixed priorities, know the script that they need."""
    for jobs in (
        [prepare("mails", "", b"x", {"delay": 1})],
        [prepare("mails", "", b"x", {"unique": "k"})],
        [prepare("mails", "", b"x", {}), prepare("mails", "", b"x", {"priority": "low"})],
    ):
        assert Driver(Admission(core).enqueue(session, jobs)).sent.script.name == "enqueue_general"
    headers = [prepare("mails", "", b"x", {"headers": {"a": "b"}})]
    assert Driver(Admission(core).enqueue(session, headers)).sent.script.name == "enqueue"


def test_general_replies(core: Core, session: Session) -> None:
    """Ids and duplicates come in pairs; a refusal stands before them."""
    jobs = [prepare("mails", "", b"x", {"unique": f"k{n}"}) for n in range(3)]
    driver = Driver(Admission(core).enqueue(session, jobs))
    driver.reply(status.OK, 2, 5, 1000, status.FULL_BYTES, 1000, 1100, 200, 2500, -1, 0, 13, 0, 9, 1)
    assert driver.result == [
        Receipt("13", False, 5, 1000),
        Receipt("9", True, 5, 1000),
        Rejection("mails", "bytes", 1000, 1100, 200, 2.5, None),
    ]


def test_clash_is_a_config_error(core: Core, session: Session) -> None:
    """A time that no score can hold names the option."""
    driver = Driver(Admission(core).enqueue(session, [prepare("mails", "", b"x", {"delay": 10**9})]))
    with pytest.raises(ConfigError) as raised:
        driver.reply(status.CLASH, 0)
    assert raised.value.setting == "delay"


def test_stranger_enlists_anew(core: Core, session: Session) -> None:
    """A server that has forgotten the producer gets to know it again, and the call goes on."""
    driver = Driver(Admission(core).enqueue(session, plain()))
    driver.reply(status.STRANGER)
    assert driver.sent.script.name == "attach"
    driver.reply(*attached(producer=8))
    assert (driver.sent.script.name, driver.sent.args[0]) == ("enqueue", b"p8")
    driver.reply(status.OK, 1, 9, 1, 200)
    assert driver.result[0].id == "9"


def test_stranger_after_a_resend_is_unknown(core: Core, session: Session) -> None:
    """Where the first sending may have been done, nobody can say any more: never silently twice (R-21)."""
    driver = Driver(Admission(core).enqueue(session, plain()))
    with pytest.raises(Unavailable) as raised:
        driver.reply(status.STRANGER, resent=True)
    assert raised.value.outcome == "unknown"


@pytest.mark.parametrize("count", [1, 3])
def test_express_says_the_same(core: Core, session: Session, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of the short way are those that the long way sends: a call may be begun on one and end on the other."""
    monkeypatch.setattr(Session, "created", lambda _: stamp(NOW))
    express = Express(core, Admission(core))
    jobs = [prepare("mails", "send", b"x" * (300 * number + 1), {"priority": "high"}) for number in range(count)]
    request = express.request(session, jobs)
    assert request == Driver(express.long_way(session, jobs, numbered=True, failed=None)).sent.packed()


def test_express_is_for_what_is_usual(core: Core, session: Session) -> None:
    """A stranger, an old clock, an option, a job too large, a server out of memory: no number is spent on them."""
    admission, number = Admission(core), session.number
    express = Express(core, admission)
    assert express.request(Session(), plain()) is None
    assert express.request(session, [prepare("mails", "", b"x", {"delay": 1})]) is None
    assert express.request(session, plain(payload=b"x" * 300_000)) is None
    admission.memory.close()
    assert express.request(session, plain()) is None
    admission.memory.reopen()
    session._read_at -= CLOCK_SECONDS
    assert express.request(session, plain()) is None
    assert session.number == number
    for code in (status.GENERAL, status.REPEATED, status.STRANGER, status.UNDECLARED, status.BAD_FORMAT):
        assert express.outcomes([code, 0, 0, 0, 0]) is None


@pytest.mark.parametrize("sent", [True, False])
def test_the_long_way_after_a_lost_answer(core: Core, session: Session, sent: bool) -> None:
    """
    What may have been executed is sent again as such, whatever is the matter meanwhile: an old clock, a smaller limit,
    a server that has run out of memory. Nobody is told that it was certainly not stored.
    """
    admission = Admission(core)
    express = Express(core, admission)
    assert express.request(session, plain())
    session._read_at -= CLOCK_SECONDS
    core.max_job_bytes = 1
    driver = Driver(express.long_way(session, plain(), numbered=True, failed=Lost("reset", sent)))
    assert driver.sent.script.name == "enqueue"
    assert (driver.sent.args[1], int(driver.sent.args[FLAGS])) == (session.number, 2 if sent else 0)
    admission.memory.close()
    driver = Driver(express.long_way(session, plain(), numbered=True, failed=Lost("reset", sent)))
    if sent:
        assert driver.sent.script.name == "enqueue"
        with pytest.raises(Unavailable) as caught:
            driver.fail(Full())
        assert caught.value.outcome == "unknown"
    else:
        assert driver.result == [Rejection("mails", "memory", requested=1)]


def test_out_of_memory_is_full(core: Core, session: Session) -> None:
    """OOM is `QueueFull` for memory (R-06), and the next call does not ask the server at once."""
    admission = Admission(core)
    driver = Driver(admission.enqueue(session, plain(2)))
    driver.fail(Full())
    assert driver.result == [Rejection("mails", "memory", requested=2)]
    second = Driver(admission.enqueue(session, plain()))
    assert second.done, "it asked the server again"
    assert second.result[0].reason == "memory"


@pytest.mark.parametrize(("code", "reason"), [(status.UNDECLARED, "missing"), (status.BAD_FORMAT, "unknown_version")])
def test_queue_that_is_none(code: int, reason: str) -> None:
    """No such queue, or one of a newer format: `DataError`."""
    core = Core("mails", None)
    for flow in (
        Admission(core).enqueue(Session(), plain()),
        Deliveries(core).claim(1, 30, 0.0),
        Inspection(core).stats(),
        Inspection(core).get("9"),
        Control(core).purge(("ready",)),
    ):
        with pytest.raises(DataError) as raised:
            Driver(flow).reply(code, b"2")
        assert (raised.value.queue, raised.value.reason) == ("mails", reason)


def test_foreign_key(core: Core) -> None:
    """CLASH at the first meeting names the key and what it is."""
    with pytest.raises(DataError) as raised:
        Driver(core.attach(Session(), producer=True)).reply(status.CLASH, b"boundq:{mails}:jobs", b"string")
    assert (raised.value.reason, raised.value.where) == ("wrong_type", "boundq:{mails}:jobs")
    assert "string" in str(raised.value)


def test_too_large_is_not_sent(core: Core, session: Session) -> None:
    """A job over ``max_job_bytes`` is refused here (R-41), after asking once whether the limit has grown."""
    driver = Driver(Admission(core).enqueue(session, plain(1, b"x" * 300_000)))
    assert driver.sent.script.name == "attach"
    driver.reply(*attached())
    assert driver.result == [Rejection("mails", "job_bytes", 0, 262_144, 300_009)]
    driver = Driver(Admission(core).enqueue(session, plain(1, b"x" * 300_000)))
    driver.reply(*attached(max_job_bytes=400_000))
    assert driver.sent.script.name == "enqueue"


@pytest.mark.parametrize(
    ("count", "options"), [(MOST_PLAIN + 1, {}), (MOST_GENERAL + 1, {"delay": 1})], ids=["plain", "general"]
)
def test_atomic_of_too_many(core: Core, session: Session, count: int, options: dict) -> None:
    """All or nothing is one script: more than it takes is refused before anything is sent."""
    jobs = [prepare("mails", "", b"x", options) for _ in range(count)]
    with pytest.raises(ConfigError):
        Driver(Admission(core).enqueue(session, jobs, atomic=True))


# ---------------------------------------------------------------- delivery

FENCE = 5 * 2**11 + 2 * 2**7 + 3  # nonce 5, two expired leases, third delivery
ENVELOPE = pack(stamp(NOW - 1000), b"send", b"[[1],{}]")


def test_claim_reply(core: Core) -> None:
    """Triples of id, fence and envelope; times by the server's clock."""
    driver = Driver(Deliveries(core).claim(2, 30, 0.0))
    call = driver.sent
    assert isinstance(call, Call)
    assert (call.script.name, call.args[0], call.args[2], call.repeat) == ("claim", 2, 30_000, False)
    driver.reply(status.OK, NOW, NOW + 30_000, -1, 0, b"14", FENCE, ENVELOPE, 22, FENCE + 1, b"\x02future")
    first, second = driver.result
    assert (first.id, first.fence, first.attempt, first.expired_leases, first.priority) == ("14", FENCE, 3, 2, "high")
    assert (first.envelope.task, first.envelope.payload) == ("send", b"[[1],{}]")
    assert (first.claimed, first.deadline) == (NOW / 1000, NOW / 1000 + 30)
    assert (second.id, second.envelope, second.raw) == ("22", None, b"\x02future")
    assert second.problem.reason == "unknown_version"


def test_claim_without_wait(core: Core) -> None:
    """Nothing there: none; "more": again at once."""
    driver = Driver(Deliveries(core).claim(1, 30, 0.0))
    driver.reply(status.OK, NOW, NOW + 30_000, -1, 1)
    assert driver.sent.script.name == "claim"
    driver.reply(status.OK, NOW, NOW + 30_000, -1, 0)
    assert driver.result == []


@pytest.mark.parametrize(
    ("next_ms", "least", "most"), [(-1, 0.9, 1.0), (5000, 0.9, 1.0), (300, 0.3, 0.32), (0, 0.0, 0.02)]
)
def test_claim_that_waits(core: Core, next_ms: int, least: float, most: float) -> None:
    """It sleeps on the queue's list until the next event, a second at most, and says that it has waited."""
    driver = Driver(Deliveries(core).claim(1, 30, 60.0))
    assert (driver.sent.args[4], driver.sent.block) == (1, None)
    driver.reply(status.OK, NOW, NOW + 30_000, next_ms, 0)
    key, pause = driver.sent.block
    assert key == b"boundq:{mails}:wake"
    assert least <= pause <= most
    assert driver.sent.args[4] == 2


def test_paused(core: Core) -> None:
    """A paused queue is an empty one."""
    assert Driver(Deliveries(core).claim(1, 30, 0.0)).reply(status.PAUSED, NOW, NOW - 5).result == []


def deliveries(core: Core, count: int) -> list[Any]:
    driver = Driver(Deliveries(core).claim(count, 30, 0.0))
    triples = [word for n in range(count) for word in (b"%d" % (9 + 8 * n), 1, ENVELOPE)]
    return driver.reply(status.OK, NOW, NOW + 30_000, -1, 0, *triples).result


def test_settle_names_the_lost(core: Core) -> None:
    """Places count through all four lists."""
    one, two, three, four = deliveries(core, 4)
    work = Settlement([one], [(two, 1.5)], [three], [(four, "bad\nreason", "text")])
    driver = Driver(Deliveries(core).settle(work))
    words = driver.sent.args
    assert (driver.sent.script.name, driver.sent.repeat) == ("settle", True)
    assert 1500 in words
    assert b"bad reason" in words
    driver.reply(status.OK, 3, 500, 2, 0, 4, 1)
    assert [(lost.delivery.id, lost.cancelled) for lost in driver.result] == [("17", False), ("33", True)]


def test_settle_resent(core: Core) -> None:
    """An ack whose first sending was done finds the job gone: that is no loss (R-64)."""
    one, two = deliveries(core, 2)
    driver = Driver(Deliveries(core).settle(Settlement([one, two])))
    driver.reply(status.OK, 0, 0, 1, 1, 2, 0, resent=True)
    assert [lost.delivery.id for lost in driver.result] == ["17"], "still here: another has it"


def test_settle_in_parts(core: Core) -> None:
    """At most 500 in a script, every one of them once."""
    many = deliveries(core, 3)
    driver = Driver(Deliveries(core).settle(Settlement(many * 400)))
    calls = 0
    while not driver.done:
        calls += 1
        driver.reply(status.OK, 0, 0)
    assert calls == 3


def test_extend(core: Core) -> None:
    """The lost ones by place."""
    one, two = deliveries(core, 2)
    driver = Driver(Deliveries(core).extend([one, two], 45))
    assert driver.sent.args[0] == 45_000
    driver.reply(status.OK, NOW + 45_000, 2)
    assert driver.result == (NOW / 1000 + 45, [two])


def test_purge_goes_on_while_there_is_more(core: Core) -> None:
    """In steps, and the count is of all of them."""
    driver = Driver(Control(core).purge(("ready", "dead")))
    assert driver.sent.args[0] == "ready"
    driver.reply(status.OK, 500, 1).reply(status.OK, 20, 0)
    assert driver.sent.args[0] == "dead"
    driver.reply(status.OK, 3, 0)
    assert driver.result == 523
