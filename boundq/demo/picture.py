"""The picture: memory of the server and studio's rate, over the time of both acts. SVG, written as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from boundq.demo.plan import MIB, STUDIO, Plan
from boundq.demo.record import Record

__all__ = ["draw"]

WIDTH, HEIGHT = 900, 560
_LEFT, _RIGHT = 62, 760
_STEP = 0.25

# Of a viewer in the dark only the colours differ. A program that knows no media queries shows the light ones.
_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933 }
.title { font-size: 19px; font-weight: 600 } .panel { font-size: 13px; font-weight: 600 }
.soft { fill: #5b6773 } .end { text-anchor: end } .middle { text-anchor: middle }
.card { fill: #ffffff; stroke: #d5dae0 } .grid { stroke: #e7eaee } .axis { stroke: #9aa5b1 }
.limit { stroke: #5b6773; stroke-dasharray: 6 4; stroke-width: 1.5 }
.event { stroke: #9aa5b1; stroke-dasharray: 2 3 }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round }
.list { stroke: #c2410c } .boundq { stroke: #0f766e } .dot { stroke: #ffffff; stroke-width: 1.5 }
text.list, .dot.list { fill: #c2410c } text.boundq, .dot.boundq { fill: #0f766e }
text.list, text.boundq { stroke: none; font-weight: 600 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .soft { fill: #9aa7b4 } .card { fill: #0f151c; stroke: #30363d } .grid { stroke: #232a33 }
.axis, .event { stroke: #5f6b78 } .limit { stroke: #9aa7b4 } .list { stroke: #fb923c } .boundq { stroke: #2dd4bf }
.dot { stroke: #0f151c } text.list, .dot.list { fill: #fb923c } text.boundq, .dot.boundq { fill: #2dd4bf }
}
"""

Points = Sequence[tuple[float, float]]


class _Panel:
    """
    A pair of axes.

    Args:
        top, bottom: In the picture.
        most_x, most_y: Where the axes end.
    """

    def __init__(self, top: float, bottom: float, most_x: float, most_y: float) -> None:
        self.top, self.bottom = top, bottom
        self._most_x, self._most_y = most_x, most_y

    def x(self, value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(value / self._most_x, 1.0)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * min(value / self._most_y, 1.0)

    def axes(self, title: str, every_x: float, every_y: float) -> list[str]:
        """Title, grid and numbers."""
        parts = [_text(_LEFT, self.top - 12, title, "panel")]
        for value in _ticks(self._most_y, every_y):
            y = self.y(value)
            parts += [_line(_LEFT, y, _RIGHT, y, "grid"), _text(_LEFT - 8, y + 4, f"{value:g}", "soft end")]
        for value in _ticks(self._most_x, every_x):
            parts.append(_line(self.x(value), self.bottom, self.x(value), self.bottom + 4, "axis"))
            parts.append(_text(self.x(value), self.bottom + 17, f"{value:g}", "soft middle"))
        return [*parts, _line(_LEFT, self.bottom, _RIGHT, self.bottom, "axis")]

    def curve(self, points: Points, kind: str) -> str:
        """A line through points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="line {kind}" points="{path}"/>'

    def ends(self, curves: dict[str, Points], say: Callable[[str, float], str]) -> list[str]:
        """A label at the end of each curve, next to its last point, none on top of another."""
        last = sorted((self.y(points[-1][1]), kind) for kind, points in curves.items() if points)
        parts, lowest = [], -math.inf
        for y, kind in last:
            lowest = max(y + 4, lowest + 16)
            parts.append(_text(_RIGHT + 8, lowest, say(kind, curves[kind][-1][1]), kind))
        return parts

    def event(self, at: float, label: str) -> list[str]:
        """A vertical line with a word."""
        x = self.x(at)
        return [
            _line(x, self.top, x, self.bottom, "event"),
            _text(x - 6, (self.top + self.bottom) / 2, label, "soft end"),
        ]

    def dot(self, at: float, value: float, kind: str, label: str, below: bool) -> list[str]:
        """A point of a curve with what happened there."""
        x, y = self.x(at), self.y(value)
        dot = f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        return [dot, _text(x + 9, y + (19 if below else -9), label, kind)]


def draw(plan: Plan, first: Record, second: Record, sentences: Sequence[str], server: str = "") -> str:
    """
    The picture.

    Args:
        plan: For the scales.
        first, second: The acts.
        sentences: What they show, for the foot of the picture.
        server: Its name and version.
    """
    most_x = max(first.ended, second.ended, 1.0)
    every_x = next((step for step in (1.0, 2.0, 5.0, 10.0) if most_x / step <= 12), 30.0)
    full = plan.maxmemory / MIB
    memory = _Panel(100, 292, most_x, full * 1.08)
    rates = _Panel(346, 456, most_x, plan.rate * 1.3)
    used = {"list": _memory(first), "boundq": _memory(second)}
    done = {"list": _done(first), "boundq": _done(second)}

    parts = [
        _text(24, 36, "The same flood, twice", "title"),
        _text(24, 56, f"A server with maxmemory {full:.0f} MiB. {server}".rstrip(), "soft"),
        *_legend(WIDTH - 24, 36),
        *memory.axes("Memory of the server, MiB", every_x, 16 if full > 32 else 8),
        _line(_LEFT, memory.y(full), _RIGHT, memory.y(full), "limit"),
        _text(_LEFT + 6, memory.y(full) - 6, f"maxmemory {full:.0f} MiB", "soft"),
        *memory.event(first.flood_at, "the flood starts"),
        *(memory.curve(points, kind) for kind, points in used.items()),
    ]
    for record, kind, label in (
        (first, "list", "full: both queues are refused"),
        (second, "boundq", "campaigns is full: it alone is refused"),
    ):
        if record.full_at is not None and used[kind]:
            level = next((y for x, y in used[kind] if x >= record.full_at), used[kind][-1][1])
            parts += memory.dot(record.full_at, level, kind, label, below=kind == "list")
    parts += [
        *memory.ends(used, lambda kind, value: f"{_NAMES[kind]} {value:.1f}"),
        *rates.axes("studio: test-sends done per second", every_x, 25 if plan.rate > 25 else 10),
        *rates.event(first.flood_at, ""),
        *(rates.curve(points, kind) for kind, points in done.items()),
        *rates.ends(done, lambda kind, value: f"{_NAMES[kind]} {value:.0f}/s"),
        _text((_LEFT + _RIGHT) / 2, rates.bottom + 34, "seconds since the act began", "soft middle"),
        *(_text(24, 512 + 17 * n, sentence, "") for n, sentence in enumerate(sentences)),
    ]
    title = "Memory of the server and rate of the studio queue: an ordinary list queue, and boundq"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
            *parts,
            "</svg>\n",
        ]
    )


_NAMES = {"list": "list queue", "boundq": "boundq"}


def _memory(record: Record) -> Points:
    return [(sample.at, sample.memory / MIB) for sample in record.samples if sample.at <= record.ended]


def _done(record: Record) -> Points:
    """Of each quarter of a second: how many mails came in the second before."""
    points = []
    for n in range(1, int(record.ended / _STEP) + 1):
        at = n * _STEP
        since = max(at - 1.0, 0.0)
        points.append((at, record.mails_between(STUDIO, since, at) / (at - since)))
    return points


def _legend(right: float, y: float) -> list[str]:
    parts = []
    for kind, label, x in (("list", "Act 1: list queue", right - 250), ("boundq", "Act 2: boundq", right - 105)):
        parts.append(f'<line class="line {kind}" x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}"/>')
        parts.append(_text(x + 26, y, label, ""))
    return parts


def _ticks(most: float, every: float) -> list[float]:
    return [n * every for n in range(int(most / every) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
