"""How `boundq top` looks: a model in, what rich draws out, exactly as large as the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from boundq import Stats
from boundq._rates import Estimate, Trace
from boundq._sizes import duration, format_size
from boundq.cli._forecast import sentence, short
from boundq.cli._text import printable
from boundq.cli._top_model import COLUMNS, Model
from boundq.cli._warnings import number, of_queue
from boundq.cli.stats import rows as stats_rows

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

HELP = (
    "up down pgup pgdn home end   select a queue",
    "enter                        all its numbers; escape: back",
    "p  s                         pause or resume, seal or unseal the queue; asks before it does",
    "space                        look now",
    "< >  or left right           sort by the next column",
    *(f"{column.key}                            sort by {column.name}; again: the other way" for column in COLUMNS),
    "R                            the other way round",
    "q  Ctrl-C                    quit",
    "",
    "P paused   S sealed   ! a warning: it stands below the list, and under enter",
)
_BARS = {True: "▁▂▃▄▅▆▇█", False: ".:-=+*#@"}
_MARKS = {True: ("▶", "█", "░", "▼", "▲"), False: (">", "#", ".", "v", "^")}
# Lines above and below the list.
_HEAD, _FOOT = 3, 7


class _Field(NamedTuple):
    """A column on the screen: its title, width, the least width of screen that has it, and what is in it."""

    title: str
    width: int
    least: int
    cell: Callable[[Stats, Trace], str]


def _rate(pick: Callable[[Trace], Estimate | None]) -> Callable[[Stats, Trace], str]:
    def cell(stats: Stats, trace: Trace) -> str:
        estimate = pick(trace)
        return "-" if estimate is None else number(estimate.value)

    return cell


def _arrived(trace: Trace) -> Estimate | None:
    rates = trace.rates()
    return rates.arrived if rates else None


def _left(trace: Trace) -> Estimate | None:
    rates = trace.rates()
    return rates.left if rates else None


def _rejected(trace: Trace) -> Estimate | None:
    rates = trace.rates()
    return rates.rejected if rates else None


_FIELDS = (
    _Field("jobs", 6, 0, lambda stats, trace: number(stats.jobs)),
    _Field("bytes", 10, 116, lambda stats, trace: format_size(stats.bytes)),
    _Field("ready", 6, 124, lambda stats, trace: number(stats.ready)),
    _Field("active", 7, 90, lambda stats, trace: number(stats.active)),
    _Field("dead", 6, 96, lambda stats, trace: number(stats.dead)),
    _Field("in/s", 6, 0, _rate(_arrived)),
    _Field("out/s", 6, 0, _rate(_left)),
    _Field("ref/s", 6, 104, _rate(_rejected)),
    _Field("oldest", 7, 0, lambda stats, trace: duration(stats.oldest_age) if stats.oldest_age else "-"),
)
_FILL, _FORECAST, _SPARK, _FLAGS = 10, 13, 24, 3


class View:
    """
    Draws a model.

    Args:
        unicode: Whether the terminal can show more than ASCII.
    """

    def __init__(self, *, unicode: bool) -> None:
        self._unicode = unicode
        self._pointer, self._full, self._free, self._down, self._up = _MARKS[unicode]

    def draw(self, model: Model, width: int, height: int) -> Group:
        """The whole screen."""
        from rich.console import Group
        from rich.text import Text

        head = self._head(model)
        if model.helping:
            body = [Text(line) for line in HELP]
        elif model.inspecting and model.seen and model.selected in model.seen.queues:
            bottom = self._bottom(model, "enter, escape: back  p pause  s seal  q quit")
            return Group(*head, bottom, *self._inspection(model))
        else:
            body = self._list(model, width, height)
        lines = [*head, *body][: max(height - 1, 1)]
        lines += [Text("")] * (height - 1 - len(lines))
        keys = "q quit  p pause  s seal  enter inspect  < > sort  R reverse  space now  ? help"
        lines.append(self._bottom(model, keys))
        for line in lines:
            line.no_wrap = True
            line.truncate(width, overflow="ellipsis" if self._unicode else "crop")
        return Group(*lines)

    def sparkline(self, values: Sequence[float | None], width: int) -> str:
        """The last values, one character each; blank where there was no answer."""
        shown = list(values)[-width:]
        most = max((value for value in shown if value is not None), default=0.0)
        bars = _BARS[self._unicode]
        picture = "".join(
            " " if value is None else bars[min(int(value / most * len(bars)), len(bars) - 1) if most else 0]
            for value in shown
        )
        return picture.rjust(width)

    # -- parts

    def _head(self, model: Model) -> list[Text]:
        from rich.text import Text

        seen = model.seen
        line = Text("boundq top", style="bold")
        if seen is not None:
            now = "" if model.stale else time.strftime("  %H:%M:%S", time.localtime(seen.wall))
            line.append(f"{now}  {len(seen.queues)} queues  {seen.memory.text()}", style="not bold")
        return [line, self._state(model)]

    def _state(self, model: Model) -> Text:
        """The most important thing to know."""
        from rich.text import Text

        seen = model.seen
        if model.stale:
            why = f": {printable(model.lost, 300)}" if model.lost else ""
            if seen is None:
                return Text(f"NO ANSWER for {duration(model.age)}{why}", style="bold red reverse")
            then = time.strftime("%H:%M:%S", time.localtime(seen.wall))
            return Text(f"NO ANSWER: OLD NUMBERS, of {then}, {duration(model.age)} ago{why}", style="bold red reverse")
        if seen is None:
            return Text("asking the server …" if self._unicode else "asking the server ...")
        if model.searching:
            return Text(f"looking through the server's keys for queues, {model.found} so far")
        if warned := model.watch.warnings(seen):
            return Text(f"! {warned[0].text}", style="yellow")
        return Text("")

    def _list(self, model: Model, width: int, height: int) -> list[Text]:
        from rich.text import Text

        names = model.names
        room = max(height - _HEAD - _FOOT - 1, 1)
        model.page = room
        fields = [field for field in _FIELDS if width >= field.least]
        fixed = 1 + _FLAGS + 1 + 1 + _FILL + 1 + sum(field.width + 1 for field in fields) + _FORECAST
        spark = _SPARK if width >= 150 else 0
        name_width = max(min(width - fixed - (spark + 1 if spark else 0), 40), 8)
        at = names.index(model.selected) if model.selected in names else 0
        first = min(max(at - room // 2, 0), max(len(names) - room, 0))
        lines = [self._titles(model, fields, name_width, spark)]
        assert model.seen is not None or not names
        for name in names[first : first + room]:
            assert model.seen is not None
            stats, trace = model.seen.queues[name], model.watch.traces[name]
            lines.append(self._row(model, stats, trace, fields, name_width, spark))
        if model.seen is not None and not names and not model.searching and not model.stale:
            lines.append(Text("no queues on this server; enqueueing, or a worker, creates one"))
        if model.seen is not None:
            lines += [Text(f"! {name}: {printable(str(error), 300)}") for name, error in model.seen.unreadable.items()]
        lines = lines[: room + 1]
        lines += [Text("")] * (room + 1 - len(lines))
        more = len(names) - first - room
        lines.append(Text(f"  {more} more below" if more > 0 else "", style="dim"))
        return [*lines, *self._selected(model, width)]

    def _titles(self, model: Model, fields: Sequence[_Field], name_width: int, spark: int) -> Text:
        from rich.text import Text

        arrow = self._down if model.sort.most_first != model.reverse else self._up

        def title(text: str) -> str:
            return f"{text}{arrow}" if text == model.sort.name else text

        cells = [" " * (1 + _FLAGS) + " " + title("queue").ljust(name_width), title("full").ljust(_FILL)]
        cells += [title(field.title).rjust(field.width) for field in fields]
        cells += ["forecast".ljust(_FORECAST), *(["jobs".ljust(spark)] if spark else [])]
        hidden = model.sort.name not in ("queue", "full", *(field.title for field in fields))
        return Text(" ".join(cells) + (f" (by {title(model.sort.name)})" if hidden else ""), style="reverse")

    def _row(
        self, model: Model, stats: Stats, trace: Trace, fields: Sequence[_Field], name_width: int, spark: int
    ) -> Text:
        from rich.text import Text

        chosen = stats.name == model.selected
        flags = ("P" if stats.paused_since else " ") + ("S" if stats.sealed_since else " ")
        flags += "!" if of_queue(stats, trace) else " "
        name = stats.name if len(stats.name) <= name_width else stats.name[: name_width - 1] + "~"
        line = Text(f"{self._pointer if chosen else ' '}{flags} {name.ljust(name_width)} ")
        line.append(self._fill(stats.fill))
        line.append(" " + " ".join(field.cell(stats, trace).rjust(field.width) for field in fields))
        # What was going to happen is not known any more when nothing is heard.
        line.append(" " + ("?" if model.stale else short(trace.forecast()).replace(" in ", " ")).ljust(_FORECAST))
        if spark:
            line.append(" " + self.sparkline(trace.held(), spark))
        if chosen:
            line.stylize("bold")
        if model.stale:
            line.stylize("dim")
        return line

    def _fill(self, share: float) -> Text:
        from rich.text import Text

        width = _FILL - 5
        filled = min(max(round(share * width), 1 if share > 0.001 else 0), width)
        colour = "red" if share >= 0.8 else "yellow" if share >= 0.6 else "green"
        bar = Text(self._full * filled, style=colour)
        return bar.append(self._free * (width - filled), style="dim").append(f" {share:4.0%}")

    def _selected(self, model: Model, width: int) -> list[Text]:
        """The chosen queue: its name in full, three sparklines, its first warning."""
        from rich.text import Text

        stats = model.seen.queues.get(model.selected) if model.seen else None
        if stats is None:
            return []
        trace = model.watch.traces[stats.name]
        style = "dim" if model.stale else ""
        most = int(stats.limits.max_bytes)
        room = max(width - 40, 10)
        rates = None if model.stale else trace.rates()
        warned = of_queue(stats, trace)
        lines = [
            Text(
                f"{stats.name}: {stats.jobs} of {stats.limits.max_jobs} jobs, "
                f"{format_size(stats.bytes)} of {format_size(most)}; {stats.ready} ready, {stats.active} active, "
                f"{stats.scheduled} scheduled, {stats.dead} dead",
                style=f"bold {style}",
            )
        ]
        pictures: tuple[tuple[str, list[float | None], str], ...] = (
            ("jobs", trace.held(), f"{stats.jobs} held"),
            ("in/s", trace.steps("admitted"), _bounded(rates.arrived) if rates else "unknown"),
            ("out/s", trace.steps("left"), _bounded(rates.left) if rates else "unknown"),
        )
        for title, values, now in pictures:
            lines.append(Text(f"{title:5} {self.sparkline(values, room)} {now}", style=style))
        lines.append(Text(f"forecast: {'unknown: no answer' if model.stale else sentence(trace.forecast())}"))
        lines.append(Text(f"! {'; '.join(one.text for one in warned)}" if warned else "", style="yellow"))
        return lines

    def _inspection(self, model: Model) -> list[Any]:
        from rich.styled import Styled

        assert model.seen is not None
        stats = model.seen.queues[model.selected]
        found = stats_rows(stats, model.watch.traces[stats.name])
        return ["", *(Styled(row, "dim" if model.stale else "") for row in found), ""]

    def _bottom(self, model: Model, keys: str) -> Text:
        from rich.text import Text

        if model.wish is not None:
            return Text(f"{model.wish.question}.  y: yes, any other key: no", style="bold reverse")
        if model.message:
            return Text(printable(model.message, 300), style="bold")
        return Text(keys, style="dim")


def _bounded(one: Estimate) -> str:
    return f"{number(one.value)} ({number(one.low)} to {number(one.high or one.value)})"
