"""
Lines with a checksum, in a plain file or in frames of zstd.

A line is a JSON object whose first member is the CRC-32 of the rest: ``{"crc":"5f1d6a3e","id":"4217",...}``. A
damaged line is found by it, and so is one that a crash has cut; the lines around it can be used. In a compressed file
each write is one frame, complete in itself, so that a damaged frame takes no other one with it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import msgspec

from boundq.errors import ConfigError

# A longer line is none of ours: the largest job that is written is well below.
MOST_LINE = 2**26
_MAGIC = b"\x28\xb5\x2f\xfd"
_READ = 2**14


class Damage(msgspec.Struct, frozen=True):
    """
    A place in a file that cannot be read.

    Args:
        line: Its number, from 1 up; in a compressed file with a damaged frame, of the last line before it that could
            be read.
        byte: Where in the file the line or the frame begins.
        why: What is wrong.
    """

    line: int
    byte: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line} (byte {self.byte}): {self.why}"


def seal(value: object) -> bytes:
    """A line."""
    body = msgspec.json.encode(value)
    return b'{"crc":"%08x",%b\n' % (crc32(body), body[1:])


def open_sealed(line: bytes) -> bytes:
    """
    The JSON of a line.

    Raises:
        ValueError: It is none, or not as it was written.
    """
    if line[:8] != b'{"crc":"' or line[16:18] != b'",':
        raise ValueError("it is no line of ours")
    body = b"{" + line[18:]
    if line[8:16] != b"%08x" % crc32(body):
        raise ValueError("it is not as it was written (its checksum differs)")
    return body


def compressor() -> Any:
    """
    The zstd library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import zstandard
    except ImportError:
        raise ConfigError("zstandard", None, 'compressed files need `pip install "boundq[zstd]"`') from None
    return zstandard


def locked(path: Path, *, shared: bool = False) -> IO[bytes]:
    """
    A file that is ours alone until it is closed, made where there is none. The lock goes with the process, however it
    ends. ``shared``: it has to exist, is only read, and others may read it meanwhile.

    Raises:
        ConfigError: Somebody else has it.
        OSError: It cannot be opened.
    """
    # Payloads are nobody else's business: 0600.
    fd = os.open(path, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise ConfigError("file", str(path), "another purge or restore is working on it now") from None
        raise
    return os.fdopen(fd, "rb" if shared else "r+b", buffering=-1 if shared else 0)


def append(file: IO[bytes], data: bytes) -> None:
    """Write all of it: one write may take a part, on a full disk, and say nothing. `OSError`: some may be there."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def write(file: IO[bytes], data: bytes) -> None:
    """The same, and flush it to the disk."""
    append(file, data)
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush the folder, so that a new file's name survives a crash of the machine."""
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Lines:
    """
    The lines of a file, plain or compressed, as far as they can be read.

    Args:
        file: Read from its beginning.
        end: Up to this byte, the end of a line or a frame; None: all of it.

    Attributes:
        number: Of the last line, from 1 up.
        whole: Bytes up to the end of the last line, or frame, that is there to its end.
        torn_at: Where the last one begins, if the file ends in the middle of it.
        damaged: What could not be read.
    """

    def __init__(self, file: IO[bytes], end: int | None = None) -> None:
        self._file = file
        self._end = end
        self.number = 0
        self.whole = 0
        self.torn_at: int | None = None
        self.damaged: list[Damage] = []
        self._at = 0
        file.seek(0)
        self.compressed = file.read(4) == _MAGIC

    def __iter__(self) -> Iterator[bytes]:
        """The JSON of each line."""
        for line in self._frames() if self.compressed else self._plain():
            try:
                yield open_sealed(line)
            except ValueError as error:
                self.damage(str(error))

    def damage(self, why: str) -> None:
        """Note that the last line makes no sense."""
        self.damaged.append(Damage(self.number, self._at, why))

    def _plain(self) -> Iterator[bytes]:
        file, after = self._file, 0
        file.seek(0)
        while after != self._end and (line := file.readline(MOST_LINE)):
            self.number, self._at = self.number + 1, after
            after += len(line)
            if line.endswith(b"\n"):
                self.whole = after
                yield line[:-1]
            elif len(line) == MOST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MOST_LINE)
                    after += len(line)
                self.damage(f"it is longer than {MOST_LINE} bytes")
                if line:
                    self.whole = after
            else:
                self.torn_at = self._at
                yield line

    def _frames(self) -> Iterator[bytes]:
        zstd = compressor()
        start: int | None = 0
        while start is not None:
            self._at = start
            decoder = zstd.ZstdDecompressor().decompressobj()
            self._file.seek(start)
            rest, problem = b"", "the file ends within this frame"
            while not decoder.eof and (data := self._file.read(_READ)):
                try:
                    text = rest + decoder.decompress(data)
                except zstd.ZstdError as error:
                    problem = f"a compressed frame is damaged ({error})"
                    break
                *lines, rest = text.split(b"\n")
                for line in lines:
                    self.number += 1
                    yield line
                if len(rest) > MOST_LINE:
                    problem = f"a line is longer than {MOST_LINE} bytes"
                    break
            if decoder.eof:
                if rest:
                    self.number += 1
                    yield rest
                start = self.whole = self._file.tell() - len(decoder.unused_data)
                if start in (self._size(), self._end):
                    return
            else:
                self.torn_at = start if problem.startswith("the file ends") else None
                self.damage(problem)
                start = self._next_frame(start + 1)

    def _next_frame(self, start: int) -> int | None:
        """Where the next frame may begin."""
        self._file.seek(start)
        before = b""
        while data := self._file.read(_READ):
            found = (before + data).find(_MAGIC)
            if found >= 0:
                return self._file.tell() - len(data) - len(before) + found
            before = (before + data)[-3:]
        return None

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size
