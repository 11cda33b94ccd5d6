"""How much a queue may hold."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta

from boundq._sizes import milliseconds, parse_size, positive_int
from boundq.errors import ConfigError

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    How much a queue may hold. Never unlimited: every limit is a positive number.

    Limits live on the server: the first declaration creates the queue, ``configure()`` or ``boundq limits set``
    changes them, for everybody, at the next call. Sizes are ints or texts such as ``"64 MiB"`` (2**20) or
    ``"64 MB"`` (10**6).

    Args:
        max_jobs: Most jobs held: ready, scheduled, retrying and active together.
        max_bytes: Most bytes charged for them. The charge is what a job can cost the server in its worst state,
            not the length of its payload (lua/README.md, "Charge").
        max_job_bytes: Most bytes of one envelope: payload, task name, headers and some 10 bytes.
        max_dead_jobs: Most dead letters; beyond it the oldest are dropped, and counted.
        max_dead_bytes: Most bytes charged for them, likewise.
        dead_ttl: Age at which a dead letter is dropped, in seconds or as a timedelta; None: by count and bytes
            only.
        max_deliveries: Deliveries after which a job is buried instead of being given out again, 1 to 127. The
            hard cap on a job that kills its workers; a task's ``retries`` end earlier. Whatever it is, a job is buried
            at its 15th lost lease.
        max_age: Age after which a job that was delivered before is buried instead of being given out again, in
            seconds or as a timedelta. Holds across retries and releases.
    """

    max_jobs: int = 100_000
    max_bytes: int | str = 64 * 2**20
    max_job_bytes: int | str = 256 * 2**10
    max_dead_jobs: int = 10_000
    max_dead_bytes: int | str = 16 * 2**20
    dead_ttl: float | timedelta | None = None
    max_deliveries: int = 100
    max_age: float | timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_job_bytes", "max_dead_bytes"):
            object.__setattr__(self, name, parse_size(getattr(self, name), name))
        for name in ("max_jobs", "max_dead_jobs", "max_deliveries"):
            positive_int(getattr(self, name), name)
        if self.max_deliveries > 127:
            raise ConfigError("max_deliveries", self.max_deliveries, "it must be from 1 to 127")
        if self.dead_ttl is not None:
            object.__setattr__(self, "dead_ttl", milliseconds(self.dead_ttl, "dead_ttl", least=1000) / 1000)
        object.__setattr__(self, "max_age", milliseconds(self.max_age, "max_age", least=1000) / 1000)

    def to_fields(self) -> dict[str, int]:
        """The limits as the state hash keeps them: ints, times in milliseconds, no ``dead_ttl`` as 0."""
        stored = {field.name: getattr(self, field.name) for field in fields(self)}
        stored["dead_ttl"] = milliseconds(self.dead_ttl or 0, "dead_ttl")
        stored["max_age"] = milliseconds(self.max_age, "max_age")
        return stored

    @classmethod
    def from_fields(cls, state: dict[str, str]) -> Limits:
        """The limits out of a state hash."""
        known = {field.name: int(state[field.name]) for field in fields(cls)}
        return cls(
            **{name: value for name, value in known.items() if name not in ("dead_ttl", "max_age")},
            dead_ttl=known["dead_ttl"] / 1000 or None,
            max_age=known["max_age"] / 1000,
        )
