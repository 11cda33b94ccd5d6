"""What becomes of an exchange that failed: once more after a pause, or which error (R-141, R-78)."""

from __future__ import annotations

import time

import pytest

from boundq import DataError, Unavailable
from boundq._attempt import MOST_ROUNDS, attempt
from boundq._call import Call, Full
from boundq._retry import Attempts, ErrorReply, Lost
from boundq._scripts import load
from boundq._session import CLOCK_SECONDS, Session

REPEATABLE = Call(load("stats"), (b"k",), ())
ONCE = REPEATABLE._replace(repeat=False)


def attempts(call: Call = REPEATABLE, seconds: float = 60.0) -> Attempts:
    return Attempts("mails", call, time.monotonic() + seconds)


def error_of(reply: str, seconds: float = 0.0) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011  which one is what the tests look at
        attempts(seconds=seconds).refused(ErrorReply(reply))
    return raised.value


TABLE = [
    ("LOADING Redis is loading the dataset in memory", "loading"),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", "busy"),
    ("READONLY You can't write against a read only replica.", "readonly"),
    ("MASTERDOWN Link with MASTER is down", "readonly"),
    ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist", "misconf"),
    ("NOREPLICAS Not enough good replicas to write.", "misconf"),
    ("CLUSTERDOWN The cluster is down", "cluster"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "cluster"),
    ("MOVED 3999 127.0.0.1:6381", "cluster"),
    ("ASK 3999 127.0.0.1:6381", "cluster"),
    ("ERR max number of clients reached", "max_clients"),
]


@pytest.mark.parametrize(("text", "reason"), TABLE, ids=[reason + str(n) for n, (_, reason) in enumerate(TABLE)])
def test_errors_that_pass(text: str, reason: str) -> None:
    """Errors that may pass are asked again until the deadline, then `Unavailable`, certainly not done."""
    assert 0 < attempts().refused(ErrorReply(text)) <= 0.1
    error = error_of(text)
    assert isinstance(error, Unavailable)
    assert (error.queue, error.outcome, error.reason) == ("mails", "not_sent", reason)
    assert error.retryable
    assert isinstance(error.__cause__, ErrorReply)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NOAUTH Authentication required.", "auth"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "auth"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "no_permission"),
    ],
)
def test_errors_that_do_not_pass(text: str, reason: str) -> None:
    """No repeat helps against these: they are raised at once, not retryable."""
    error = error_of(text, seconds=60)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.reason, error.retryable) == ("not_sent", reason, False)


@pytest.mark.parametrize(
    "text",
    [
        "ERR ACL failure in script: No permissions to access a key script: abc",
        "ERR The user executing the script can't run this command or subcommand script: abc",  # Redis 7.0
    ],
)
def test_no_permission_inside_a_script(text: str) -> None:
    """A script may have written before it met a key, or a command, that its user must not touch."""
    error = error_of(text, seconds=60)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.reason, error.retryable) == ("unknown", "no_permission", False)


def test_wrong_type() -> None:
    """A key of a foreign type is a `DataError` that names the script."""
    error = error_of("WRONGTYPE Operation against a key holding the wrong kind of value", seconds=60)
    assert isinstance(error, DataError)
    assert (error.queue, error.reason, error.where) == ("mails", "wrong_type", "script stats")


def test_out_of_memory_is_not_repeated() -> None:
    """OOM ends the attempts: the flow knows what it means."""
    with pytest.raises(Full):
        attempts().refused(ErrorReply("OOM command not allowed when used memory > 'maxmemory'."))


@pytest.mark.parametrize("text", ["ERR unknown command 'EVALSHA'", "", "WHATEVER new", "ERR Error running script: nil"])
def test_unknown_errors_are_not_guessed(text: str) -> None:
    """An error that nobody knows may have left something behind."""
    error = error_of(text, seconds=60)
    assert isinstance(error, Unavailable)
    assert (error.outcome, error.reason) == ("unknown", "protocol")


@pytest.mark.parametrize("reason", ["refused", "reset", "timeout", "max_clients", "loading"])
@pytest.mark.parametrize("call", [REPEATABLE, ONCE], ids=["repeatable", "once"])
def test_not_sent(call: Call, reason: str) -> None:
    """What certainly did not reach the server is tried again, whatever the call; at the deadline it is ``not_sent``."""
    several = attempts(call)
    assert several.lost(Lost(reason, False)) > 0
    assert not several.resent
    with pytest.raises(Unavailable) as raised:
        attempts(call, 0).lost(Lost(reason, False))
    assert (raised.value.outcome, raised.value.reason) == ("not_sent", reason)


@pytest.mark.parametrize("reason", ["reset", "timeout"])
def test_sent_and_repeatable(reason: str) -> None:
    """A lost answer is asked for again, and whoever reads the next one is told; at the deadline it is ``unknown``."""
    several = attempts()
    several.lost(Lost(reason, True))
    assert several.resent
    with pytest.raises(Unavailable) as raised:
        attempts(seconds=0).lost(Lost(reason, True))
    assert (raised.value.outcome, raised.value.retryable) == ("unknown", False)


def test_sent_then_refused() -> None:
    """Once something may have been done, a later refusal does not make it undone."""
    several = Attempts("mails", REPEATABLE, time.monotonic() + 0.2)
    several.lost(Lost("reset", True))

    def go_on() -> None:
        while True:
            several.lost(Lost("refused", False))

    with pytest.raises(Unavailable) as raised:
        go_on()
    assert (raised.value.outcome, raised.value.reason) == ("unknown", "refused")


@pytest.mark.parametrize("reason", ["reset", "timeout"])
def test_sent_once_only(reason: str) -> None:
    """A call that must not be repeated (claim) is ``unknown`` at the first lost answer (R-22)."""
    with pytest.raises(Unavailable) as raised:
        attempts(ONCE).lost(Lost(reason, True))
    assert (raised.value.outcome, raised.value.reason) == ("unknown", reason)


@pytest.mark.parametrize("reason", ["auth", "no_permission"])
def test_no_entry(reason: str) -> None:
    """A wrong password does not become right."""
    with pytest.raises(Unavailable) as raised:
        attempts().lost(Lost(reason, False, "WRONGPASS"))
    assert (raised.value.outcome, raised.value.reason) == ("not_sent", reason)


def test_pauses_grow_with_jitter() -> None:
    """25-50 ms at first, then doubling to a second at most; never the same for all (R-82)."""
    firsts, fifths, sum_of_five = [], [], []
    for _ in range(200):
        several = attempts()
        pauses = [several.lost(Lost("refused", False)) for _ in range(8)]
        firsts.append(pauses[0])
        fifths.append(pauses[4])
        sum_of_five.append(sum(pauses[:5]))
        assert max(pauses) <= 1.0
    assert min(firsts) >= 0.025
    assert max(firsts) <= 0.05
    assert min(fifths) >= 0.4
    assert len(set(firsts)) > 100
    assert min(sum_of_five) > 0.7, "more than some five attempts in the first second"


def test_no_pause_past_the_deadline() -> None:
    """Rather than sleep past it, the call ends."""
    several = attempts(seconds=0.01)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        several.lost(Lost("refused", False))
    assert time.monotonic() - start < 1


# ---------------------------------------------------------------- Session


def test_session_is_nobody_at_first() -> None:
    """Not enlisted, and without a clock."""
    session = Session()
    assert session.producer == 0
    assert session.stale


def test_session_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps follow the server's clock, not this machine's; a reading is good for a minute."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: 5.0)  # wrong by decades: it must not matter
    session = Session()
    session.set_clock(1_800_000_000_000)
    assert not session.stale
    assert int.from_bytes(session.created(), "big") == 1_800_000_000_000
    now[0] += 1.5
    assert int.from_bytes(session.created(), "big") == 1_800_000_001_500
    now[0] += CLOCK_SECONDS
    assert session.stale


def test_scripts_that_are_flushed_at_once() -> None:
    """Somebody flushes them as soon as they are loaded, for ever: an attempt ends, and says so; others may follow."""

    def make() -> None:
        steps = attempt(REPEATABLE)
        send = next(steps)
        for _ in range(4 * MOST_ROUNDS):
            answer = ErrorReply("NOSCRIPT No matching script.") if b"EVALSHA" in send.data else b"its sha"
            send = steps.send([b"sha"] * (send.replies - 1) + [answer])

    with pytest.raises(ErrorReply, match="flushed, time and again") as raised:
        make()
    assert raised.value.transient == "busy"
