"""
The picture of a bench: one column for each server, one panel for each comparison. SVG, written as text.

Bars show medians, whiskers the quarter of the runs below and above; the number behind a bar's value is its ratio to
the base, which is grey.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from html import escape

from bench._harness import Column, Curves, Group, Result

_PANEL, _GAP, _MARGIN = 500, 36, 24
_HEAD, _LINE, _BAR, _FOOT = 68, 17, 24, 34
_LETTER = 6.4
_LABEL, _VALUE = 206, 116
_CURVES_HEIGHT, _AXIS, _KEY = 190, 52, 124
_OURS = "boundq"

# Of a viewer in the dark only the colours differ. A program that knows no media queries shows the light ones.
_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933 }
.title { font-size: 19px; font-weight: 600 } .panel { font-size: 13px; font-weight: 600 }
.soft { fill: #5b6773 } .end { text-anchor: end } .middle { text-anchor: middle }
.card { fill: #ffffff; stroke: #d5dae0 } .grid { stroke: #e7eaee } .axis { stroke: #9aa5b1 }
.ours { fill: #0f766e } .base { fill: #9aa5b1 } .other { fill: #c9a227 }
.whisker { stroke: #1f2933; stroke-width: 1.2 }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .soft { fill: #9aa7b4 } .card { fill: #0f151c; stroke: #30363d } .grid { stroke: #232a33 }
.axis { stroke: #5f6b78 } .ours { fill: #2dd4bf } .base { fill: #7b8794 } .other { fill: #d9b949 }
.whisker { stroke: #e6edf3 }
}
"""
_COLOURS = (
    *("#0f9488", "#c2410c", "#2563eb", "#a16207", "#7c3aed", "#be185d"),
    *("#4d7c0f", "#0369a1", "#b91c1c", "#57534e", "#15803d"),
)


def draw(title: str, sentence: str, under: str, found: Mapping[str, Result]) -> str:
    """
    The picture.

    Args:
        title: Of the bench.
        sentence: What it measures.
        under: What it was taken under.
        found: Name and version of a server -> its result.
    """
    width = 2 * _MARGIN + len(found) * (_PANEL + _GAP) - _GAP
    said = [*textwrap.wrap(sentence, int((width - 2 * _MARGIN) / _LETTER)), under]
    top = _HEAD + _LINE * len(said)
    lefts = [_MARGIN + n * (_PANEL + _GAP) for n in range(len(found))]
    columns = [_column(left, top, *one) for left, one in zip(lefts, found.items(), strict=True)]
    height = max(bottom for _, bottom in columns) + _MARGIN - 12
    parts = [part for parts, _ in columns for part in parts]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(title)}: {escape(sentence)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="10"/>',
            _text(_MARGIN, 34, title, "title"),
            *(_text(_MARGIN, 54 + _LINE * n, line, "soft") for n, line in enumerate(said)),
            *parts,
            "</svg>\n",
        ]
    )


def _column(left: float, top: float, server: str, result: Result) -> tuple[list[str], float]:
    """All panels of a server, and where they end."""
    parts = [_text(left, top, server, "panel soft")]
    top += 20
    for curves in result.curves:
        parts += _curves(left, top, curves)
        top += _CURVES_HEIGHT + _FOOT + 44
    for group in result.groups:
        for column in group.columns:
            if column.compared:
                parts += _bars(left, top, group, column)
                top += 22 + _BAR * len(group.runs) + 20
    return parts, top


def _bars(left: float, top: float, group: Group, column: Column) -> list[str]:
    found = {arm: group.values(arm, column.figure) for arm in group.runs}
    most = max((one.high for one in found.values() if one), default=0.0) or 1.0
    begin, room = left + _LABEL, _PANEL - _LABEL - _VALUE
    parts = [_text(left, top + 10, f"{group.title}: {column.heading}", "panel")]
    for n, (arm, one) in enumerate(found.items()):
        y = top + 22 + n * _BAR
        parts.append(_text(begin - 8, y + 14, arm, "end"))
        if one is None:
            continue
        kind = "base" if arm == group.base else "ours" if arm.startswith(_OURS) else "other"
        end, low, high = (begin + room * max(value, 0.0) / most for value in one)
        parts.append(f'<rect class="{kind}" x="{begin:.1f}" y="{y:.1f}" width="{end - begin:.1f}" height="18" rx="2"/>')
        if high > low:
            parts += [_line(low, y + 9, high, y + 9, "whisker")]
            parts += [_line(x, y + 5, x, y + 13, "whisker") for x in (low, high)]
        ratio = group.ratio(arm, column.figure)
        value = f"{one.median:,.{column.digits}f}" + (f"  \N{MULTIPLICATION SIGN} {ratio.median:.2f}" if ratio else "")
        parts.append(_text(max(end, high) + 8, y + 14, value, ""))
    return parts


def _curves(left: float, top: float, curves: Curves) -> list[str]:
    points = [point for series in curves.series.values() for point in series]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    scale = math.log10 if curves.log_x else float
    least_x, most_x = scale(min(xs)), scale(max(xs))
    step = _step(max(ys))
    most_y = step * math.ceil(max(ys) * 1.02 / step)
    begin, end = left + _AXIS, left + _PANEL - _KEY
    upper, lower = top + 24, top + 24 + _CURVES_HEIGHT

    def x_of(value: float) -> float:
        return begin + (end - begin) * (scale(value) - least_x) / ((most_x - least_x) or 1.0)

    def y_of(value: float) -> float:
        return lower - (lower - upper) * max(value, 0.0) / most_y

    parts = [_text(left, top + 10, curves.title, "panel")]
    for n in range(round(most_y / step) + 1):
        y = y_of(n * step)
        parts += [_line(begin, y, end, y, "grid"), _text(begin - 8, y + 4, f"{n * step:g}", "soft end")]
    ticks = sorted(set(xs)) if curves.log_x else [n * _step(max(xs)) for n in range(int(max(xs) / _step(max(xs))) + 1)]
    for value in ticks:
        parts += [
            _line(x_of(value), lower, x_of(value), lower + 4, "axis"),
            _text(x_of(value), lower + 17, f"{value:,.0f}" if value >= 10 else f"{value:g}", "soft middle"),
        ]
    parts += [_line(begin, lower, end, lower, "axis"), _text((begin + end) / 2, lower + 34, curves.x, "soft middle")]
    names = sorted(curves.series, key=lambda name: -curves.series[name][-1][1])
    colours = dict(zip(curves.series, _COLOURS * (len(curves.series) // len(_COLOURS) + 1), strict=False))
    highest = -math.inf
    for name in names:
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in curves.series[name])
        parts.append(f'<polyline class="line" stroke="{colours[name]}" points="{path}"/>')
        highest = max(y_of(curves.series[name][-1][1]) + 4, highest + 15)
        parts.append(f'<text x="{end + 8:.1f}" y="{highest:.1f}" style="fill: {colours[name]}">{escape(name)}</text>')
    return parts


def _step(most: float) -> float:
    """A round distance for about five ticks up to here."""
    rough = (most or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
