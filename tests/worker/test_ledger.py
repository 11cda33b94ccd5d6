"""Ledger: what a worker holds, in memory that it shares with its supervisor; and `RemoteKeeper`, who writes it."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from boundq import Queue
from boundq.worker.keeper import ThreadKeeper
from boundq.worker.ledger import LINES, LedgerReader, LedgerWriter, bare_lease, new_ledger
from boundq.worker.remote import RemoteKeeper
from boundq.worker.started import key_of
from tests._servers import wait_until
from tests.worker._keeping import Heard, deadline_of

Ends = tuple[LedgerWriter, LedgerReader]


@pytest.fixture(params=["memory", "file"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Both ends of one; also where the system has nothing better than a file."""
    if request.param == "file":
        monkeypatch.setattr(sys, "platform", "darwin")
    memory = new_ledger()
    reader = LedgerReader(memory)
    return LedgerWriter(memory), reader  # which closes it


class Other:
    """A keeper, and the supervisor's end of its socket."""

    def __init__(self, writer: LedgerWriter) -> None:
        self.socket, self._theirs = socket.socketpair()
        self.socket.settimeout(5)
        self.stops: list[bool] = []
        self.heard = Heard()
        self.keeper = RemoteKeeper(self._theirs, writer, 0.6, lambda: self.stops.append(True), lambda whether: None)
        self.say(["quiet", False])
        self.keeper.start(self.heard)
        self._lines = self.socket.makefile("rb")

    def say(self, message: list[Any]) -> None:
        """To the worker."""
        self.socket.sendall(msgspec.json.encode(message) + b"\n")

    def hears(self) -> Any:
        """The worker's next message."""
        return msgspec.json.decode(self._lines.readline())

    def close(self) -> None:
        """Both ends."""
        self.keeper.stop()
        for one in (self._lines, self.socket, self._theirs):
            one.close()

    def hears_nothing(self) -> bool:
        """No message lies there."""
        return select.select([self.socket], [], [], 0)[0] == []


@pytest.fixture
def other(ends: Ends) -> Iterator[Other]:
    """A keeper that writes into the ledger."""
    other = Other(ends[0])
    yield other
    other.close()


def test_what_is_written_is_read_until_it_is_struck_out(queue: Queue, ends: Ends) -> None:
    """Ids and fences as they are, up to the greatest; a free line is used again."""
    writer, reader = ends
    reader.names[1] = queue.name
    leases = [bare_lease("8", 1), bare_lease(str(2**53), 2**20 - 1), bare_lease("16", 2**19)]
    assert reader.read() == []
    for lease in (*leases, leases[0]):
        assert writer.enter(1, queue, lease)
    assert reader.read() == [key_of(queue.name, lease) for lease in leases]
    assert writer.strike(leases[1])
    assert not writer.strike(leases[1])
    assert reader.read() == [key_of(queue.name, leases[0]), key_of(queue.name, leases[2])]
    assert writer.enter(1, queue, bare_lease("24", 7))
    assert [key[1] for key in reader.read()] == ["8", "24", "16"]
    assert writer.find((queue.name, "16", 2**19)) is leases[2]
    assert writer.find((queue.name, "16", 1)) is None


def test_queues_are_told_apart_and_unknown_ones_left_out(queue: Queue, ends: Ends) -> None:
    """A number that has not been told yet is a new job's."""
    writer, reader = ends
    reader.names[2] = "two"
    writer.enter(1, queue, bare_lease("8", 1))
    writer.enter(2, queue, bare_lease("8", 1))
    assert reader.read() == [("two", "8", 1)]
    reader.names[1] = "one"
    assert reader.read() == [("one", "8", 1), ("two", "8", 1)]


def test_another_process_reads_it(queue: Queue, ends: Ends) -> None:
    """It is memory that both have, not a copy."""
    writer, reader = ends
    reader.names[1] = queue.name
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(answer, 1)
        os._exit(len(reader.read()))
    for number in range(3):
        writer.enter(1, queue, bare_lease(str(8 * number), 1))
    os.write(question, b".")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    os.close(answer)
    os.close(question)


def test_a_job_costs_no_message(queue: Queue, ends: Ends, other: Other) -> None:
    """One for the queue, before its first job; none for jobs that begin and end."""
    reader = ends[1]
    for number in range(100):
        lease = bare_lease(str(8 * number), 1)
        other.keeper.hold(queue, [(lease, None)])
        if number == 0:
            assert other.hears() == ["queue", queue.name, 1]
            reader.names[1] = queue.name
        assert reader.read() == [(queue.name, str(8 * number), 1)]
        other.keeper.drop(queue.name, [lease])
    assert reader.read() == []
    assert other.hears_nothing()


def test_what_the_ledger_does_not_do_for_is_said_aloud(queue: Queue, ends: Ends, other: Other) -> None:
    """A job with a time of its own, also when it gets it later on; and those for which there is no line."""
    writer, reader = ends
    reader.names[1] = queue.name
    timed, later = bare_lease("8", 1), bare_lease("16", 2)
    other.keeper.hold(queue, [(timed, 5.0), (later, None)])
    assert other.hears() == ["queue", queue.name, 1]
    assert other.hears() == ["hold", queue.name, [["8", 1, 5.0]]]
    other.keeper.hold(queue, [(later, 7.0)])
    assert other.hears() == ["hold", queue.name, [["16", 2, 7.0]]]
    assert reader.read() == []
    other.keeper.drop(queue.name, [timed, later])
    assert other.hears() == ["drop", queue.name, [["8", 1], ["16", 2]]]

    many = [bare_lease(str(8 * number), 3) for number in range(LINES)]
    for lease in many:
        assert writer.enter(1, queue, lease)
    other.keeper.hold(queue, [(later, None)])
    assert other.hears() == ["hold", queue.name, [["16", 2, None]]]
    other.keeper.drop(queue.name, [*many, later])
    assert other.hears() == ["drop", queue.name, [["16", 2]]]
    assert reader.read() == []


def test_a_lost_lease_is_struck_out(queue: Queue, ends: Ends, other: Other) -> None:
    """Nobody settles it any more, so nobody drops it."""
    writer = ends[0]
    lost, kept = bare_lease("8", 1), bare_lease("16", 1)
    other.keeper.hold(queue, [(lost, None), (kept, None)])
    other.say(["lost", queue.name, "8", 1, False])
    wait_until(lambda: other.heard, "it is passed on")
    assert other.heard == [(queue.name, "8", 1, False)]
    assert [lease for _, lease in writer] == [kept]


def test_an_orphan_keeps_what_is_written(queue: Queue, ends: Ends, other: Other) -> None:
    """The supervisor is gone: the leases in the ledger are extended here, and what begins and ends from now on."""
    queue.enqueue_many([b"x", b"y"])
    before, after = queue.claim(2, lease=0.6)
    other.keeper.hold(queue, [(before, None)])
    other.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: other.stops, "it is known")
    other.keeper.hold(queue, [(after, None)])
    for lease in (before, after):
        first = deadline_of(queue, lease.id)
        wait_until(lambda lease=lease, first=first: deadline_of(queue, lease.id) > first + 0.7, "it is extended")
    other.keeper.drop(queue.name, [before, after])
    assert sorted(lease.id for lease in queue.claim(2, wait=5)) == sorted([before.id, after.id])


def test_a_keeper_extends_what_is_written(queue: Queue, ends: Ends) -> None:
    """Again and again, until it is struck out; a lost one is said once, though the worker does not hear it."""
    writer, reader = ends
    reader.names[1] = queue.name
    keeper, heard = ThreadKeeper(0.6, reader, [queue]), Heard()
    keeper.start(heard)
    queue.enqueue_many([b"x", b"y"])
    gone, kept = queue.claim(2, lease=0.6)
    for lease in (gone, kept):
        writer.enter(1, queue, lease)
    assert queue.cancel(gone.id)
    wait_until(lambda: heard, "it is said")
    first = deadline_of(queue, kept.id)
    wait_until(lambda: deadline_of(queue, kept.id) > first + 1.2, "several rounds more")
    assert heard == [(queue.name, gone.id, gone.delivery.fence, False)]
    writer.strike(kept)
    (again,) = queue.claim(wait=5)
    assert (again.id, again.expired_leases) == (kept.id, 1)
    keeper.stop()
