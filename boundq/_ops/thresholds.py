"""
Thresholds for monitoring: ``fill=0.8,age=60,dead=1``, held against a queue's numbers. Pure.

A value at or above its threshold is over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from boundq._ops.findings import EXIT, Severity, worst
from boundq.errors import ConfigError
from boundq.model import Stats


class Metric(msgspec.Struct, frozen=True):
    """
    A number of a queue.

    Args:
        unit: As Nagios has it in performance data: ``s``, or "".
        help: For Prometheus, and for --help.
        read: Takes it from the numbers; None: not known.
    """

    unit: str
    help: str
    read: Callable[[Stats], float | None]


def silence(stats: Stats) -> float | None:
    """Seconds since a worker last asked for jobs; None where nobody has to."""
    if stats.paused_since:
        return None
    if stats.claimed_at is None:  # nobody ever did: for as long as there is something to ask for
        return stats.oldest_age or None
    return max(stats.at - stats.claimed_at, 0.0)


METRICS = {
    "fill": Metric("", "share of max_jobs or max_bytes, the fuller of the two", lambda stats: stats.fill),
    "dead_fill": Metric(
        "",
        "the same of max_dead_jobs and max_dead_bytes",
        lambda stats: max(stats.dead / stats.limits.max_dead_jobs, stats.dead_bytes / int(stats.limits.max_dead_bytes)),
    ),
    "age": Metric("s", "age of the oldest job that could run now", lambda stats: stats.oldest_age),
    "jobs": Metric("", "jobs held", lambda stats: stats.jobs),
    "dead": Metric("", "dead letters", lambda stats: stats.dead),
    "silence": Metric("s", "since a worker last asked for jobs", silence),
    "paused": Metric("s", "since claims were stopped", lambda stats: _since(stats, stats.paused_since)),
    "sealed": Metric("s", "since admission was closed", lambda stats: _since(stats, stats.sealed_since)),
    "ledger": Metric("", "jobs unaccounted for", lambda stats: abs(stats.imbalance)),
}
DEFAULT_WARN = "fill=0.8,age=300,dead=1,paused=3600"
DEFAULT_CRITICAL = "fill=0.95,ledger=1"


class Measured(msgspec.Struct, frozen=True):
    """One number against its thresholds; a value of None is over none."""

    name: str
    value: float | None
    warn: float | None
    critical: float | None
    severity: Severity


class Checked(msgspec.Struct, frozen=True):
    """A queue's numbers; ``error`` where there are none."""

    queue: str
    measured: list[Measured]
    error: str = ""

    @property
    def severity(self) -> Severity:
        """Of the worst."""
        return "unknown" if self.error else worst(one.severity for one in self.measured)


def parse(text: str, setting: str) -> dict[str, float]:
    """
    Thresholds out of ``fill=0.8,age=60``; a percent sign divides by 100.

    Raises:
        ConfigError: A name that there is not, or a number that is none.
    """
    found: dict[str, float] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = pair.partition("=")
        if not equals or name not in METRICS:
            raise ConfigError(setting, pair, f"write NAME=NUMBER, with a name of {', '.join(METRICS)}")
        try:
            value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise ConfigError(setting, pair, "the threshold is a number from 0 up")
        found[name] = value
    return found


def check(stats: Stats, warn: dict[str, float], critical: dict[str, float]) -> Checked:
    """All numbers of a queue, each against its thresholds."""
    measured = []
    for name, metric in METRICS.items():
        value, least, most = metric.read(stats), warn.get(name), critical.get(name)
        severity: Severity = "ok"
        if value is None:
            severity = "ok"  # no threshold is reached where there is nothing to measure
        elif most is not None and value >= most:
            severity = "critical"
        elif least is not None and value >= least:
            severity = "warning"
        measured.append(Measured(name, value, least, most, severity))
    return Checked(stats.name, measured)


def overall(checked: Sequence[Checked], *, up: bool = True) -> Severity:
    """Of all queues; unknown where the server was not reached."""
    return worst(one.severity for one in checked) if up else "unknown"


def nagios(checked: Sequence[Checked], verdict: Severity, trouble: str) -> str:
    """One line and its performance data, as the Nagios plugin guidelines have it."""
    words = [f"{one.queue}: {one.error}" for one in checked if one.error]
    for one in checked:
        over = [_worded(number) for number in one.measured if number.severity != "ok"]
        words += [f"{one.queue}: {', '.join(over)}"] if over else []
    text = trouble or "; ".join(words) or f"{len(checked)} queue(s) within their thresholds"
    data = [
        f"'{one.queue}.{number.name}'={_number(number.value)}{METRICS[number.name].unit};"
        f"{_number(number.warn)};{_number(number.critical)};0"
        for one in checked
        for number in one.measured
        if number.value is not None
    ]
    # The bar begins the data: it must not be in the text.
    return f"BOUNDQ {verdict.upper()} - {text.replace('|', '/')}" + (f" | {' '.join(data)}" if data else "")


def prometheus(checked: Sequence[Checked], verdict: Severity, *, up: bool) -> str:
    """The numbers in the text format; no old ones are ever repeated."""
    lines = [
        "# HELP boundq_up Whether the server answered.",
        "# TYPE boundq_up gauge",
        f"boundq_up {int(up)}",
        "# HELP boundq_check_status 0 ok, 1 warning, 2 critical, 3 unknown.",
        "# TYPE boundq_check_status gauge",
        f"boundq_check_status {EXIT[verdict]}",
    ]
    for name, metric in METRICS.items():
        full = f"boundq_check_{name}{'_seconds' if metric.unit == 's' else ''}"
        rows = [
            f'{full}{{queue="{one.queue}"}} {_number(number.value) or "NaN"}'
            for one in checked
            for number in one.measured
            if number.name == name
        ]
        if rows:
            lines += [f"# HELP {full} {metric.help}", f"# TYPE {full} gauge", *rows]
    return "\n".join(lines)


def _worded(number: Measured) -> str:
    bound = number.critical if number.severity == "critical" else number.warn
    shown = "unknown" if number.value is None else f"{_number(number.value)}{METRICS[number.name].unit}"
    return f"{number.name} {shown} ({number.severity} from {_number(bound) or '-'})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if value < 1 else f"{value:.10g}"


def _since(stats: Stats, at: float | None) -> float:
    return max(stats.at - at, 0.0) if at else 0.0
