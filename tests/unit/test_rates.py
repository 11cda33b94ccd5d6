"""Rates and forecasts, on traces of queues that were simulated: what is true is known (R-128)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundq._rates import Estimate, Forecast, Trace, forecast, rates, to_json
from boundq.model import Stats
from tests.unit._stats import stats


def queue(seconds: float, arrived: int, left: int, *, start: int = 0, size: int = 100, **more: object) -> Stats:
    """A queue that began with so many jobs, after so many seconds."""
    jobs = start + arrived - left
    counters = {"admitted": start + arrived, "acked": left, "deliveries": left}
    return stats(at=1000.0 + seconds, jobs=jobs, bytes=jobs * size, **{**counters, **more})


def traced(*looks: Stats) -> Trace:
    trace = Trace()
    for look in looks:
        trace.add(look)
    return trace


def within(value: float, estimate: Estimate) -> bool:
    return estimate.low <= value and (estimate.high is None or value <= estimate.high)


def test_one_look_gives_no_rate() -> None:
    """Rates need two looks; until then nothing is forecast."""
    trace = traced(queue(0, 0, 0, start=50))
    assert trace.rates() is None
    assert trace.forecast() == Forecast("unknown")


def test_steady_flows() -> None:
    """Ten in and four out a second, forty to go: full in 6 or 7 seconds, and the bounds have it between them."""
    trace = traced(queue(0, 0, 0), queue(10, 100, 40))
    seen, ahead = trace.rates(), trace.forecast()
    assert seen is not None
    assert (seen.seconds, seen.moved) == (10.0, 140)
    assert (seen.arrived.value, seen.left.value, seen.claimed.value, seen.net.value) == (10.0, 4.0, 4.0, 6.0)
    assert seen.net_bytes.value == 600.0
    assert (ahead.kind, ahead.limit) == ("filling", "jobs")
    assert ahead.time is not None
    assert ahead.time.value == pytest.approx(40 / 6)
    assert ahead.time.low < 40 / 6
    assert ahead.time.high is not None
    assert ahead.time.high > 40 / 6
    assert ahead.wait is not None
    assert ahead.wait.value == pytest.approx(60 / 4)


def test_bytes_may_be_full_first() -> None:
    """The limit that is reached first is the one that is named, also where the number of jobs does not grow."""
    first = queue(0, 0, 0, start=50, size=1000)
    ahead = traced(first, queue(10, 40, 5, start=50, size=12_000)).forecast()
    assert (ahead.kind, ahead.limit) == ("filling", "bytes")
    swollen = traced(first, queue(10, 20, 20, start=50, size=12_000)).forecast()
    assert (swollen.kind, swollen.limit) == ("filling", "bytes")
    assert swollen.time is not None
    assert swollen.time.value == pytest.approx((2**20 - 50 * 12_000) / (50 * 11_000 / 10))


def test_emptying() -> None:
    """More goes out than comes in: how long until nothing is left."""
    ahead = traced(queue(0, 0, 0, start=90), queue(10, 5, 45, start=90)).forecast()
    assert ahead.kind == "emptying"
    assert ahead.time is not None
    assert ahead.time.value == pytest.approx(50 / 4)
    assert within(50 / 4, ahead.time)


def test_thin_or_undecided() -> None:
    """Few jobs say nothing; many that come and go alike say that it goes neither way."""
    assert traced(queue(0, 0, 0), queue(10, 5, 4)).forecast().kind == "unknown"
    assert traced(queue(0, 0, 0, start=9), queue(0.1, 50, 0, start=9)).forecast().kind == "unknown"
    assert traced(queue(0, 0, 0, start=9), queue(10, 500, 495, start=9)).forecast().kind == "steady"
    assert traced(queue(0, 0, 0, start=50), queue(10, 0, 0, start=50)).forecast().kind == "idle"
    assert traced(queue(0, 0, 0, start=50), queue(1, 0, 0, start=50)).forecast().kind == "unknown"
    assert traced(queue(0, 0, 0), queue(1, 0, 0)).forecast().kind == "empty"


def test_full_now() -> None:
    """At a limit there is nothing to foretell: by jobs, or where no job of the usual size fits in any more."""
    assert forecast(queue(0, 0, 0, start=100), None) == Forecast("full", limit="jobs")
    assert forecast(queue(0, 0, 0, start=50, size=2**20 // 50), None) == Forecast("full", limit="bytes")


def test_rejections_are_counted() -> None:
    """What was refused has a rate; it did not arrive."""
    seen = traced(queue(0, 0, 0, start=100), queue(10, 0, 0, start=100, rejected=70)).rates()
    assert seen is not None
    assert (seen.rejected.value, seen.arrived.value) == (7.0, 0.0)
    assert seen.arrived.high == 0.3


@pytest.mark.parametrize(
    "again",
    [queue(20, 3, 0), queue(-5, 100, 40), queue(20, 100, 30), queue(20, 101, 40, deliveries=3)],
    ids=["made anew", "clock set back", "fewer gone", "fewer claimed"],
)
def test_a_queue_that_is_another_one(again: Stats) -> None:
    """Counters or a clock that went back: the looks before are another queue's, and count no more."""
    trace = traced(queue(0, 0, 0), queue(10, 100, 40))
    trace.add(again)
    assert trace.rates() is None
    assert trace.forecast().kind == "unknown"
    assert len(trace.looks) == 1


def test_a_gap_is_no_look() -> None:
    """Where the server did not answer, pictures have a hole, and rates go across it."""
    trace = traced(queue(0, 0, 0), queue(1, 10, 0))
    trace.gap()
    trace.add(queue(4, 40, 0))
    seen = trace.rates()
    assert seen is not None
    assert seen.arrived.value == 10.0
    assert trace.steps("admitted") == [10.0, None, None]
    assert trace.held() == [0, 10, None, 40]


def test_the_window_moves() -> None:
    """Rates are of the last half minute; of the last two looks where these are further apart."""
    trace = traced(*(queue(second, second * 50, second * 50) for second in range(50)))
    for second in range(50, 90):
        trace.add(queue(second, 49 * 50, 49 * 50))
    seen = trace.rates()
    assert seen is not None
    assert (seen.seconds, seen.arrived.value) == (30.0, 0.0)
    trace.add(queue(200, 49 * 50 + 111, 49 * 50))
    seen = trace.rates()
    assert seen is not None
    assert (seen.seconds, seen.arrived.value) == (111.0, 1.0)


def test_looks_are_bounded() -> None:
    """A program that watches for a year needs no more memory than after some minutes."""
    trace = Trace(keep=5)
    for second in range(20):
        trace.add(queue(second, second, 0))
        trace.gap()
    assert len(trace.looks) == 5


def test_how_long_nobody_claimed() -> None:
    """From the first look at which jobs were ready, after the last claim, to the latest one."""
    trace = traced(queue(0, 9, 0), queue(5, 9, 1), queue(8, 9, 1), queue(20, 12, 1))
    assert trace.unclaimed() == 15.0
    trace.gap()
    assert trace.unclaimed() == 15.0
    trace.add(queue(21, 12, 2))
    assert trace.unclaimed() == 0.0
    assert traced(queue(0, 9, 9), queue(9, 9, 9)).unclaimed() == 0.0
    assert traced(queue(0, 9, 9), queue(9, 10, 9), queue(11, 10, 9)).unclaimed() == 2.0
    assert Trace().unclaimed() == 0.0


def simulated(
    seed: int, arrive: Callable[[random.Random], int], leave: Callable[[random.Random], int], *, start: int, looks: int
) -> Trace:
    """A look a second at a queue where so many come and go in each."""
    chance = random.Random(seed)
    trace, arrived, left = Trace(window=1000.0), 0, 0
    trace.add(queue(0, 0, 0, start=start))
    for second in range(1, looks):
        arrived += arrive(chance)
        left += min(leave(chance), start + arrived - left)
        trace.add(queue(second, arrived, left, start=start))
    return trace


def poisson(rate: float) -> Callable[[random.Random], int]:
    def count(chance: random.Random) -> int:
        number, passed = 0, chance.expovariate(rate)
        while passed < 1:
            number, passed = number + 1, passed + chance.expovariate(rate)
        return number

    return count


def bursts(rate: float, size: int) -> Callable[[random.Random], int]:
    return lambda chance: size * (chance.random() < rate / size)


@pytest.mark.parametrize("looks", [2, 10, 60])
@pytest.mark.parametrize(("arrive", "leave", "net"), [(30, 12, 18), (12, 30, -18)], ids=["growing", "shrinking"])
def test_bounds_hold_on_simulated_traces(arrive: float, leave: float, net: float, looks: int) -> None:
    """Of 400 traces of independent jobs some 5 % have the truth outside of two deviations, for each of the rates."""
    outside = {"arrived": 0, "left": 0, "net": 0}
    for seed in range(400):
        seen = simulated(seed, poisson(arrive), poisson(leave), start=5000, looks=looks).rates()
        assert seen is not None
        for name, true in (("arrived", arrive), ("left", leave), ("net", net)):
            outside[name] += not within(true, getattr(seen, name))
    assert max(outside.values()) <= 400 * 0.08, outside


def test_bounds_hold_where_jobs_come_in_bursts() -> None:
    """Producers that send fifty at once are seen to be uneven, and the bounds are wider for it."""
    outside, wider = 0, 0
    for seed in range(400):
        uneven = simulated(seed, bursts(30, 50), poisson(12), start=5000, looks=60).rates()
        even = simulated(seed, poisson(30), poisson(12), start=5000, looks=60).rates()
        assert uneven is not None
        assert even is not None
        outside += not within(30, uneven.arrived)
        wider += uneven.arrived.value - uneven.arrived.low > 2 * (even.arrived.value - even.arrived.low)
    assert outside <= 40
    assert wider >= 390


def test_forecasts_come_true() -> None:
    """A queue that fills at a known rate is full within the bounds of what was forecast, nine times out of ten."""
    wrong = 0
    for seed in range(300):
        trace = simulated(seed, poisson(3), poisson(1), start=0, looks=20)
        ahead = trace.forecast()
        latest = trace.latest
        assert latest is not None
        if ahead.kind != "filling":
            wrong += ahead.kind != "full"
            continue
        assert ahead.time is not None
        wrong += not within((100 - latest.jobs) / 2, ahead.time)
    assert wrong <= 30


@given(
    looks=st.lists(
        st.tuples(*(st.integers(0, 10**12) for _ in range(4)), st.floats(0, 1e9, allow_nan=False)),
        max_size=12,
    )
)
def test_whatever_the_numbers(looks: list[tuple[int, int, int, int, float]]) -> None:
    """No numbers make it fail, or leave its bounds the wrong way round."""
    trace = Trace()
    for jobs, size, more, claimed, at in looks:
        trace.add(stats(at=at, jobs=jobs, bytes=size, admitted=jobs + more, deliveries=claimed))
        ahead = trace.forecast()
        parts = [ahead.time, ahead.wait]
        if seen := trace.rates():
            parts += [seen.arrived, seen.left, seen.claimed, seen.rejected, seen.net, seen.net_bytes]
            assert seen.seconds > 0
        for part in parts:
            assert part is None or part.low <= part.value
            assert part is None or part.high is None or part.value <= part.high
        assert (ahead.time is not None) == (ahead.kind in ("filling", "emptying"))
        assert trace.unclaimed() >= 0
        to_json(ahead)
        to_json(trace.rates())


def test_two_looks_at_the_same_moment() -> None:
    """The second adds nothing."""
    trace = traced(queue(0, 5, 0), queue(0, 6, 0))
    assert len(trace.looks) == 1
    assert rates(trace.recent()) is None


def test_json_has_rounded_numbers() -> None:
    """Rates are not more exact than they are."""
    shown = to_json(traced(queue(0, 0, 0), queue(7, 33, 10)).rates())
    assert shown is not None
    assert shown["arrived"]["value"] == 4.714
    assert to_json(None) is None
