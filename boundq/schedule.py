"""When a periodic task is due. Ticks are instants that every worker computes alike, so no leader has to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from boundq._sizes import milliseconds
from boundq.errors import ConfigError

__all__ = ["Schedule", "make_schedule"]


class Schedule(Protocol):
    """Ticks, in Unix milliseconds."""

    def next_after(self, ms: int) -> int:
        """The first tick later than ``ms``."""


class Every:
    """Ticks at whole multiples of an interval since 1970."""

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms

    def next_after(self, ms: int) -> int:
        return (ms // self._interval_ms + 1) * self._interval_ms


class Cron:
    """Ticks as a cron expression says, in UTC."""

    def __init__(self, expression: str) -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError as error:
            raise ConfigError("cron", expression, "cronsim is not installed: pip install 'boundq[cron]'") from error
        try:
            next(CronSim(expression, datetime.now(UTC)))
        except (CronSimError, StopIteration) as error:
            message = f"it is no cron expression, or never comes ({error}); e.g. '*/5 * * * *'"
            raise ConfigError("cron", expression, message) from error
        self._expression = expression

    def next_after(self, ms: int) -> int:
        from cronsim import CronSim

        after = datetime.fromtimestamp(ms // 1000, UTC)
        return round(next(CronSim(self._expression, after)).timestamp() * 1000)


def make_schedule(every: float | timedelta | None, cron: str | None) -> Schedule | None:
    """
    The schedule of a task, None without one.

    Args:
        every: Seconds between two ticks, 1 at least.
        cron: Five fields: minute, hour, day, month, weekday; UTC.
    """
    if every is not None and cron is not None:
        raise ConfigError("cron", cron, "give every or cron, not both")
    if every is not None:
        return Every(milliseconds(every, "every", least=1000))
    if cron is not None:
        if not isinstance(cron, str):
            raise ConfigError("cron", cron, "it is a text such as '*/5 * * * *'")
        return Cron(cron)
    return None
