"""Busy polling: when a call looks for its answer, and when it does not. What it does on a connection: tests/faults."""

from __future__ import annotations

import os
import threading

import pytest

from boundq import AsyncQueue, ConfigError, Queue
from boundq import _poll as poll
from boundq._poll import BusyPoll, Crowd

SMALL = 300
SOON = 30e-6
QUICK, LATE = 50e-6, 150e-6


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has, and is set to."""
    monkeypatch.delenv(poll.VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def unpolled(busy: BusyPoll) -> int:
    """So many calls do not poll, until one does."""
    count = 0
    while not busy.pays(SMALL, SOON):
        count += 1
    return count


def late(busy: BusyPoll, times: int = poll.PATIENCE) -> None:
    for _ in range(times):
        assert busy.pays(SMALL, SOON)
        busy.looked(LATE)


def test_it_pays_until_several_answers_in_a_row_are_late() -> None:
    busy = BusyPoll()
    for _ in range(100):
        late(busy, poll.PATIENCE - 1)
        assert busy.pays(SMALL, SOON)
        busy.looked(QUICK)
    late(busy)
    assert not busy.pays(SMALL, SOON)


def test_it_is_tried_less_and_less_often_where_answers_stay_late() -> None:
    busy, skipped = BusyPoll(), []
    for _ in range(12):
        late(busy)
        skipped.append(unpolled(busy))
    assert skipped[:4] == [4, 12, 28, 60]
    assert skipped == sorted(skipped)
    assert skipped[-1] == poll.MOST_SKIPPED


def test_answers_in_time_make_up_for_late_ones() -> None:
    busy = BusyPoll()
    for _ in range(12):
        late(busy)
        unpolled(busy)
    for _ in range(poll.MOST_SKIPPED):
        assert busy.pays(SMALL, SOON)
        busy.looked(QUICK)
    late(busy)
    assert unpolled(busy) == 4


def test_an_answer_may_take_as_long_as_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(poll.VARIABLE, "200")
    busy = BusyPoll()
    assert busy.seconds == pytest.approx(400e-6)
    for _ in range(3 * poll.PATIENCE):
        assert busy.pays(SMALL, SOON)
        busy.looked(LATE)


def test_not_for_a_large_request() -> None:
    busy = BusyPoll()
    assert busy.pays(poll.MOST_BYTES, SOON)
    assert not busy.pays(poll.MOST_BYTES + 1, SOON)


def test_not_for_a_call_that_comes_alone() -> None:
    busy = BusyPoll()
    assert busy.pays(SMALL, poll.RECENT_SECONDS)
    assert not busy.pays(SMALL, 2 * poll.RECENT_SECONDS)


def test_never_where_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(poll.VARIABLE, "0")
    assert not BusyPoll().pays(SMALL, SOON)


def test_never_with_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    assert not BusyPoll().pays(SMALL, SOON)


def test_never_where_the_processor_cannot_be_offered_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_yield", raising=False)
    assert not BusyPoll().pays(SMALL, SOON)


@pytest.mark.parametrize("text", ["", "yes", "-1", "1.5", "10001", "9" * 5000, "٣"], ids=lambda text: text[:6])
@pytest.mark.parametrize("kind", [Queue, AsyncQueue])
def test_a_wrong_setting_is_refused_where_a_queue_is_made(
    text: str, kind: type[Queue | AsyncQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(poll.VARIABLE, text)
    with pytest.raises(ConfigError, match=r"BOUNDQ_BUSY_POLL_US is .*: give microseconds, 0 to 10000; 0:"):
        kind("emails")


def test_a_crowd_is_seen_for_a_while_after_calls_overlapped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(poll.time, "monotonic", lambda: now)
    crowd = Crowd()
    assert crowd.enter()
    assert not crowd.seen
    others: list[bool] = []
    thread = threading.Thread(target=lambda: others.append(crowd.enter()))
    thread.start()
    thread.join()
    assert others == [False]
    crowd.leave()
    assert crowd.seen
    now += poll.CROWD_SECONDS / 2
    assert crowd.seen
    now += poll.CROWD_SECONDS
    assert not crowd.seen
    assert crowd.enter()
