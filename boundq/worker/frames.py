"""
What a worker, the nursery of its child processes and these children say to each other, on sockets.

Worker and child: frames of MessagePack, one job at a time. The worker sends ``(queue, delivery)``; the child answers
``BEGUN`` when it has it, and a verdict when the handler has ended. Either's end closes the socket.

Worker and nursery: notes of one size. ``START n``, with the child's end of a new socket, and ``KILL n`` go down;
``READY``, ``STARTED n pid``, ``FAILED n errno`` and ``ENDED n status`` come up. ``n`` is the worker's number for it: a
process id could be somebody else's by the time that it is read.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, BinaryIO, NamedTuple

import msgspec

START, KILL = b"s", b"k"
READY, STARTED, FAILED, ENDED = b"r", b"p", b"f", b"e"

BEGUN = b"begun"

_LENGTH = struct.Struct("!I")
_NOTE = struct.Struct("!cIi")


class Note(NamedTuple):
    """A word between worker and nursery."""

    kind: bytes
    number: int = 0
    value: int = 0

    def packed(self) -> bytes:
        """As sent."""
        return _NOTE.pack(*self)


def notes(data: bytes) -> tuple[list[Note], bytes]:
    """The notes in what was received, and the beginning of the next."""
    whole = len(data) - len(data) % _NOTE.size
    return [Note(*fields) for fields in _NOTE.iter_unpack(data[:whole])], data[whole:]


def send(connection: socket.socket, message: Any) -> None:
    """Send one frame."""
    data = msgspec.msgpack.encode(message)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(stream: BinaryIO) -> bytes | None:
    """The next frame's MessagePack, None where the other end is gone."""
    try:
        head = stream.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(head)
        data = stream.read(length)
    except OSError:
        return None
    return data if len(data) == length else None
