"""Envelopes: what goes in comes out, and bytes that make no sense are a DataError, whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundq import ConfigError, DataError
from boundq._envelope import EXPIRES, HEADERS, UNIQUE, VERSION, digest, pack, seal_headers, stamp, unpack
from boundq._job import encode_arguments, prepare

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.integers(0, 2**48 - 1)
NAMES = st.from_regex(r"[A-Za-z0-9._-]{0,64}", fullmatch=True)


@given(
    TIMES, NAMES, st.binary(max_size=300), st.none() | TIMES, st.none() | TEXT, st.dictionaries(TEXT, TEXT, max_size=5)
)
def test_round_trip(
    created: int, task: str, payload: bytes, expires: int | None, key: str | None, headers: dict[str, str]
) -> None:
    """Every field comes back as given; the payload is the rest, byte for byte."""
    data = pack(
        stamp(created),
        task.encode(),
        payload,
        expires=None if expires is None else stamp(expires),
        unique=None if key is None else digest(key),
        headers=seal_headers(headers),
    )
    envelope = unpack("q", "9", data)
    assert (envelope.created_ms, envelope.task, envelope.payload) == (created, task, payload)
    assert (envelope.expires_ms, envelope.headers) == (expires, headers)
    assert envelope.unique == (None if key is None else digest(key).decode())
    assert data[0] == VERSION
    assert data.endswith(payload)


def test_layout_is_fixed() -> None:
    """Version, flags, created, expires and digest stand where the scripts and every later version look for them."""
    data = pack(stamp(0x010203040506), b"t", b"P", expires=stamp(7), unique=digest("k"), headers=b"{}")
    assert data == (
        bytes([1, EXPIRES | UNIQUE | HEADERS, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 7]) + digest("k") + b"\x01t\x00\x02{}P"
    )
    assert pack(stamp(1), b"", b"P") == b"\x01\x00\x00\x00\x00\x00\x00\x01\x00P"


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"\x01" + rest))
def test_garbage(data: bytes) -> None:
    """Whatever the bytes are, they are read or refused with `DataError`: no other exception."""
    try:
        envelope = unpack("q", "9", data)
    except DataError as error:
        problem = error
    else:
        assert data[0] == VERSION
        assert data.endswith(envelope.payload)
        return
    assert problem.reason in ("undecodable", "unknown_version")
    assert (problem.queue, problem.where) == ("q", "9")
    assert problem.reason.replace("_", " ") in str(problem)


@given(st.integers(0, 200), st.dictionaries(TEXT, TEXT, min_size=1, max_size=3))
def test_cut_off(length: int, headers: dict[str, str]) -> None:
    """An envelope that ends too early in its head is refused; one cut within its payload cannot be told."""
    whole = pack(stamp(1), b"task", b"", expires=stamp(2), unique=digest("k"), headers=seal_headers(headers))
    if length >= len(whole):
        return
    with pytest.raises(DataError):
        unpack("q", "9", whole[:length])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_other_version(version: int) -> None:
    """A version that this boundq does not know is refused, never guessed (R-145)."""
    with pytest.raises(DataError) as raised:
        unpack("q", "9", bytes([version]) + pack(stamp(1), b"", b"x")[1:])
    assert raised.value.reason == "unknown_version"
    assert str(version) in str(raised.value)


@pytest.mark.parametrize(
    "headers", [b"[1]", b'{"a":1}', b"{", b"\xff", b"null", b"[" * 10_000], ids=lambda one: ascii(one[:6])
)
def test_headers_that_are_none(headers: bytes) -> None:
    """Stored headers that are no string map are `undecodable`."""
    with pytest.raises(DataError) as raised:
        unpack("q", "9", pack(stamp(1), b"", b"x", headers=headers))
    assert raised.value.reason == "undecodable"


def test_digest_is_of_a_fixed_size() -> None:
    """16 printable characters for every key, different for different keys, the same in every process (R-56)."""
    digests = [digest(key) for key in ("", "a", "b", "ž" * 10_000)]
    assert {len(one) for one in digests} == {16}
    assert len(set(digests)) == 4
    assert digest("a") == b"G6PFI-dw8zE8yRqx"
    assert digest("a") == b"MjMOYkmpPiTg6E05"[:0] + digest("a")
    assert all(one.decode().isprintable() for one in digests)


@pytest.mark.parametrize(
    "headers",
    [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}, {"a": "x" * 70_000}, {"a": "\ud800"}, 5, "ab"],
    ids=lambda one: ascii(one)[:20],
)
def test_headers_that_cannot_be_stored(headers: object) -> None:
    """A string map of at most 65,535 bytes, or a `ConfigError`."""
    with pytest.raises(ConfigError) as raised:
        seal_headers(headers)
    assert raised.value.setting == "headers"


def test_headers_of_the_largest_size() -> None:
    """Just fits."""
    text = seal_headers({"a": "x" * (65_535 - len('{"a":""}'))})
    assert len(text) == 65_535
    assert unpack("q", "9", pack(stamp(1), b"", b"x", headers=text)).payload == b"x"


@given(TEXT | st.none(), st.binary(max_size=50), st.sampled_from(["low", "normal", "high", "critical"]))
def test_prepared_job_is_the_envelope(key: str | None, payload: bytes, priority: str) -> None:
    """A prepared job becomes the envelope that `pack` makes, and knows its size beforehand."""
    options = {"priority": priority, **({"unique": key} if key else {})}
    job = prepare("q", "t", payload, options)
    data = job.envelope(stamp(5))
    assert len(data) == job.size
    envelope = unpack("q", "9", data)
    assert (envelope.created_ms, envelope.payload, envelope.task) == (5, payload, "t")
    assert job.general == bool(key)
    assert ["low", "normal", "high", "critical"][job.level] == priority


@given(
    st.lists(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT | st.lists(st.integers(0, 9)), max_size=4
    )
)
def test_arguments_round_trip(arguments: list) -> None:
    """Arguments are JSON ``[args, kwargs]``; nil, false and empty survive (R-142)."""
    import json

    assert json.loads(encode_arguments("q", "t", tuple(arguments), {"x": ""})) == [arguments, {"x": ""}]
