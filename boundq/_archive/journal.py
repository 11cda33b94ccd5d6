"""
The journal of a restore, ``FILE.restored``: which jobs of the file are back.

    {"crc":..,"boundq":1,"uid":..,"queue":"emails"}
    {"crc":..,"plan":["4217",...],"producer":12,"number":"a1b2c3d40000000001"}
    {"crc":..,"back":300}
    ...

A step is planned, and the plan flushed to the disk, before its jobs are sent; then it is noted how many were admitted,
from the first on. So after a crash one plan is open at most. Its call has a number under which the queue remembers what
it answered, even if the jobs are done by now: sending it again either does it, or tells what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from boundq._archive.lines import Lines, append, locked, seal, sync_folder, write
from boundq.errors import ConfigError, DataError

FORMAT = 1


class Plan(msgspec.Struct, frozen=True):
    """
    A step of a restore.

    Args:
        plan: Ids of its jobs, as they were.
        producer, number: Of the call.
    """

    plan: list[str]
    producer: int
    number: str


class _Back(msgspec.Struct, frozen=True):
    back: int


class _Head(msgspec.Struct, frozen=True):
    boundq: int
    uid: str
    queue: str


class Journal:
    """
    What is back already.

    Args:
        path: Of the purge's file.
        uid: The purge's.
        queue: Into which it is restored.

    Attributes:
        done: Ids of the jobs that are back.
        open: A step of which no line says what became of it.

    Raises:
        ConfigError: Somebody else works on it, or it is about another file or queue.
        DataError: It is damaged.
    """

    def __init__(self, path: Path, uid: str, queue: str) -> None:
        self._path = journal_of(path)
        self.done: set[str] = set()
        self.open: Plan | None = None
        self._file = locked(self._path)
        try:
            end = self._read(uid, queue)
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                write(self._file, seal(_Head(FORMAT, uid, queue)))
                sync_folder(self._path)
        except BaseException:
            self.close()
            raise

    def plan(self, job_ids: Sequence[str], producer: int, number: bytes) -> None:
        """Before jobs are sent."""
        self.open = Plan(list(job_ids), producer, number.decode())
        write(self._file, seal(self.open))

    def back(self, count: int) -> None:
        """So many jobs of the open plan, from its first on, were admitted."""
        assert self.open is not None
        append(self._file, seal(_Back(count)))  # flushed with the next plan; until then the queue knows
        self._settle(count)

    def close(self) -> None:
        """Close it, and give up its lock."""
        self._file.close()

    def _settle(self, count: int) -> None:
        assert self.open is not None
        self.done.update(self.open.plan[:count])
        self.open = None

    def _read(self, uid: str, queue: str) -> int:
        """What it says; where it ends, after a crash has perhaps left half a line."""
        lines = Lines(self._file)
        for place, line in enumerate(lines):
            if lines.torn_at is not None:
                break  # not written to its end, newline included: it is cut off, so it must not count either
            try:
                if not place:
                    self._check(msgspec.json.decode(line, type=_Head), uid, queue)
                elif b'"plan"' in line:
                    self.open = msgspec.json.decode(line, type=Plan)
                elif self.open is not None:
                    self._settle(msgspec.json.decode(line, type=_Back).back)
            except msgspec.DecodeError as error:
                lines.damage(str(error))
        broken = [one for one in lines.damaged if one.byte != lines.torn_at]
        if broken or lines.compressed:
            where = broken[0] if broken else "its beginning"
            detail = (
                f"this journal of a restore is damaged at {where}; without it (delete it) the file can be restored "
                "from its beginning, jobs that are back already a second time"
            )
            raise DataError(queue, str(self._path), "undecodable", detail)
        return lines.whole

    def _check(self, head: _Head, uid: str, queue: str) -> None:
        where = str(self._path)
        if head.uid != uid:
            raise ConfigError("path", where, "this journal of a restore belongs to another file; move it away")
        if head.queue != queue:
            raise ConfigError(
                "path",
                where,
                f"jobs of the file were restored into queue {head.queue!r}: go on there; or delete the journal to "
                f"restore all of them into {queue!r} as well",
            )


def journal_of(path: Path) -> Path:
    """Where the journal of a file is."""
    return path.with_name(f"{path.name}.restored")


def noted(path: Path, uid: str, queue: str) -> set[str]:
    """Ids of the jobs that are back, for a look: nothing is made, nothing is locked."""
    if not journal_of(path).exists():
        return set()
    looked = Journal.__new__(Journal)
    looked._path, looked.done, looked.open = journal_of(path), set(), None
    with open(looked._path, "rb") as looked._file:
        looked._read(uid, queue)
    return looked.done
