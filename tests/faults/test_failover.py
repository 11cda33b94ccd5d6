"""
Producers across a fail-over: what was replicated is kept, no job is there twice, and what is said of each call is true.

What an asynchronous fail-over loses, it loses: calls that were answered by a primary whose replica had not heard of
them yet. The tests leave these out, and no others.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from boundq import Limits, Queue, Unavailable
from tests._proxy import Proxy
from tests._sentinel import FAIL_OVER_S, NAME, Watched
from tests._servers import wait_until
from tests.conftest import FreshServer, NewProxy
from tests.faults._shell import SMALL, Shell, audit, stored

LIMITS = Limits(max_jobs=500_000, max_bytes="512 MiB")
PRODUCERS = 3


class Said(NamedTuple):
    """How a call of a producer ended."""

    payload: bytes
    began: float
    outcome: str  # stored, not_sent, unknown


def _die(watched: Watched) -> None:
    watched.primary.kill()
    watched.promote()


def _change_places(watched: Watched) -> None:
    watched.demote()


@pytest.mark.parametrize("fail_over", [_die, _change_places], ids=["killed", "demoted"])
def test_producers_go_on_at_the_new_primary(
    shell: Shell, fresh_server: FreshServer, queue_name: str, fail_over: Callable[[Watched], None]
) -> None:
    """While three producers enqueue, another server becomes the primary: each job once, each error typed and true."""
    watched = Watched(fresh_server)
    said: list[Said] = []
    stop = threading.Event()

    def produce(place: int) -> None:
        queue = shell.queue(queue_name, watched.url, limits=LIMITS, deadline=2)
        for number in itertools.count():
            if stop.is_set():
                return
            payload, began = b"job-%d-%d" % (place, number), time.monotonic()
            try:
                queue.enqueue_bytes(payload)
                said.append(Said(payload, began, "stored"))
            except Unavailable as error:
                said.append(Said(payload, began, error.outcome))

    def stored_since(then: float) -> set[bytes]:
        return {one.payload for one in list(said) if one.outcome == "stored" and one.began >= then}

    with ThreadPoolExecutor(PRODUCERS) as pool:
        producers = [pool.submit(produce, place) for place in range(PRODUCERS)]
        try:
            wait_until(lambda: len(stored_since(0)) >= 200, "they are at work", FAIL_OVER_S)
            safe = stored_since(0)
            watched.replicate()
            fail_over(watched)
            back = time.monotonic()
            wait_until(lambda: len(stored_since(back)) >= 200, "they go on", FAIL_OVER_S)
        finally:
            stop.set()
        for producer in producers:
            producer.result()  # any error that is not Unavailable

    direct = Queue(queue_name, watched.replica.url, limits=LIMITS)
    found = Counter(stored(direct))
    assert found.most_common(1)[0][1] == 1, "no job is there twice"
    assert safe <= found.keys(), "what was replicated is kept"
    assert stored_since(back) <= found.keys(), "what the new primary took is there"
    not_sent = {one.payload for one in said if one.outcome == "not_sent"}
    assert not not_sent & found.keys(), "what was said not to be stored is not"
    assert found.keys() <= {one.payload for one in said}
    audit(direct)
    direct.close()


def test_a_mute_sentinel_is_passed_over(
    shell: Shell, fresh_server: FreshServer, proxy: NewProxy, queue_name: str
) -> None:
    """The sentinel that is named first died with its machine: the next one is asked in time, and first from then on."""
    watched = Watched(fresh_server)
    assert watched.sentinel.port is not None
    mute = proxy(("127.0.0.1", watched.sentinel.port), tcp=True)
    mute.black_hole()
    queue = shell.queue(
        queue_name,
        f"redis+sentinel://{_place(mute)},127.0.0.1:{watched.sentinel.port}/{NAME}/0",
        limits=SMALL,
        deadline=4,
    )
    assert queue.enqueue_bytes(b"1").jobs == 1
    asked = len(mute.connections)
    assert asked
    watched.primary.cli("CLIENT", "KILL", "TYPE", "normal")  # so that the sentinels are asked again
    assert queue.enqueue_bytes(b"2").jobs == 2
    assert len(mute.connections) == asked


@pytest.mark.usefixtures("one_attempt")
def test_sentinels_that_know_nothing(shell: Shell, fresh_server: FreshServer, queue_name: str) -> None:
    """No sentinel names such a primary: Unavailable, not_sent, and it says which name."""
    watched = Watched(fresh_server)
    url = watched.url.replace(NAME, "nobody")
    queue = shell.queue(queue_name, url, limits=SMALL)
    with pytest.raises(Unavailable, match="no sentinel names a primary 'nobody'") as caught:
        queue.enqueue_bytes(b"1")
    assert (caught.value.reason, caught.value.outcome) == ("refused", "not_sent")


def _place(line: Proxy) -> str:
    host, port = line.address
    return f"{host}:{port}"
