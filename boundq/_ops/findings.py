"""A diagnosis as values: findings, how bad each is, and the exit code of the worst."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Severity = Literal["ok", "warning", "critical", "unknown"]
EXIT: dict[Severity, int] = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
# From the worst on: what is known to be wrong comes before what could not be seen.
ORDER: tuple[Severity, ...] = ("critical", "warning", "unknown", "ok")


class Finding(msgspec.Struct, frozen=True):
    """
    One thing that was looked at.

    Args:
        check: Its name; it stays what it is.
        severity: How bad.
        what: What was found.
        why: Why it matters, "" when it is ok.
        todo: What to type, or to do, "" when it is ok.
        queue: The queue concerned, "" for the server.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    todo: str = ""
    queue: str = ""


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of them; ok where there is none."""
    found = set(severities)
    return next((one for one in ORDER if one in found), "ok")
