"""
The file of a purge.

    {"crc":..,"boundq":1,"queue":"emails","uid":..,"version":"0.1.0","created":..,"before_ms":..,"filters":{..}}
    {"crc":..,"batch":1,"jobs":200,"kept":[]}
    {"crc":..,"id":"4217","state":"ready","priority":"normal","task":"send","due":null,"note":"","envelope":"AQAB.."}
    ...
    {"crc":..,"batch":2,"jobs":17,"kept":["4225"]}
    ...
    {"crc":..,"end":316,"kept":[]}

A batch is written and flushed to the disk, and only then taken out of the queue. Which of its jobs were not, because a
worker had claimed them in between, stands in the next line of a batch, as ``kept``. So the last batch of a file that
was not finished is *open*: the queue itself knows what became of it (lua/take.lua), and a purge that goes on, or a
restore, asks it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from boundq._archive.lines import MOST_LINE, Lines, compressor, locked, seal, sync_folder, write
from boundq.errors import ConfigError, DataError
from boundq.model import State

FORMAT = 1
# A job whose envelope is larger would make a line that is not read again.
MOST_ENVELOPE = MOST_LINE // 4 * 3 - 2**16


class Header(msgspec.Struct, frozen=True):
    """
    The first line.

    Args:
        boundq: The format's version.
        queue: Which the jobs were in.
        uid: 12 characters that no other purge has.
        version: Of the boundq that wrote it.
        created: When.
        before_ms: Jobs were chosen that were created until then, where age was asked for.
        filters: What was chosen.
    """

    boundq: int
    queue: str
    uid: str
    version: str
    created: str
    before_ms: int
    filters: dict[str, Any]


class Entry(msgspec.Struct, omit_defaults=True):
    """
    Any other line: a job (``id``), the beginning of a batch (``batch``), or the end of the file (``end``).

    Args:
        id: The job.
        state: In which it was.
        priority, task: For people who search the file.
        due: When it was to run, Unix milliseconds, for a scheduled job.
        note: Reason and text of a dead letter.
        envelope: The job as it was stored.
        batch: Number.
        jobs: How many follow.
        kept: Jobs of the batch before that are still in the queue.
        end: How many jobs were moved, all in all.
    """

    id: str | None = None
    state: State | None = None
    priority: str = ""
    task: str = ""
    due: int | None = None
    note: bytes = b""
    envelope: bytes = b""
    batch: int | None = None
    jobs: int = 0
    kept: list[str] | None = None
    end: int | None = None


_HEADER = msgspec.json.Decoder(Header)
_ENTRY = msgspec.json.Decoder(Entry)


class Reading:
    """
    A file of a purge, read from its beginning.

    Args:
        path: For errors.
        file: Opened.
        end: As in `Lines`.

    Attributes:
        header: The first line.
        batch: Number of the last batch.
        wanted: How many jobs it should have.
        open: Those of it that were read, of which no line says yet what became of them.
        finished: The purge came to its end.

    Raises:
        DataError: It is no such file.
    """

    def __init__(self, path: Path, file: IO[bytes], end: int | None = None) -> None:
        self.lines = Lines(file, end)
        self._iterator = iter(self.lines)
        self.batch, self.wanted, self.finished = 0, 0, False
        self.open: dict[str, Entry] = {}
        self.header = self._header(path, file)

    def jobs(self) -> Iterator[Entry]:
        """The jobs that were taken out of the queue; those of an open batch are left in ``open``."""
        for line in self._iterator:
            try:
                entry = _ENTRY.decode(line)
                if entry.id is not None and not (entry.id.isascii() and entry.id.isdecimal()):
                    raise msgspec.ValidationError(f"{entry.id!r} is no id of a job")
            except msgspec.DecodeError as error:
                self.lines.damage(f"it makes no sense: {error}")
                continue
            if entry.id is not None:
                self.open[entry.id] = entry
            elif entry.batch is not None or entry.end is not None:
                yield from self.settle(entry.kept or ())
                self.finished = entry.end is not None
                if entry.batch is not None:
                    self.batch, self.wanted = entry.batch, entry.jobs

    def settle(self, kept: Sequence[str]) -> Iterator[Entry]:
        """The open jobs but for these; none is open then."""
        batch, self.open = self.open, {}
        stayed = set(kept)
        yield from (job for job_id, job in batch.items() if job_id not in stayed)

    def _header(self, path: Path, file: IO[bytes]) -> Header:
        for line in self._iterator:
            try:
                header = _HEADER.decode(line)
            except msgspec.DecodeError:
                break
            if self.lines.damaged:
                break
            if header.boundq != FORMAT:
                detail = (
                    f"it has format {header.boundq}, this boundq reads {FORMAT}; it was written by {header.version}"
                )
                raise DataError(header.queue, str(path), "unknown_version", detail)
            return header
        size = os.fstat(file.fileno()).st_size
        detail = "its first line is no header of a purge" if size else "it is empty"
        raise DataError("", str(path), "undecodable", f"it is no file of a purge, or damaged: {detail}")


class Writing:
    """
    A file that a purge writes: a new one, or one that an interrupted purge has left.

    Args:
        path: Compressed where it ends in ``.zst``.
        queue: Whose jobs.
        filters: What was chosen; a file that is gone on with has to have the same.
        before_ms: For the header of a new one.

    Attributes:
        header: The file's.
        moved: Jobs of the batches that are settled.
        batch: Number of the last batch.
        open: Its jobs, where it is not settled.
        complete: All of them are there, so it may have been taken.
        torn: There was half a line, or frame, behind it.
        begun: The file was there.
    """

    def __init__(self, path: Path, queue: str, filters: dict[str, Any], before_ms: int) -> None:
        self._path = path
        self._zstd = compressor() if path.suffix == ".zst" else None
        self.moved, self.batch, self.complete, self.torn, self.begun = 0, 0, True, False, False
        self.open: dict[str, Entry] = {}
        self._kept: list[str] = []
        self._end: int | None = None
        self._file = locked(path)
        try:
            if self._unbegun():
                uid = os.urandom(6).hex()
                now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
                version = sys.modules["boundq"].__version__  # it is there, and imports nothing of us
                self.header = Header(FORMAT, queue, uid, version, now, before_ms, filters)
                self._file.truncate(0)
                self._file.seek(0)
                self._write(seal(self.header))
                sync_folder(path)
            else:
                self.header, self.begun = self._go_on(queue, filters), True
        except BaseException:
            self.close()
            raise

    def begin(self, jobs: Sequence[Entry]) -> int:
        """Write a batch, and flush it; its number."""
        self.batch += 1
        self.open = {str(job.id): job for job in jobs}
        head = Entry(batch=self.batch, jobs=len(jobs), kept=self._kept)
        self._write(seal(head) + b"".join(map(seal, jobs)))
        self._kept = []
        return self.batch

    def settle(self, kept: Sequence[str]) -> int:
        """Say which jobs of the open batch are still in the queue; how many are not."""
        self._kept = list(kept)
        count = len(self.open) - len(self._kept)
        self.moved, self.open = self.moved + count, {}
        return count

    def end(self) -> None:
        """The purge is done."""
        self._write(seal(Entry(end=self.moved, kept=self._kept)))

    def close(self) -> None:
        """Close the file, and give up its lock."""
        self._file.close()

    def _unbegun(self) -> bool:
        """Whether the file has no whole header yet: nothing was taken out of a queue then."""
        self._file.seek(0)
        head = self._file.read(4096)
        if len(head) == 4096 or (self._zstd is None and b"\n" in head):
            return False
        first = seal(Header(0, "", "", "", "", 0, {}))[:8]
        if self._zstd is None:
            return head[:8] == first[: len(head)]
        if not self._zstd.FRAME_HEADER.startswith(head[:4]):
            return False
        lines = Lines(self._file)
        return not head or len(head) < 4 or (lines.compressed and not list(lines) and lines.torn_at == 0)

    def _go_on(self, queue: str, filters: dict[str, Any]) -> Header:
        reading = Reading(self._path, self._file)
        header, lines = reading.header, reading.lines
        where = str(self._path)
        if header.queue != queue:
            raise ConfigError("to", where, f"the file holds jobs of queue {header.queue!r}; give another file")
        self.moved = sum(1 for _ in reading.jobs())
        if reading.finished:
            raise ConfigError("to", where, "a purge into this file was finished; give another file")
        if header.filters != filters:
            raise ConfigError(
                "to", where, f"the purge into this file was begun with other filters: {_spell(header.filters)}"
            )
        broken = [one for one in lines.damaged if one.byte != lines.torn_at]  # a crash leaves a torn end, no more
        if broken:
            raise DataError(queue, where, "undecodable", f"{broken[0]}; restore what can be read, purge into another")
        if lines.compressed != (self._zstd is not None):
            raise ConfigError("to", where, "its name says compressed, or not, and it is otherwise; name it rightly")
        if lines.torn_at is not None:  # what a torn end says does not count: it will be written anew
            self._end, self.torn = lines.whole, True
            reading = Reading(self._path, self._file, lines.whole)
            self.moved = sum(1 for _ in reading.jobs())
        self._file.seek(0, os.SEEK_END)
        self.batch, self.open = reading.batch, reading.open
        self.complete = len(self.open) == reading.wanted
        return header

    def _write(self, data: bytes) -> None:
        if self._zstd is not None:
            data = self._zstd.ZstdCompressor(level=3, write_checksum=True).compress(data)
        if self._end is not None:  # not before there is something to write: somebody may still want to read it
            self._file.truncate(self._end)
            self._file.seek(self._end)
            self._end = None
        write(self._file, data)


def _spell(filters: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in filters.items() if value is not None)
