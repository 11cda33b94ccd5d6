"""`boundq top` without a terminal: what keys and news do to it, and that its picture is as large as the screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.screen import Screen

from boundq import DataError, Limits
from boundq import Server as Boundq
from boundq.cli._terminal import split
from boundq.cli._top_model import Model, Wish
from boundq.cli._top_poll import Done, Found, Lost
from boundq.cli._top_view import View
from boundq.cli._warnings import Memory, number
from boundq.cli._watch import Seen, Watch
from tests.unit._stats import stats


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def model(clock: Clock) -> Model:
    return Model(Watch(Boundq("redis://127.0.0.1:1/0")), 2.0, clock)


def seen(*queues: Any, **memory: Any) -> Seen:
    return Seen({one.name: one for one in queues}, {}, Memory(1, 0, "noeviction", known=True, **memory), 1e9)


def press(model: Model, *keys: str) -> Wish | None:
    return [None, *(model.press(key) for key in keys)][-1]


def picture(model: Model, width: int, height: int, *, unicode: bool = True) -> list[str]:
    """The lines that a screen of this size would show."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False
    )
    console.print(Screen(View(unicode=unicode).draw(model, width, height)), end="")
    return out.getvalue().replace("\r", "").split("\n")


def test_keys_of_a_terminal() -> None:
    """Arrows in both spellings, several keys at once; a key that is not known is nothing, and no letters of it."""
    assert split(b"\x1b[A\x1bOBq") == ["up", "down", "q"]
    assert split(b"\r \x1b") == ["enter", "space", "escape"]
    assert split(b"\x1b[15~\x1b[1;5Cp") == ["p"]
    assert split(b"\xc3\xa9\x00\x80y") == ["y"]
    assert split(b"\x1b[") == []


def test_a_wish_is_about_the_queue_that_was_asked_for(model: Model) -> None:
    """The list may move between question and answer; the answer is for the queue in the question."""
    model.hear(seen(stats("ada", jobs=50), stats("bob", jobs=10)))
    assert model.selected == "ada"
    assert press(model, "p") is None
    model.hear(seen(stats("ada", jobs=50, at=1001.0), stats("bob", jobs=90, at=1001.0)))
    assert model.names == ["bob", "ada"]
    assert press(model, "y") == Wish("ada", "pause")
    assert press(model, "p", "down") is None
    assert model.wish is None


def test_a_wish_goes_with_its_queue(model: Model) -> None:
    """A queue that is gone is not asked about any more."""
    model.hear(seen(stats("ada", jobs=50), stats("bob")))
    press(model, "s")
    model.hear(seen(stats("bob", at=1001.0)))
    assert (model.wish, model.selected) == (None, "bob")
    assert press(model, "y") is None


def test_what_is_paused_is_resumed(model: Model) -> None:
    """The same key undoes it."""
    model.hear(seen(stats("ada", paused_since=1.0, sealed_since=1.0)))
    assert press(model, "p", "y") == Wish("ada", "resume")
    assert press(model, "s", "y") == Wish("ada", "unseal")


def test_late_numbers_are_old_ones(model: Model, clock: Clock) -> None:
    """A look that fails, or does not come when it is due, makes the numbers old; nothing is done to a queue then."""
    assert not model.stale
    model.hear(seen(stats("ada")))
    clock.now += 3.0
    assert not model.stale
    clock.now += 1.0
    assert model.stale
    assert press(model, "p", "y") is None
    assert "old" in model.message
    model.hear(seen(stats("ada", at=1001.0)))
    assert not model.stale
    model.hear(Lost("gone"))
    assert model.stale


def test_messages_go_away(model: Model, clock: Clock) -> None:
    """What became of a wish is shown for a while."""
    model.hear(Done("pause ada: done", failed=False))
    assert model.message == "pause ada: done"
    clock.now += 60
    assert model.message == ""


def test_nothing_to_choose(model: Model) -> None:
    """Every key is harmless on an empty screen, and before the first answer."""
    for news in (None, seen()):
        if news is not None:
            model.hear(news)
        for key in ("up", "end", "enter", "p", "y", "s", "n", "R", "<", "escape", "?", "z", "page down"):
            assert model.press(key) is None
        assert not model.inspecting


WILD = {
    "jobs": 10**12,
    "bytes": 10**15,
    "ready": -5,
    "active": 10**9,
    "dead": 10**10,
    "oldest_age": 10.0**9,
    "paused_since": 10.0**300,
    "paused_by": "\x1b]52;c;aGk=\x07\u202e" + "漢字" * 100,
    "sealed_since": 1.0,
    "sealed_by": "\n\r\x9b2J" * 50,
    "admitted": 10**12,
    "deliveries": 5,
}


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (200, 50), (132, 43), (40, 10), (20, 6), (10, 3), (1, 1), (300, 100)]
)
def test_the_picture_fits(model: Model, width: int, height: int, *, unicode: bool) -> None:
    """Whatever the queues say of themselves, in each mode: no line too long, none too many, nothing that steers."""
    wild = [stats("x" * 64, limits=Limits(max_jobs=1), **WILD), *(stats(f"q{n}", jobs=n % 100) for n in range(120))]
    modes: list[tuple[str, ...]] = [(), ("enter",), ("escape", "?"), ("?", "p"), ("n", "end")]
    for news in (Found(3, all=False), seen(*wild), Lost("\x1b[2J\u202e" * 30), Found(121, all=True)):
        model.hear(news)
        for keys in modes:
            press(model, *keys)
            lines = picture(model, width, height, unicode=unicode)
            assert len(lines) == height
            assert all(cell_len(line) <= width for line in lines)
            assert not any(ord(char) < 32 or char in "\x7f\x9b\u202e" for line in lines for char in line)


def test_what_cannot_be_read_is_named(model: Model) -> None:
    """A queue that cannot be read has a line, below those that can."""
    look = seen(stats("ada"))
    look.unreadable["bob"] = DataError("bob", "state", "undecodable", "\x1b[2J")
    model.hear(look)
    text = "\n".join(picture(model, 120, 30))
    assert "! bob: " in text
    assert r"\x1b[2J" in text


def test_the_chosen_one_is_in_sight(model: Model) -> None:
    """However long the list and wherever the cursor: the row is on the screen, and what is left below is counted."""
    model.hear(seen(*(stats(f"q{number:03}") for number in range(100))))
    press(model, "n")
    for key in ("end", "page up", "page up", "up", "home", "page down", "down"):
        lines = picture(model, 80, 24)
        press(model, key)
        lines = picture(model, 80, 24)
        assert any(line.startswith("▶") and model.selected in line for line in lines)
    press(model, "home")
    assert any("more below" in line for line in picture(model, 80, 24))


def test_sparklines() -> None:
    """As high as the highest is the highest mark; no answer leaves a hole; the last values are the ones shown."""
    view = View(unicode=True)
    assert view.sparkline([0, 4, None, 8], 6) == "  ▁▅ █"
    assert view.sparkline([0.0, 0.0], 2) == "▁▁"
    assert view.sparkline([], 3) == "   "
    assert view.sparkline([9, 9, 1, 2], 2) == "▅█"
    assert View(unicode=False).sparkline([0, 8], 2) == ".@"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (0.314, "0.31"), (4.25, "4.2"), (7.0, "7"), (12.6, "13"), (9999, "9999"), (12_345, "12.3k")),
        *((123_456, "123k"), (4_200_000, "4.2M"), (1.5e12, "1500G")),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    """Six characters at most, up to any number of jobs that fits a server."""
    assert number(value) == text
    assert len(text) <= 6
