"""What `boundq top` knows and what is chosen in it: keys and news go in, a state to draw comes out. Asks nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from boundq import Stats
from boundq._rates import Trace
from boundq.cli._top_poll import Done, Found, Lost, News, Switch
from boundq.cli._watch import Seen, Watch

# A refresh may be so much later than due, in seconds, before its numbers are called old.
LATE_SECONDS = 1.5
# How long a message stays.
MESSAGE_SECONDS = 6.0


class Column(NamedTuple):
    """What to sort by, with which key, and whether the most comes first."""

    name: str
    key: str
    value: Callable[[Stats, Trace], float | str]
    most_first: bool = True


def _arrived(stats: Stats, trace: Trace) -> float:
    rates = trace.rates()
    return rates.arrived.value if rates else -1.0


def _left(stats: Stats, trace: Trace) -> float:
    rates = trace.rates()
    return rates.left.value if rates else -1.0


def _rejected(stats: Stats, trace: Trace) -> float:
    rates = trace.rates()
    return rates.rejected.value if rates else -1.0


COLUMNS = (
    Column("queue", "n", lambda stats, trace: stats.name, most_first=False),
    Column("full", "f", lambda stats, trace: stats.fill),
    Column("jobs", "j", lambda stats, trace: stats.jobs),
    Column("bytes", "b", lambda stats, trace: stats.bytes),
    Column("ready", "r", lambda stats, trace: stats.ready),
    Column("active", "a", lambda stats, trace: stats.active),
    Column("dead", "d", lambda stats, trace: stats.dead),
    Column("in/s", "i", _arrived),
    Column("out/s", "o", _left),
    Column("ref/s", "x", _rejected),
    Column("oldest", "t", lambda stats, trace: stats.oldest_age or 0.0),
)


class Wish(NamedTuple):
    """A question that waits for y or n."""

    name: str
    switch: Switch

    @property
    def question(self) -> str:
        """What to ask."""
        effect = {
            "pause": "workers will claim nothing more from it",
            "resume": "workers will claim from it again",
            "seal": "it will refuse new jobs",
            "unseal": "it will take new jobs again",
        }[self.switch]
        return f"{self.switch} {self.name}? {effect}"


class Model:
    """
    The state of the program.

    Args:
        watch: Where looks are remembered; shared with nobody who writes.
        interval: Seconds between looks.
        clock: For ages and messages; monotonic.
    """

    def __init__(self, watch: Watch, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.watch = watch
        self.interval = interval
        self.seen: Seen | None = None
        self.lost = ""
        self.searching = not watch.named
        self.found = 0
        self.sort = COLUMNS[1]
        self.reverse = False
        self.selected = ""
        self.inspecting = False
        self.helping = False
        self.wish: Wish | None = None
        self.quit = False
        self.page = 1
        self._clock = clock
        self._seen_at = clock()
        self._message = ""
        self._message_until = 0.0

    # -- news

    def hear(self, news: News) -> None:
        """Something came from the server, or did not."""
        if isinstance(news, Seen):
            self.watch.note(news)
            self.seen, self.lost, self._seen_at = news, "", self._clock()
            self._keep_selected()
        elif isinstance(news, Lost):
            for trace in self.watch.traces.values():
                trace.gap()
            self.lost = news.text
        elif isinstance(news, Found):
            self.found, self.searching = news.names, self.searching and not news.all
        elif isinstance(news, Done):
            self.say(news.text)
        else:
            raise news.error

    def say(self, text: str) -> None:
        """Show a message for a while."""
        self._message, self._message_until = text, self._clock() + MESSAGE_SECONDS

    @property
    def message(self) -> str:
        """The message, while it is to be seen."""
        return self._message if self._clock() < self._message_until else ""

    @property
    def age(self) -> float:
        """Of the numbers, or of the first wait for them, in seconds."""
        return self._clock() - self._seen_at

    @property
    def stale(self) -> bool:
        """Whether the numbers are old: the last look failed, or is late."""
        return bool(self.lost) or self.age > self.interval + LATE_SECONDS

    @property
    def names(self) -> list[str]:
        """The queues in the order in which they are shown."""
        if self.seen is None:
            return []
        queues, traces = self.seen.queues, self.watch.traces
        names = sorted(queues)
        value = self.sort.value
        return sorted(
            names, key=lambda name: value(queues[name], traces[name]), reverse=self.sort.most_first != self.reverse
        )

    # -- keys

    def press(self, key: str) -> Wish | None:
        """A key was pressed; a wish that was confirmed."""
        if self.wish is not None:
            wish, self.wish = self.wish, None
            if key in ("y", "Y"):
                self.say(f"{wish.switch} {wish.name} …")
                return wish
            self.say(f"not done: {wish.switch} {wish.name}")
        elif key == "q":
            self.quit = True
        elif key in ("?", "h"):
            self.helping = not self.helping
        elif key == "escape" or (key == "enter" and self.inspecting):
            self.inspecting = self.helping = False
        elif key == "enter":
            self.inspecting = bool(self.selected)
        elif key in ("p", "s"):
            self._ask(key)
        elif key == "R":
            self.reverse = not self.reverse
        elif key in ("<", ">", "left", "right"):
            step = 1 if key in (">", "right") else -1
            self._sort_by(COLUMNS[(COLUMNS.index(self.sort) + step) % len(COLUMNS)])
        elif column := next((one for one in COLUMNS if one.key == key), None):
            self._sort_by(column)
        else:
            self._move(key)
        return None

    def _ask(self, key: str) -> None:
        stats = self.seen.queues.get(self.selected) if self.seen else None
        if stats is None:
            self.say("no queue is selected")
        elif self.stale:
            self.say("not while the numbers are old: whether it is paused or sealed is not known")
        elif key == "p":
            self.wish = Wish(stats.name, "resume" if stats.paused_since else "pause")
        else:
            self.wish = Wish(stats.name, "unseal" if stats.sealed_since else "seal")

    def _sort_by(self, column: Column) -> None:
        self.reverse = column is self.sort and not self.reverse
        self.sort = column

    def _move(self, key: str) -> None:
        names = self.names
        if not names:
            return
        here = names.index(self.selected) if self.selected in names else 0
        steps = {"up": -1, "down": 1, "page up": -self.page, "page down": self.page}
        ends = {"home": 0, "end": len(names) - 1}
        there = ends.get(key, here + steps.get(key, 0))
        self.selected = names[min(max(there, 0), len(names) - 1)]

    def _keep_selected(self) -> None:
        """The queue stays selected wherever it moves in the list; when it is gone, the first one is."""
        names = self.names
        if self.selected not in names:
            self.selected = names[0] if names else ""
            self.inspecting = False
        if self.wish is not None and self.wish.name not in names:
            self.wish = None
