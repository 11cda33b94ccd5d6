"""
How many jobs run at once, and whose turn it is.

A job needs a slot of its kind: a thread for a plain function, a place on the event loop for an ``async def``. Which
kind it is shows only when it has been claimed, so a claim reserves a slot of each kind that its queue has, and gives
back what it did not need. Queues that wait for slots at the same time get them by weight.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Set

THREAD, LOOP = "thread", "loop"


class Slots:
    """
    Args:
        sizes: Slots of each kind.
        kinds: For each queue, the kinds its tasks need.
        weights: For each queue; of two that wait, one of weight 3 gets three slots where one of weight 1 gets one.
    """

    def __init__(self, sizes: Mapping[str, int], kinds: Mapping[str, Set[str]], weights: Mapping[str, float]) -> None:
        self._free = dict(sizes)  # less than none, where jobs were claimed ahead
        self._ahead = dict.fromkeys(kinds, 0)
        self._kinds = kinds
        self._weights = weights
        self._passed = dict.fromkeys(kinds, 0.0)  # slots given, by weight: the least goes next
        self._now = 0.0  # what had been given to the last one, before it was given: who comes back begins here
        self._waiting: set[str] = set()
        self._changed = threading.Condition()

    def take(self, queue: str, most: int, seconds: float) -> int:
        """Up to ``most`` slots of each kind that the queue has; 0 when none came free within ``seconds``."""
        with self._changed:
            if len(self._kinds) == 1 and (free := self._available(queue)) > 0:  # no rivals: no turns
                return self._taken(queue, min(most, free))
            # Who comes back after a pause has no claim to what it did not want meanwhile.
            self._passed[queue] = max(self._passed[queue], self._now)
            self._waiting.add(queue)
            try:
                if not self._changed.wait_for(lambda: self._available(queue) > 0 and self._is_next(queue), seconds):
                    return 0
                count = self._taken(queue, min(most, self._share(queue)))
                self._now = self._passed[queue]
                self._passed[queue] += count / self._weights.get(queue, 1.0)
                return count
            finally:
                self._waiting.discard(queue)
                self._changed.notify_all()

    def _taken(self, queue: str, count: int) -> int:
        for kind in self._kinds[queue]:
            self._free[kind] -= count
        return count

    def allow_ahead(self, queue: str, count: int) -> None:
        """Let the queue take so many threads more than there are, from now on: these jobs wait for one."""
        with self._changed:  # who takes must not see it change between two looks
            self._ahead[queue] = count

    def give(self, kinds: Set[str], count: int = 1) -> None:
        """Give slots back, ``count`` of each kind."""
        if count:
            with self._changed:
                for kind in kinds:
                    self._free[kind] += count
                if self._waiting:
                    self._changed.notify_all()

    def kinds(self, queue: str) -> Set[str]:
        """The kinds that the queue's tasks need."""
        return self._kinds[queue]

    def _available(self, queue: str) -> int:
        return min(self._free[kind] + (self._ahead[queue] if kind == THREAD else 0) for kind in self._kinds[queue])

    def _is_next(self, queue: str) -> bool:
        rivals = [other for other in self._waiting if self._available(other) > 0]
        return self._passed[queue] <= min(self._passed[other] for other in rivals)

    def _share(self, queue: str) -> int:
        rivals = [other for other in self._waiting if self._available(other) > 0]
        whole = sum(self._weights.get(other, 1.0) for other in rivals)
        return max(1, int(self._available(queue) * self._weights.get(queue, 1.0) / whole))
