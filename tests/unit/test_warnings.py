"""What an operator is warned of, out of the numbers alone; above all whether somebody consumes (R-53)."""

from __future__ import annotations

from typing import Any

import pytest

from boundq import Stats
from boundq._rates import Trace
from boundq.cli._warnings import Memory, of_queue, of_server
from tests.unit._stats import stats


def warned(*looks: Stats) -> dict[str, str]:
    trace = Trace()
    for look in looks:
        trace.add(look)
    return {one.code: one.text for one in of_queue(looks[-1], trace)}


def two_looks(seconds: float, *, claimed: int = 0, **values: Any) -> dict[str, str]:
    first = stats(at=1000.0, deliveries=7, admitted=40, **values)
    return warned(first, stats(at=1000.0 + seconds, deliveries=7 + claimed, admitted=40, **values))


def test_nobody_claims() -> None:
    """Jobs ready all the time, none active, none claimed, for five seconds or more: that, and for how long."""
    assert two_looks(12, jobs=40)["no_consumer"] == "no consumer: 40 jobs ready, none active, none claimed for 12 s"
    assert "no_consumer" not in two_looks(4, jobs=40)
    assert "no_consumer" not in two_looks(12, jobs=40, claimed=1)


@pytest.mark.parametrize(
    "values",
    [
        {"jobs": 0},
        {"jobs": 5, "ready": 0, "scheduled": 5, "next_event": 60.0},
        {"jobs": 40, "paused_since": 5.0},
        {"jobs": 40, "ready": 39, "active": 1, "next_event": 12.5},
        {"jobs": 40, "ready": 38, "active": 1, "scheduled": 1, "next_event": 0.0},
    ],
    ids=["empty", "nothing due", "paused", "busy with a long job", "busy, and something is due"],
)
def test_nothing_is_said_where_it_is_not_known(values: dict[str, Any]) -> None:
    """Nothing to claim, claiming is stopped, or a lease is in somebody's hands."""
    assert "no_consumer" not in two_looks(600, **{"ready": values["jobs"], **values})


def test_leases_that_have_ended() -> None:
    """A claim takes an ended lease before anything else: where one lies about, nobody claims."""
    found = two_looks(20, jobs=40, ready=39, active=1, next_event=0.0)
    assert "leases have ended" in found["no_consumer"]


def test_one_look_can_only_ask() -> None:
    """Without a second look a long wait is a reason to ask; not so where a claim was seen since."""
    found = warned(stats(jobs=3, admitted=3, oldest_age=300.0))
    assert found["no_consumer"].startswith("no consumer? 3 jobs ready")
    assert warned(stats(jobs=3, admitted=3, oldest_age=20.0)) == {}
    assert "no_consumer" not in two_looks(2, jobs=3, oldest_age=300.0, claimed=1)


def test_a_ledger_that_does_not_add_up() -> None:
    """Jobs that nobody accounts for are named."""
    assert "4 jobs" in warned(stats(admitted=4))["imbalance"]


def test_an_edited_time_does_no_harm() -> None:
    """Whatever stands in the state of a queue, there is a sentence about it."""
    for since in (1e300, -1e300, 1e18):
        assert "no such time" in warned(stats(paused_since=since))["paused"]


@pytest.mark.parametrize(
    ("info", "codes"),
    [
        ({}, {"memory_unknown"}),
        ({"used_memory": "9", "maxmemory": "0", "maxmemory_policy": "noeviction"}, {"maxmemory_unset"}),
        ({"used_memory": "9", "maxmemory": "10", "maxmemory_policy": "noeviction"}, {"memory_near"}),
        ({"used_memory": "8", "maxmemory": "10", "maxmemory_policy": "noeviction"}, set()),
        ({"used_memory": "8", "maxmemory": "10", "maxmemory_policy": "volatile-lru"}, {"eviction"}),
        ({"used_memory": "8", "maxmemory": "10"}, set()),
        ({"used_memory": "8", "maxmemory": "10", "cluster_enabled": "1"}, {"cluster"}),
    ],
)
def test_of_a_server(info: dict[str, str], codes: set[str]) -> None:
    """Memory and policy; what the server does not say is unknown, and nothing is made of it."""
    assert {one.code for one in of_server(Memory.of(info))} == codes
