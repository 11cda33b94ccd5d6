"""Slots: never more jobs at once than there are, and fair by weight."""

from __future__ import annotations

import threading
import time

import pytest

from boundq.worker.slots import LOOP, THREAD, Slots
from tests._servers import wait_until


def test_no_more_than_there_are() -> None:
    """Slots are reserved of each kind that the queue has; what is not needed comes back."""
    slots = Slots({THREAD: 2, LOOP: 5}, {"both": {THREAD, LOOP}, "loop": {LOOP}}, {})
    assert slots.take("both", 500, 0) == 2
    assert slots.take("both", 1, 0) == 0
    assert slots.take("loop", 2, 0) == 2
    assert slots.take("loop", 500, 0) == 1
    slots.give({THREAD})
    assert slots.take("both", 1, 0) == 0, "a place on the loop is missing"
    slots.give({LOOP}, 2)
    assert slots.take("both", 500, 0) == 1
    slots.give({LOOP}, 0)
    assert slots.kinds("both") == {THREAD, LOOP}


def test_a_take_waits_for_its_time_and_is_woken_by_a_slot() -> None:
    """0 after that time; at once when somebody gives."""
    slots = Slots({THREAD: 1}, {"a": {THREAD}}, {})
    assert slots.take("a", 1, 0) == 1
    began = time.monotonic()
    assert slots.take("a", 1, 0.05) == 0
    assert time.monotonic() - began >= 0.05
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(slots.take("a", 1, 20)))
    waiting.start()
    wait_until(lambda: slots._waiting, "it waits")
    slots.give({THREAD})
    waiting.join(5)
    assert got == [1]


@pytest.mark.parametrize(("weight", "share"), [(1.0, 0.5), (3.0, 0.75), (9.0, 0.9), (0.25, 0.2)])
def test_who_waits_gets_slots_by_weight(weight: float, share: float) -> None:
    """Two queues that always want the only slot have it in proportion to their weights."""
    slots = Slots({THREAD: 1}, {"a": {THREAD}, "b": {THREAD}}, {"a": weight})
    order: list[str] = []
    over = threading.Event()
    assert slots.take("a", 1, 0) == 1  # held until both wait

    def want(name: str) -> None:
        while not over.is_set():
            if slots.take(name, 1, 0.2):
                order.append(name)
                # As a job would, it goes on until both wait again.
                wait_until(lambda: over.is_set() or len(slots._waiting) >= 1, "the other waits")
                threading.Timer(0.002, slots.give, ({THREAD},)).start()

    threads = [threading.Thread(target=want, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(slots._waiting) == 2, "both wait")
    slots.give({THREAD})
    wait_until(lambda: len(order) >= 200, "two hundred turns", 20)
    over.set()
    for thread in threads:
        thread.join(5)
    assert abs(order[:200].count("a") / 200 - share) < 0.08


def test_a_waiting_queue_without_a_free_slot_of_its_kind_blocks_nobody() -> None:
    """One that waits for a thread does not keep another from the loop."""
    slots = Slots({THREAD: 1, LOOP: 1}, {"a": {THREAD}, "b": {LOOP}}, {})
    assert slots.take("a", 1, 0) == 1
    waiting = threading.Thread(target=slots.take, args=("a", 1, 5))
    waiting.start()
    wait_until(lambda: "a" in slots._waiting, "a waits")
    assert slots.take("b", 1, 0) == 1
    assert slots.take("b", 1, 0) == 0
    slots.give({LOOP})
    assert slots.take("b", 1, 0) == 1, "although it has had more than the other"
    slots.give({THREAD})
    waiting.join(5)
    assert not waiting.is_alive()


def test_threads_that_take_and_give_lose_no_slot() -> None:
    """After a thousand rounds of eight threads all slots are there, and there were never more than that at once."""
    sizes = {THREAD: 3, LOOP: 4}
    slots = Slots(sizes, {"a": {THREAD}, "b": {LOOP}, "c": {THREAD, LOOP}}, {"a": 2})
    lock, held, worst = threading.Lock(), {THREAD: 0, LOOP: 0}, {THREAD: 0, LOOP: 0}

    def rounds(queue: str) -> None:
        for _ in range(125):
            count = slots.take(queue, 2, 5)
            assert count
            with lock:
                for kind in slots.kinds(queue):
                    held[kind] += count
                    worst[kind] = max(worst[kind], held[kind])
            with lock:
                for kind in slots.kinds(queue):
                    held[kind] -= count
            slots.give(slots.kinds(queue), count)

    threads = [threading.Thread(target=rounds, args=("abc"[number % 3],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert all(worst[kind] <= sizes[kind] for kind in sizes)
    assert slots.take("a", 500, 0) == 3
    assert slots.take("b", 500, 0) == 4
