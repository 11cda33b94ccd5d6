"""
The display: bars that move on a terminal, a line a second elsewhere.

    with stage.act("Act 1 of 3: ...") as show:
        show(sample, "what is going on")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from boundq.demo.plan import CAMPAIGNS, MIB, STUDIO, Plan
from boundq.demo.record import Sample

__all__ = ["Show", "Stage"]

_HEAD = "      s   memory   campaigns: held refused   done   studio: held refused done/s"
_BAR_WIDTH = 30


class Show(Protocol):
    """Puts a sample on the display; ``note`` is what is going on."""

    def __call__(self, sample: Sample, note: str) -> None: ...


class Stage:
    """
    Args:
        console: Bars if it is a terminal.
        plan: For the scales.
    """

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._seen: list[Sample] = []
        self._note, self._printed = "", -1

    @contextmanager
    def act(self, title: str) -> Iterator[Show]:
        """The display of one act."""
        self._seen, self._note, self._printed = [], "", -1
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            with Live(console=self._console, auto_refresh=False) as live:

                def show(sample: Sample, note: str) -> None:
                    live.update(self._bars(title, sample, note), refresh=True)

                yield show
        else:
            self._print(title)
            self._print(_HEAD)
            yield self._line
        self._print("")

    def say(self, text: str) -> None:
        """A line between the acts."""
        self._console.print(text, style="dim", highlight=False)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _line(self, sample: Sample, note: str) -> None:
        self._seen.append(sample)
        if note != self._note:
            self._note = note
            self._print(f"      - {note}")
        elif int(sample.at) == self._printed:
            return
        self._printed = int(sample.at)
        rate = self._rate(sample, STUDIO)
        campaigns, studio = sample.levels[CAMPAIGNS], sample.levels[STUDIO]
        self._print(
            f"{sample.at:7.1f}{sample.memory / MIB:5.1f} MiB"
            f"{campaigns.jobs:18d}{campaigns.refused:8d}{campaigns.done:7d}"
            f"{studio.jobs:15d}{studio.refused:8d}{rate:7.0f}"
        )

    def _bars(self, title: str, sample: Sample, note: str) -> Group:
        self._seen.append(sample)
        rates = {queue: self._rate(sample, queue) for queue in sample.levels}
        campaigns, studio = sample.levels[CAMPAIGNS], sample.levels[STUDIO]
        full = self._plan.maxmemory
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=13)
        grid.add_column(width=_BAR_WIDTH)
        grid.add_column(no_wrap=True)
        red = sample.memory >= 0.98 * full
        _row(grid, "server memory", sample.memory / full, f"{sample.memory / MIB:.1f} of {full / MIB:.0f} MiB", red)
        _row(grid, CAMPAIGNS, campaigns.bytes / full, f"{campaigns.jobs:,} held, {campaigns.refused:,} refused")
        _row(grid, STUDIO, studio.bytes / full, f"{studio.jobs:,} held, {studio.refused:,} refused")
        for queue, level in sample.levels.items():
            if queue == STUDIO or level.done:
                fastest = self._plan.rate if queue == STUDIO else max(rates[queue], 1000)
                text = f"{rates[queue]:.0f} a second, {level.done:,} in all"
                _row(grid, f"{queue} done"[:13], rates[queue] / fastest, text)
        head = Text.assemble((title, "bold"), f"\n{sample.at:5.1f} s  ", (note, "italic"))
        return Group(head, grid)

    def _rate(self, sample: Sample, queue: str) -> float:
        """Done per second, since a sample that is a second old; since the one before where that is older."""
        since = next((one for one in self._seen if one.at >= sample.at - 1.05), sample)
        if since is sample and len(self._seen) > 1:
            since = self._seen[-2]
        seconds = sample.at - since.at
        return (sample.levels[queue].done - since.levels[queue].done) / seconds if seconds else 0.0


def _row(grid: Table, label: str, share: float, text: str, red: bool = False) -> None:
    color = "red" if red else "cyan"
    share = min(max(share, 0.0), 1.0)
    bar = ProgressBar(1.0, share, _BAR_WIDTH, complete_style=color, finished_style=color)
    grid.add_row(label, bar, text)
