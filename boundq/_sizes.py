"""Sizes and durations as people write them, and as the scripts take them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from boundq.errors import ConfigError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)\s*\Z")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Doubles hold every integer up to 2**53; Lua and zset scores know no other number.
MOST = 2**53 - 1
# A score keeps 41 bits of milliseconds since 2024 (lua/lib/layout.lua).
LATEST_MS = 1704067200000 + 2**41
# No duration makes sense beyond this, in seconds; and a due time has to fit into a score.
LONGEST = 60 * 365 * 86400.0
LONGEST_LEASE = 10 * 365 * 86400.0


def parse_size(value: object, setting: str = "size") -> int:
    """
    Bytes of ``67108864``, ``"64 MiB"`` (2**20) or ``"64 MB"`` (10**6).

    Raises:
        ConfigError: Not a positive whole number of bytes.
    """
    if isinstance(value, str):
        match = _SIZE.match(value)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ConfigError(setting, value, 'write a number of bytes, or a size such as "64 MiB" or "64 MB"')
        count = Decimal(match[1]) * unit
        if count <= MOST and count != count.to_integral_value():
            raise ConfigError(setting, value, "that is not a whole number of bytes")
        return positive_int(int(count), setting, shown=value)
    return positive_int(value, setting)


def positive_int(value: object, setting: str, *, shown: object = None) -> int:
    """A whole number from 1 up; a limit is never zero, negative, NaN or absent by accident."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(setting, value, "it must be a whole number, 1 or more")
    if not 1 <= value <= MOST:
        raise ConfigError(setting, value if shown is None else shown, f"it must be from 1 to {MOST}")
    return value


def format_size(count: float) -> str:
    """``"64.0 MiB"``: four significant places at most, binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float | None) -> str:
    """``3.2 s``, ``4 min``, ``2.5 h``; a dash when unknown."""
    if seconds is None:
        return "-"
    for limit, size, unit in ((0.9995, 0.001, "ms"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            count = seconds / size
            return f"{count:.0f} {unit}" if size == 0.001 or count >= 10 else f"{count:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"


def moment(at: float) -> str:
    """``2026-05-01 10:00:00 UTC``; what no calendar has (somebody has edited the key), as a number."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{at:g} (no such time)"


def seconds(value: object, setting: str, *, least: float = 0.0, most: float = LONGEST) -> float:
    """Seconds of an int, a float or a timedelta; from ``least`` to ``most``."""
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(setting, value, "it must be seconds (a number) or a timedelta")
    else:
        number = float(value) if abs(value) <= most else math.inf
    if not least <= number <= most:  # NaN is neither
        raise ConfigError(setting, value, f"it must be from {least:g} to {most:g} seconds")
    return number


def milliseconds(value: object, setting: str, *, least: int = 0, most: float = LONGEST) -> int:
    """As `seconds`, in the integer milliseconds that Redis gets; rounded up, so nothing is due too early."""
    # What a float adds to a whole number of milliseconds must not make it one more.
    return math.ceil(seconds(value, setting, least=least / 1000, most=most) * 1000 * (1 - 4e-15))


def epoch_milliseconds(value: object, setting: str, *, latest: int = LATEST_MS) -> int:
    """Unix milliseconds of an aware datetime; a naive one is refused, since nobody knows which hour it means."""
    if not isinstance(value, datetime):
        raise ConfigError(setting, value, "it must be a datetime with a time zone")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ConfigError(setting, value, "the datetime has no time zone; use e.g. datetime.now(timezone.utc)")
    ms = -((_EPOCH - value) // timedelta(milliseconds=1))  # rounded up, exactly
    if ms >= latest:
        raise ConfigError(setting, value, "that is too far away; 2093 is not yet")
    return max(ms, 0)
