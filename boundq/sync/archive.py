"""
Purge into a file, and restore from it.

The file is NDJSON: a header, job after job, and after each batch a line ``{"removed": [ids]}`` that says which of the
jobs since the last such line have left the queue. Jobs are written and flushed to the disk before they are deleted,
so a crash at any moment loses none: what was deleted is in the file, and what is in the file without having been named
is looked up when the purge goes on. Beside the file, ``FILE.restored`` notes what was put back.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from boundq._core.inspection import due_ms
from boundq._envelope import digest, pack, seal_headers, unpack
from boundq._job import Prepared
from boundq.errors import ConfigError, DataError
from boundq.model import State, Stats

if TYPE_CHECKING:
    from boundq.sync.queue import Queue

__all__ = ["Restored", "purge_to", "restore_from"]

FORMAT = 1
# The header under which a restored job keeps the id that it had.
RESTORED = "boundq-restored"
# Jobs in one step of a restore: one script.
STEP = 100


class Restored(msgspec.Struct, frozen=True):
    """
    What a restore did.

    Args:
        restored: Jobs put back now.
        before: Jobs of the file that were back already.
        left: Jobs not put back, because the queue would not take them (``reason``); restore again to go on.
        damaged: Numbers of lines that cannot be read.
        reason: Why it stopped, "" when it came to the end.
    """

    restored: int
    before: int
    left: int
    damaged: list[int]
    reason: str


def purge_to(queue: Queue, path: str | os.PathLike[str], states: Sequence[State]) -> int:
    """Move all jobs of these states into the file; one begun before is gone on with. How many were moved now."""
    target = Path(path)
    with _opened(queue, target, queue.stats()) as file:
        count = 0
        for state in states:
            after: str | None = None
            while True:
                page, after = queue._raw_page(state, after)
                for job_id, score, raw, note in page:
                    due = due_ms(score) if state == "scheduled" else None
                    entry = {"id": job_id, "state": state, "due": due, "envelope": _text(raw), "note": _text(note)}
                    _write(file, entry)
                _flush(file)
                removed = queue._remove([job_id for job_id, _, _, _ in page])
                _write(file, {"removed": removed})
                count += len(removed)
                if after is None:
                    break
        _flush(file)
    return count


def restore_from(queue: Queue, path: str | os.PathLike[str]) -> Restored:
    """Put the jobs of a file back, under the queue's limits, each once over all restores of it."""
    source = Path(path)
    damaged: list[int] = []
    jobs = _removed_jobs(source, damaged)
    origin, done = next(jobs), _done(source)
    waiting = [job for job in jobs if job["id"] not in done]
    restored, reason = 0, ""
    with open(_journal(source), "a", encoding="ascii") as journal:
        for start in range(0, len(waiting), STEP):
            step = waiting[start : start + STEP]
            results = queue.enqueue_many(_prepared(queue, origin, job) for job in step)
            back = [job["id"] for job, result in zip(step, results, strict=True) if result.ok]
            _write(journal, back)
            _flush(journal)
            restored += len(back)
            problem = next((one.error or one.rejection for one in results if not one.ok), None)
            if problem is not None:
                reason = str(problem if isinstance(problem, Exception) else problem.error())
                break
    return Restored(restored, len(done), len(waiting) - restored, damaged, reason)


def _opened(queue: Queue, path: Path, stats: Stats) -> IO[str]:
    """The file, with its header, and with what a crash left open in it decided."""
    del stats  # asked for so that a queue that does not exist makes no file
    try:
        file = open(path, "x+", encoding="ascii")  # noqa: SIM115  # the caller's, as a context
    except FileExistsError:
        return _continued(queue, path)
    _write(file, {"boundq": FORMAT, "queue": queue.name, "uid": os.urandom(6).hex()})
    _flush(file)
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file


def _continued(queue: Queue, path: Path) -> IO[str]:
    lines = path.read_bytes().split(b"\n")
    whole = b"\n".join(lines[:-1]) + b"\n" if len(lines) > 1 else b""  # a crash may have left half a line
    header = _header(path, whole.split(b"\n", 1)[0])
    if header["queue"] != queue.name:
        raise ConfigError("to", str(path), f"the file holds jobs of queue {header['queue']!r}; give another file")
    file = open(path, "r+", encoding="ascii")  # noqa: SIM115  # the caller's, as a context
    file.truncate(len(whole))
    file.seek(0, os.SEEK_END)
    open_ids: list[str] = []
    for line in whole.splitlines()[1:]:
        entry = json.loads(line)
        if "removed" in entry:
            open_ids = []
        else:
            open_ids.append(entry["id"])
    if open_ids:
        # Written, and perhaps deleted: what is still here will be written again, and belongs to that time.
        _write(file, {"removed": [job_id for job_id in open_ids if queue.get(job_id) is None]})
    return file


def _removed_jobs(path: Path, damaged: list[int]) -> Iterator[dict[str, Any]]:
    """The header, then the jobs that were deleted from the queue, in order."""
    with open(path, "rb") as file:
        yield _header(path, file.readline())
        batch: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(file, 2):
            try:
                entry = json.loads(line)
                if "removed" in entry:
                    yield from (batch[job_id] for job_id in entry["removed"] if job_id in batch)
                    batch = {}
                else:
                    entry["envelope"] = b64decode(entry["envelope"], validate=True)
                    batch[entry["id"]] = entry
            except (ValueError, KeyError, TypeError):
                damaged.append(number)
        # A crash came between the deletion and its note: in the file is better than nowhere. What is still in the
        # queue is recognised by its key.
        yield from batch.values()


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if header["boundq"] == FORMAT and isinstance(header["queue"], str) and isinstance(header["uid"], str):
            return dict(header)
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError("", str(path), "undecodable", "it is no file of a purge, or of a newer boundq")


def _prepared(queue: Queue, origin: dict[str, Any], job: dict[str, Any]) -> Prepared:
    """The job as it was: payload, headers, priority, due time, expiry, age; and a key by which it comes back once."""
    raw: bytes = job["envelope"]
    stored = unpack(queue.name, job["id"], raw)
    mark = stored.unique.encode() if stored.unique else digest(f"{origin['uid']} {job['id']}")
    whole = pack(
        raw[2:8],
        stored.task.encode(),
        stored.payload,
        expires=stored.expires_ms.to_bytes(6, "big") if stored.expires_ms is not None else None,
        unique=mark,
        headers=seal_headers({**stored.headers, RESTORED: job["id"]}),
    )
    return Prepared(
        level=int(job["id"]) % 4,
        head=whole[:2],
        rest=whole[8:],
        general=True,
        due=b"%d" % job["due"] if job["state"] == "scheduled" and job["due"] else b"",
        digest=mark,
        task=stored.task,
        created=whole[2:8],
    )


def _journal(path: Path) -> str:
    return f"{path}.restored"


def _done(path: Path) -> set[str]:
    try:
        text = Path(_journal(path)).read_text(encoding="ascii")
    except FileNotFoundError:
        return set()
    done: set[str] = set()
    for line in text.splitlines():
        try:
            done.update(json.loads(line))
        except ValueError:  # half a line of a crash: those jobs are recognised by their keys
            continue
    return done


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _write(file: IO[str], entry: object) -> None:
    file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
