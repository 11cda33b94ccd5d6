"""What the benches share: turns, pairs, tables, pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from bench._draw import draw
from bench._harness import Arm, Column, Curves, Figures, Group, Options, Result, Spread, in_turns, percentile, spread
from bench._markdown import tables
from bench._report import save, show


class Noted(Arm):
    """Notes what is done with it; each run finds the next of its figures."""

    def __init__(self, name: str, notes: list[str], *, broken: bool = False) -> None:
        super().__init__(name)
        self._notes, self._broken, self._runs = notes, broken, 0

    def set_up(self) -> None:
        self.stack.callback(self._notes.append, f"{self.name} down")
        if self._broken:
            raise OSError("no")
        self._notes.append(f"{self.name} up")

    def run(self) -> Figures:
        self._notes.append(self.name)
        self._runs += 1
        return {"run": float(self._runs)}


def test_turns() -> None:
    """Every arm runs once a round; the warm-up is thrown away; all are taken down, the last one first."""
    notes: list[str] = []
    found = in_turns([Noted("a", notes), Noted("b", notes)], 5, warm_up=2)
    assert [run["run"] for run in found["a"]] == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert list(found) == ["a", "b"]
    assert notes[:2] == ["a up", "b up"]
    assert notes[-2:] == ["b down", "a down"]
    rounds = notes[2:-2]
    assert [sorted(rounds[at : at + 2]) for at in range(0, 14, 2)] == [["a", "b"]] * 7


def test_set_up_fails() -> None:
    """An arm that cannot be set up is taken down all the same, and so are those before it; none runs."""
    notes: list[str] = []
    with pytest.raises(OSError, match="no"):
        in_turns([Noted("a", notes), Noted("b", notes, broken=True)], 5)
    assert notes == ["a up", "b down", "a down"]


def test_ratio_of_pairs() -> None:
    """A ratio is the median of the rounds' ratios: a round that was slow for both does not count as a difference."""
    runs = {"base": [{"t": 1.0}, {"t": 10.0}, {"t": 2.0}], "ours": [{"t": 2.0}, {"t": 20.0}, {"t": 5.0}]}
    group = Group("work", runs, "base", [Column("t", "s", compared=True)])
    assert group.ratio("ours", "t") == Spread(2.0, 2.0, 2.25)
    assert group.ratio("base", "t") is None
    assert group.ratio("ours", "missing") is None
    assert group.values("ours", "t") == Spread(5.0, 3.5, 12.5)
    assert group.values("ours", "missing") is None


def test_spread() -> None:
    """Median and quartiles; of a single run all are the same."""
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(n) for n in range(100)], 50) == 50.0


RESULT = Result(
    [
        Group(
            "a < b",
            {"base & co": [{"t": 4.0, "cpu": 1.0}], "boundq": [{"t": 2.0}]},
            "base & co",
            [Column("t", "us", compared=True, digits=1), Column("cpu", "cpu")],
        )
    ],
    [Curves("over time", "s", {"boundq": [(1.0, 0.0), (1000.0, 3.0)]}, log_x=True)],
    facts={"rate": 3.0},
    notes=["as seen"],
)


def test_table() -> None:
    """The ratio stands behind the figure; a figure that an arm does not have is a dash."""
    file = StringIO()
    show(Console(width=200, file=file), "valkey-9.1", RESULT)
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert ["us", "x", "base", "cpu"] in lines
    assert ["base", "&", "co", "4.0", "base", "1"] in lines
    assert ["boundq", "2.0", "0.50", "-"] in lines
    assert ["as", "seen"] in lines


def test_json(tmp_path: Path) -> None:
    """The file has each run, median and quartiles, the ratio, and what they were taken under."""
    path = save(tmp_path / "new", "some", Options(), {"valkey-9.1": ("9.1.2", RESULT)})
    data = json.loads(path.read_text())
    assert data["bench"] == "some"
    assert {"commit", "python", "packages", "cpus", "load", "system", "when"} <= set(data)
    server = data["servers"]["valkey-9.1"]
    assert server["version"] == "9.1.2"
    assert server["facts"] == {"rate": 3.0}
    [group] = server["groups"]
    ratio = {"median": 0.5, "low": 0.5, "high": 0.5}
    assert group["arms"]["boundq"]["t"] == {"median": 2.0, "low": 2.0, "high": 2.0, "runs": [2.0], "x_base": ratio}


def test_markdown(tmp_path: Path) -> None:
    """For README.md: a row for each arm, with the ratio and its quartiles behind the figures that are compared."""
    save(tmp_path, "some", Options(), {"valkey-9.1": ("9.1.2", RESULT), "redis-7.0": ("7.0.15", RESULT)})
    lines = list(tables(tmp_path))
    assert "### some" in lines
    assert "| | valkey-9.1: us | redis-7.0: us |" in lines
    assert "| base & co | 4.0 | 4.0 |" in lines
    assert "| boundq | 2.0, × 0.50 (0.50–0.50) | 2.0, × 0.50 (0.50–0.50) |" in lines


def test_markdown_of_some(tmp_path: Path) -> None:
    """An arm that ran on one of the servers only has a row all the same."""
    arms = RESULT.groups[0].runs
    less = Result([replace(RESULT.groups[0], runs={"base & co": arms["base & co"]})])
    for first, second in ((RESULT, less), (less, RESULT)):
        save(tmp_path, "some", Options(), {"valkey-9.1": ("9.1.2", first), "redis-7.0": ("7.0.15", second)})
        [row] = [line for line in tables(tmp_path) if line.startswith("| boundq |")]
        assert sorted(row.strip("| ").split(" | ")) == ["-", "2.0, × 0.50 (0.50–0.50)", "boundq"]


def test_picture() -> None:
    """Bars are as long as their figures, in proportion; texts are escaped; a curve stays within its axes."""
    root = ElementTree.fromstring(draw("T & U", "says it", "under this", {"valkey 9.1.2": RESULT, "redis": RESULT}))
    svg = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{svg}text")]
    assert {"T & U", "says it", "under this", "valkey 9.1.2", "redis", "a < b: us", "base & co"} <= set(texts)
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{svg}rect") if "card" not in bar.attrib["class"]]
    assert len(widths) == 4
    assert widths[0] == pytest.approx(2 * widths[1])
    lines = [line.attrib["points"].split() for line in root.iter(f"{svg}polyline")]
    assert len(lines) == 2
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for points in lines:
        for point in points:
            x, y = map(float, point.split(","))
            assert 0 < x < width
            assert 0 < y < height
