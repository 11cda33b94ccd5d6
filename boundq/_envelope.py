"""
Envelope: the bytes that Redis stores for a job.

    0       version, 1
    1       flags: 1 expires, 2 unique, 4 headers
    2-7     created, Unix milliseconds by the server's clock, big-endian
    [6]     expires, Unix milliseconds                  with flag 1
    [16]    digest of the unique key, printable         with flag 2
    1, n    length of the task's name, and the name; length 0: a raw payload
    [2, n]  length of the headers, and they as JSON     with flag 4
    rest    the payload, as the codec wrote it

The scripts read version, flags, created, expires and digest; these stay where they are in every later version.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping

import msgspec

from boundq.errors import ConfigError, DataError

VERSION = 1
EXPIRES, UNIQUE, HEADERS = 1, 2, 4
_NO_TIME = bytes(6)


class Envelope(msgspec.Struct, frozen=True):
    """An envelope, read. Times are Unix milliseconds; ``task`` is "" for a raw payload."""

    created_ms: int
    expires_ms: int | None
    unique: str | None
    task: str
    headers: dict[str, str]
    payload: bytes


def digest(key: str) -> bytes:
    """The 16 characters that stand for a unique key: of a fixed size, whatever the key was made from."""
    return urlsafe_b64encode(hashlib.blake2b(key.encode(), digest_size=12).digest())


def seal_headers(headers: Mapping[str, str] | None) -> bytes:
    """Headers as stored, b"" for none."""
    if not headers:
        return b""
    if not isinstance(headers, Mapping):
        raise ConfigError("headers", headers, "headers are a mapping of strings to strings")
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in headers.items()):
        raise ConfigError("headers", dict(headers), "keys and values must be strings")
    try:
        text = msgspec.json.encode(dict(headers))
    except UnicodeError as error:
        raise ConfigError("headers", dict(headers), f"keys and values must be text: {error}") from error
    if len(text) > 0xFFFF:
        raise ConfigError("headers", f"{len(text)} bytes of JSON", "headers are at most 65,535 bytes of JSON")
    return text


def pack(
    created: bytes,
    task: bytes,
    payload: bytes,
    *,
    expires: bytes | None = None,
    unique: bytes | None = None,
    headers: bytes = b"",
) -> bytes:
    """
    One envelope.

    Args:
        created: Six bytes, see `stamp`.
        task: The task's name, at most 64 bytes; b"" for a raw payload.
        payload: Kept as given.
        expires: Six bytes; zeros where the script is to fill them in.
        unique: A digest.
        headers: From `seal_headers`.
    """
    flags = (EXPIRES if expires is not None else 0) | (UNIQUE if unique else 0) | (HEADERS if headers else 0)
    return b"".join(
        (
            b"\x01",
            flags.to_bytes(1, "big"),
            created,
            expires or b"",
            unique or b"",
            len(task).to_bytes(1, "big"),
            task,
            len(headers).to_bytes(2, "big") if headers else b"",
            headers,
            payload,
        )
    )


def with_headers(envelope: bytes, headers: Mapping[str, str]) -> bytes:
    """The envelope with these headers in the place of its own."""
    at = 8 + (6 if envelope[1] & EXPIRES else 0) + (16 if envelope[1] & UNIQUE else 0)
    start = end = at + 1 + envelope[at]
    if envelope[1] & HEADERS:
        end += 2 + int.from_bytes(envelope[end : end + 2], "big")
    text = seal_headers(headers)
    flags = envelope[1] & ~HEADERS | (HEADERS if text else 0)
    size = len(text).to_bytes(2, "big") if text else b""
    return b"".join((envelope[:1], flags.to_bytes(1, "big"), envelope[2:start], size, text, envelope[end:]))


def stamp(ms: int) -> bytes:
    """Milliseconds as the six bytes of an envelope."""
    return ms.to_bytes(6, "big")


def unpack(queue: str, job_id: str, envelope: bytes) -> Envelope:
    """
    Read an envelope.

    Raises:
        DataError: ``unknown_version`` where a newer boundq wrote it, ``undecodable`` where nobody did.
    """
    if not envelope or envelope[0] != VERSION:
        found = f"version {envelope[0]}" if envelope else "no bytes"
        raise DataError(queue, job_id, "unknown_version", f"the envelope has {found}, this boundq reads {VERSION}")
    try:
        flags, at = envelope[1], 8
        created, expires, unique = int.from_bytes(envelope[2:8], "big"), None, None
        if flags & EXPIRES:
            expires = int.from_bytes(envelope[at : at + 6], "big")
            at += 6
        if flags & UNIQUE:
            unique = envelope[at : at + 16].decode("ascii")
            at += 16
        end = at + 1 + envelope[at]
        task = envelope[at + 1 : end].decode("ascii")
        headers: dict[str, str] = {}
        if flags & HEADERS:
            at = end + 2
            end = at + int.from_bytes(envelope[end:at], "big")
            headers = msgspec.json.decode(envelope[at:end], type=dict[str, str])
        if end > len(envelope):
            raise DataError(queue, job_id, "undecodable", "the envelope is cut off")
    except (IndexError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise DataError(queue, job_id, "undecodable", f"the envelope makes no sense: {error}") from error
    return Envelope(created, expires, unique, task, headers, envelope[end:])


def created_of(envelope: bytes) -> int:
    """When the job was admitted, Unix milliseconds; 0 where the bytes are none of ours."""
    return int.from_bytes(envelope[2:8], "big") if len(envelope) >= 8 else 0


def task_of(envelope: bytes) -> bytes | None:
    """The task's name without reading the rest, b"" for a raw payload; None where the bytes are none of ours."""
    if len(envelope) < 9 or envelope[0] != VERSION:
        return None
    at = 8 + (6 if envelope[1] & EXPIRES else 0) + (16 if envelope[1] & UNIQUE else 0)
    name = envelope[at + 1 : at + 1 + envelope[at]] if at < len(envelope) else None
    return name if name is not None and len(name) == envelope[at] else None
