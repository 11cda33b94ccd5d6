"""A forecast, in words."""

from __future__ import annotations

from boundq._rates import Estimate, Forecast
from boundq._sizes import duration

_PLAIN = {
    "unknown": "unknown: too little has moved",
    "steady": "steady: it grows no faster than chance allows",
    "idle": "nothing moves",
    "empty": "empty",
}


def short(forecast: Forecast) -> str:
    """For a column: ``full in 4 min``, ``steady``, ``unknown``."""
    if forecast.time is not None:
        return f"{'full' if forecast.kind == 'filling' else 'empty'} in {duration(forecast.time.value)}"
    return "FULL" if forecast.kind == "full" else forecast.kind


def sentence(forecast: Forecast) -> str:
    """With what it rests on: ``full in 4 min at this rate (3 min to 6 min), by jobs``."""
    if forecast.kind == "full":
        return f"full now, by {forecast.limit}"
    if forecast.time is None:
        return _PLAIN[forecast.kind]
    by = f", by {forecast.limit}" if forecast.limit else ""
    return f"{short(forecast)} at this rate {bounds(forecast.time)}{by}"


def bounds(estimate: Estimate) -> str:
    """The bounds of a time."""
    if estimate.high is None:
        return f"({duration(estimate.low)} or more)"
    return f"({duration(estimate.low)} to {duration(estimate.high)})"
