"""Sizes, durations, instants and names: what is understood, what is refused, and how it is said."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from boundq import ConfigError
from boundq._keys import PARTS, Keys, check_name
from boundq._sizes import MOST, epoch_milliseconds, format_size, milliseconds, parse_size, positive_int, seconds

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64 MB", 64_000_000),
        ("64 MiB", 67_108_864),
        ("64MiB", 67_108_864),
        ("  64   mib  ", 67_108_864),
        ("1.5 KiB", 1536),
        ("0.5 kb", 500),
        ("1 B", 1),
        ("17", 17),
        ("1 TiB", 2**40),
        ("1.001 KB", 1001),
        ("1.1 MB", 1_100_000),
        ("9007199254740991", MOST),
        (1, 1),
        (2**40, 2**40),
    ],
)
def test_size_that_is_understood(text: object, count: int) -> None:
    """MB is 10**6, MiB is 2**20, whatever the case and the spaces; a fraction may come out whole."""
    assert parse_size(text) == count
    assert type(parse_size(text)) is int


@pytest.mark.parametrize(
    "text",
    [
        *(0, -1, None, True, False, 1.0, 1.5, math.nan, math.inf, [], b"64 MB", 2**53, 10**400),
        *("", " ", "0", "0 MB", "-1", "-1 MB", "abc", "MB", "64 XB", "64 M", "1 1 MB", "1e6", "NaN", "inf", "0x10"),
        *("1.5 B", "1.0001 KB", "1.", ".5 KB", "1,5 MB", "9007199254740992", "9" * 400, "9" * 400 + " MB", "64 MB\0"),
        *("٦٤ MB", "64\u00a0MB!", "1 PiB", "99999999 TiB"),
    ],
    ids=lambda one: ascii(one)[:24],
)
def test_size_that_is_none(text: object) -> None:
    """Anything but a positive whole number of bytes is a `ConfigError` that names the setting (never another error)."""
    with pytest.raises(ConfigError) as raised:
        parse_size(text, "max_bytes")
    assert raised.value.setting == "max_bytes"
    assert str(raised.value).startswith("max_bytes is ")


@given(st.integers(1, 10**9), st.integers(0, 3), st.sampled_from(sorted(UNITS)))
@example(107, 2, "GB")
def test_decimal_fraction_is_exact(number: int, places: int, unit: str) -> None:
    """A fraction is what it says, in decimal: no binary rounding turns a whole number of bytes into none."""
    exact = Decimal(number).scaleb(-places) * UNITS[unit]
    text = f"{Decimal(number).scaleb(-places):f} {unit}"
    if exact == int(exact) and exact <= MOST:
        assert parse_size(text) == int(exact)
    else:
        with pytest.raises(ConfigError):
            parse_size(text)


@pytest.mark.parametrize(
    "value", [0, -1, True, False, None, 1.0, "5", math.nan, MOST + 1, 10**5000], ids=lambda v: str(type(v))
)
def test_positive_int_refuses(value: object) -> None:
    """A count is a whole number from 1 up, and small enough for Lua; the message can always be made."""
    with pytest.raises(ConfigError) as raised:
        positive_int(value, "max_jobs")
    assert "max_jobs" in str(raised.value)


@pytest.mark.parametrize("value", [1, 5, MOST])
def test_positive_int_takes(value: int) -> None:
    """From 1 to 2**53 - 1."""
    assert positive_int(value, "max_jobs") == value


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (67_108_864, "64.0 MiB"),
        (2**30, "1.0 GiB"),
        (2**45, "32.0 TiB"),
    ],
)
def test_format_size(count: int, text: str) -> None:
    """Binary units, one place."""
    assert format_size(count) == text


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0.0), (1, 1.0), (0.25, 0.25), (timedelta(minutes=2), 120.0)], ids=str
)
def test_seconds(value: object, expected: float) -> None:
    """Numbers are seconds; a timedelta is itself."""
    assert seconds(value, "wait") == expected


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, True, None, "5", math.nan, math.inf, -math.inf, timedelta(seconds=-1), 10**400, [], 1j, Decimal(5)],
    ids=lambda one: ascii(one)[:20],
)
def test_seconds_refused(value: object) -> None:
    """What is no finite duration of zero or more is a `ConfigError`."""
    with pytest.raises(ConfigError) as raised:
        seconds(value, "wait")
    assert raised.value.setting == "wait"
    with pytest.raises(ConfigError):
        milliseconds(value, "wait")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1, 1000),
        (0.001, 1),
        (0.0001, 1),
        (1.0005, 1001),
        (0.1 + 0.2, 300),
        (timedelta(microseconds=1), 1),
        (1.1, 1100),
    ],
    ids=str,
)
def test_milliseconds_round_up(value: object, expected: int) -> None:
    """Nothing is due too early; and no binary fraction adds a millisecond."""
    assert milliseconds(value, "delay") == expected


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.timedeltas())
def test_milliseconds_of_anything(value: object) -> None:
    """Every number is understood or refused in words."""
    try:
        ms = milliseconds(value, "delay")
    except ConfigError:
        return
    assert isinstance(ms, int)
    assert ms >= 0


@given(st.integers(0, 39 * 10**11))
@example(4009)
@example(1_769_817_601_001)
def test_instant_to_the_millisecond(ms: int) -> None:
    """A datetime of whole milliseconds is that number of them."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert epoch_milliseconds(at, "at") == ms
    assert epoch_milliseconds(at.astimezone(timezone(timedelta(hours=5, minutes=45))), "at") == ms


@given(st.integers(0, 39 * 10**14))
def test_instant_rounds_up(us: int) -> None:
    """Microseconds count as the next millisecond: nothing is due too early, nor two too late."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    assert epoch_milliseconds(at, "at") == -(-us // 1000)


@pytest.mark.parametrize("value", [datetime(2030, 1, 1), 5, "2030-01-01", None, datetime(2030, 1, 1).date()], ids=str)
def test_instant_without_a_zone(value: object) -> None:
    """Nobody knows which hour a naive datetime means (R-40); the message says what to write."""
    with pytest.raises(ConfigError) as raised:
        epoch_milliseconds(value, "at")
    assert "zone" in str(raised.value)


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "x" * 64, ".", "-", "0"])
def test_name_that_is_one(name: str) -> None:
    """1 to 64 of A-Z a-z 0-9 . _ -"""
    assert check_name(name, "queue name") == name
    assert Keys(name).of("state", "due0") == (f"boundq:{{{name}}}:state".encode(), f"boundq:{{{name}}}:due0".encode())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "a b",
        "a{b}",
        "{",
        "}",
        "a\n",
        "\n",
        "a\0",
        "a\x1b[31m",
        "ž",
        "a:b",
        "a/b",
        "a\u202eb",
        None,
        5,
        b"a",
    ],
    ids=ascii,
)
def test_name_that_is_none(name: object) -> None:
    """Braces would break the hash tag, the rest terminals and logs; the message shows it escaped (R-149)."""
    with pytest.raises(ConfigError) as raised:
        check_name(name, "queue name")
    assert raised.value.setting == "queue name"
    assert str(raised.value).isprintable()


def test_all_keys_share_one_slot() -> None:
    """Every part has the queue's tag and no other brace (R-42); parts are distinct."""
    keys = Keys("q").of(*PARTS)
    assert len(set(keys)) == len(PARTS)
    assert {key[key.index(b"{") : key.index(b"}") + 1] for key in keys} == {b"{q}"}
    assert all(key.count(b"{") == 1 for key in keys)
