"""Limits: finite, positive, and the same after a trip through the state hash."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundq import ConfigError, Limits

SIZES = ("max_bytes", "max_job_bytes", "max_dead_bytes")
COUNTS = ("max_jobs", "max_dead_jobs", "max_deliveries")


def test_defaults_are_finite() -> None:
    """A queue that says nothing is bounded in jobs and bytes, live and dead (R-03)."""
    limits = Limits()
    assert (limits.max_jobs, limits.max_bytes, limits.max_job_bytes) == (100_000, 64 * 2**20, 256 * 2**10)
    assert (limits.max_dead_jobs, limits.max_dead_bytes, limits.dead_ttl) == (10_000, 16 * 2**20, None)
    assert (limits.max_deliveries, limits.max_age) == (100, 90 * 86400)


def test_sizes_are_understood() -> None:
    """Texts become bytes, timedeltas seconds; equal limits are equal."""
    limits = Limits(max_bytes="1 MiB", max_age=timedelta(days=1), dead_ttl=timedelta(hours=1))
    assert limits == Limits(max_bytes=2**20, max_age=86400, dead_ttl=3600)
    assert hash(limits) == hash(Limits(max_bytes=2**20, max_age=86400, dead_ttl=3600))


@pytest.mark.parametrize("name", [*SIZES, *COUNTS])
@pytest.mark.parametrize("value", [0, -1, None, True, 1.5, float("nan"), float("inf"), "abc", "0 MB", 2**60], ids=str)
def test_limit_that_is_none(name: str, value: object) -> None:
    """Never unlimited, zero or absent by accident; the error names the limit."""
    with pytest.raises(ConfigError) as raised:
        Limits(**{name: value})
    assert raised.value.setting == name


@pytest.mark.parametrize(
    "options",
    [
        *({"max_deliveries": 128}, {"max_deliveries": 0}, {"dead_ttl": 0}, {"dead_ttl": 0.5}, {"dead_ttl": "1 h"}),
        *({"max_age": 0}, {"max_age": None}, {"max_age": float("inf")}, {"max_age": 1e308}, {"dead_ttl": 1e308}),
    ],
    ids=str,
)
def test_bounds_of_the_others(options: dict) -> None:
    """Attempts are counted up to 127; times are a second at least, and finite."""
    with pytest.raises(ConfigError) as raised:
        Limits(**options)
    assert raised.value.setting == next(iter(options))


def test_limits_cannot_be_changed() -> None:
    """They are values: `configure` takes new ones."""
    with pytest.raises(FrozenInstanceError):
        Limits().max_jobs = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(Limits(max_jobs=5))) == Limits(max_jobs=5)


WHOLE = st.builds(
    Limits,
    max_jobs=st.integers(1, 2**53 - 1),
    max_bytes=st.integers(1, 2**53 - 1),
    max_job_bytes=st.integers(1, 2**53 - 1),
    max_dead_jobs=st.integers(1, 2**53 - 1),
    max_dead_bytes=st.integers(1, 2**53 - 1),
    dead_ttl=st.none() | st.floats(1, 10**9),
    max_deliveries=st.integers(1, 127),
    max_age=st.floats(1, 10**9) | st.timedeltas(timedelta(seconds=1), timedelta(days=10_000)),
)


@given(WHOLE)
def test_trip_through_the_state_hash(limits: Limits) -> None:
    """What is stored is ints, and comes back as the same limits."""
    stored = limits.to_fields()
    assert set(stored) == {field.name for field in fields(Limits)}
    assert all(type(value) is int for value in stored.values())
    assert Limits.from_fields({name: str(value) for name, value in stored.items()}) == limits
