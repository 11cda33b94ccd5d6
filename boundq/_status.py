"""The status codes of the scripts: the first number of every reply. Mirrors lua/lib/status.lua; a test compares."""

from __future__ import annotations

from typing import Final

OK: Final = 1
FULL_JOBS: Final = 2
FULL_BYTES: Final = 3
TOO_LARGE: Final = 4
SEALED: Final = 5
WAITERS: Final = 6
GENERAL: Final = 7
REPEATED: Final = 8
UNDECLARED: Final = 9
STRANGER: Final = 10
BAD_FORMAT: Final = 11
PAUSED: Final = 12
ABSENT: Final = 13
CLASH: Final = 14

REASONS: Final = {
    FULL_JOBS: "jobs",
    FULL_BYTES: "bytes",
    TOO_LARGE: "job_bytes",
    SEALED: "sealed",
    WAITERS: "waiters",
}
