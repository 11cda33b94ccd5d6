"""Exit codes, as in sysexits.h: they stay what they are."""

from __future__ import annotations

from boundq import errors

FULL = 75
# There is no such job; or time was over (as FULL: try again).
ABSENT, OVER = 1, 75


def exit_code(error: errors.BoundqError) -> int:
    """The exit code for an error of ours."""
    if isinstance(error, (errors.QueueFull, errors.QueueSealed)):
        return FULL
    if isinstance(error, (errors.JobTooLarge, errors.DataError)):
        return 65
    if isinstance(error, errors.Unavailable):
        if error.reason in ("auth", "no_permission"):
            return 77
        return 69 if error.outcome == "not_sent" else 74
    return 78 if isinstance(error, errors.ConfigError) else 1
