"""``boundq top`` through a pseudo-terminal: what a person sees, presses and gets back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boundq import Limits, Queue
from tests._servers import Server, wait_until
from tests.cli._screen import Screen
from tests.conftest import FreshServer

SOON = 20.0


@pytest.fixture
def shop(fresh_server: FreshServer) -> Iterator[Server]:
    """A server with three queues: ada holds 20 of 100 jobs, bob 60, eve 40. What was written survives a restart."""
    server = fresh_server(appendonly="yes")
    for name, jobs in (("ada", 20), ("bob", 60), ("eve", 40)):
        Queue(name, server.url, max_jobs=100).enqueue_many([b"x"] * jobs)
    return server


def top(server: Server, *words: str, columns: int = 80, lines: int = 24, **environment: str | None) -> Screen:
    given = {"BOUNDQ_URL": server.url, **environment}
    return Screen("top", "--interval", "0.2", *words, columns=columns, lines=lines, environment=given)


def order(screen: Screen) -> list[str]:
    """The queues in the order in which they stand in the list."""
    rows = [line.split() for line in screen.lines[3:15]]
    return [word for row in rows for word in row if word in ("ada", "bob", "eve")]


def test_shows_the_queues_fullest_first(shop: Server) -> None:
    """On 80 by 24: the fill of each, the chosen one below with its sparklines, the keys at the bottom."""
    with top(shop) as screen:
        screen.wait(lambda screen: order(screen) == ["bob", "eve", "ada"], "three queues, the fullest first")
        screen.shows("bob: 60 of 100 jobs", "q quit", "forecast", "maxmemory is not set")
        assert re.search(r"bob .* 60% +60 ", screen.line(" 60%"))
        screen.wait(lambda screen: "█" in screen.line("60 held"), "a sparkline")
        screen.press("q")
        assert screen.ends() == 0
        assert screen.restored


def test_sort_keys(shop: Server) -> None:
    """A column's key sorts by it, once more turns it round; so do the arrows and R."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        for keys, expected in (
            ("n", ["ada", "bob", "eve"]),
            ("n", ["eve", "bob", "ada"]),
            ("j", ["bob", "eve", "ada"]),
            ("R", ["ada", "eve", "bob"]),
            ("<", ["bob", "eve", "ada"]),
            ("\x1b[D", ["ada", "bob", "eve"]),
        ):
            screen.press(keys)
            screen.wait(lambda screen, expected=expected: order(screen) == expected, f"{expected} after {keys!r}")
        assert "queue▲" in screen.lines[2]


def test_the_list_follows_the_queues(shop: Server) -> None:
    """Numbers are live, and the chosen one stays chosen wherever it moves to."""
    ada = Queue("ada", shop.url, max_jobs=100)
    with top(shop, "ada", "bob", "eve") as screen:
        screen.shows("bob: 60 of 100")
        screen.press("\x1b[F")
        screen.shows("ada: 20 of 100")
        ada.enqueue_many([b"x"] * 75)
        screen.shows("ada: 95 of 100", "95% full")
        screen.wait(lambda screen: order(screen) == ["ada", "bob", "eve"], "it is the fullest now")
        assert screen.line("95%").startswith("▶")


def test_queues_come_and_go(shop: Server) -> None:
    """Space looks for queues too, and not only in half a minute; one that is deleted is not shown any more."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100", "3 queues")
        Queue("zoe", shop.url, max_jobs=100).enqueue_many([b"x"] * 90)
        screen.press(" ")
        screen.shows("zoe ", "4 queues")
        shop.cli("DEL", "boundq:{bob}:state", "boundq:{bob}:jobs")
        screen.shows("3 queues", "zoe: 90 of 100")


def test_pause_and_seal_ask_first(shop: Server) -> None:
    """Any key but y leaves the queue alone; y does it, and who did it is kept with the queue."""
    bob = Queue("bob", shop.url, max_jobs=100)
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        screen.press("p")
        screen.shows("pause bob?")
        screen.press("n")
        screen.shows("not done")
        assert bob.stats().paused_since is None
        screen.press("py")
        wait_until(lambda: bob.stats().paused_since, "the queue is paused", SOON)
        assert "boundq top" in bob.stats().paused_by
        screen.shows("▶P", "paused since")
        screen.press("s")
        screen.shows("seal bob?")
        screen.press("y")
        screen.shows("▶PS")
        assert bob.stats().sealed_since
        screen.press("p")
        screen.shows("resume bob?")
        screen.press("y")
        screen.shows("▶ S")
        wait_until(lambda: bob.stats().paused_since is None, "the queue is resumed", SOON)


def test_inspect(shop: Server) -> None:
    """Enter shows all of a queue's numbers, escape goes back; ? lists the keys."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        screen.press("\r")
        screen.shows("queue bob", "60 admitted = 0 acked", "deliveries", "rates")
        screen.press("\x1b")
        screen.shows("bob: 60 of 100 jobs", "q quit")
        screen.press("?")
        screen.shows("sort by oldest")


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50), (40, 10), (20, 5)])
def test_resize(shop: Server, columns: int, lines: int) -> None:
    """The picture is as large as the window, at the next moment; what does not fit is left out."""
    with top(shop, columns=132, lines=30) as screen:
        screen.shows("bob: 60 of 100")
        screen.resize(columns, lines)
        screen.wait(lambda screen: screen.lines[-1].startswith("q quit"[:columns]), "the keys on the last line")
        screen.wait(lambda screen: screen.text.count("q quit") == 1, "one picture, not two")
        screen.shows("boundq top", "bob")
        assert ("ref/s" in screen.text) == (columns == 200)
        screen.press("q")
        assert screen.ends() == 0
        assert screen.restored


def test_hostile_names_cannot_steer_the_terminal(shop: Server) -> None:
    """Who paused a queue is other people's text; it comes out as escapes, in the list and in the inspection."""
    Queue("bob", shop.url, max_jobs=100).pause("\x1b]52;c;aGk=\x07\x9b31m\u202eevil\r\nnext\x1b[2J")
    with top(shop, columns=200) as screen:
        screen.shows("evil", r"\x1b]52", r"\u202e")
        screen.press("\r")
        screen.shows("ledger", "evil", r"\x1b]52")
        screen.press("q")
        assert screen.ends() == 0
        assert not re.search(rb"\x1b\]|\x07|\xc2\x9b|\x1b\[2J", screen.raw)
        assert "\u202e".encode() not in screen.raw


def test_a_server_that_dies_and_comes_back(shop: Server) -> None:
    """Without an answer it says so, shows the numbers as old ones, does nothing to a queue, and goes on later."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        clock = re.compile(r"\d\d:\d\d:\d\d")
        screen.wait(lambda screen: clock.search(screen.lines[0]), "the time of the numbers")
        shop.kill()
        screen.shows("NO ANSWER: OLD NUMBERS, of", "unknown: no answer")
        assert not clock.search(screen.lines[0])
        assert screen.line(" 60%").endswith("?")
        screen.press("p")
        screen.shows("not while the numbers are old")
        shop.start()
        screen.wait(lambda screen: "NO ANSWER" not in screen.text, "an answer again")
        screen.shows("bob: 60 of 100")
        assert clock.search(screen.lines[0])


def test_a_mute_server_does_not_hold_the_keys(shop: Server) -> None:
    """Its silence is seen, keys are heard, and q ends the program at once."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        with shop.paused():
            screen.shows("NO ANSWER")
            screen.press("n")
            screen.wait(lambda screen: order(screen) == ["ada", "bob", "eve"], "sorted by name")
            screen.press("q")
            assert screen.ends() == 0
            assert screen.restored


def test_no_server_at_all(tmp_path: Path) -> None:
    """Started before the server is: it says what is wrong, without the password, and waits."""
    url = f"unix://:s3cr3t-w0rd@{tmp_path}/none"
    with Screen("top", environment={"BOUNDQ_URL": url}, columns=200) as screen:
        screen.shows("NO ANSWER for")
        screen.press("q")
        assert screen.ends() == 0
        assert screen.restored
        assert b"s3cr3t" not in screen.raw


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)], ids=["TERM", "HUP", "INT"]
)
def test_signals_restore_the_terminal(shop: Server, number: signal.Signals, code: int) -> None:
    """A signal ends it, with the terminal as it was."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        assert not screen.restored
        screen.process.send_signal(number)
        screen.process.send_signal(number)
        assert screen.ends() == code
        assert screen.restored


def test_ctrl_c_and_ctrl_z(shop: Server) -> None:
    """Ctrl-Z gives the terminal back until the program goes on; Ctrl-C ends it, with 0."""
    with top(shop) as screen:
        screen.shows("bob: 60 of 100")
        screen.press("\x1a")
        _, status = os.waitpid(screen.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert screen.text
        assert screen.restored
        os.kill(screen.process.pid, signal.SIGCONT)
        screen.wait(lambda screen: screen.text and not screen.restored, "it has the terminal again")
        screen.shows("bob: 60 of 100")
        screen.press("\x03")
        assert screen.ends() == 0
        assert screen.restored


BROKEN = """
import sys
from boundq.cli import main
from boundq.cli._top_view import View
from boundq.cli._watch import Watch

right, looks = {name}, []

def wrong(self, *args):
    looks.append(1)
    if len(looks) > 5:
        raise RuntimeError("a mistake of ours")
    return right(self, *args)

{name} = wrong
sys.argv = ["boundq", "top", "--interval", "0.2"]
main()
"""


@pytest.mark.parametrize("name", ["View.draw", "Watch.fetch"])
def test_a_mistake_restores_the_terminal(shop: Server, name: str) -> None:
    """An exception out of the program itself, in any thread, is shown on the terminal as it was before."""
    program = (sys.executable, "-c", BROKEN.format(name=name))
    with Screen(program=program, environment={"BOUNDQ_URL": shop.url}) as screen:
        assert screen.ends() == 1
        assert b"\x1b[?1049h" in screen.raw
        assert screen.restored
        assert b"a mistake of ours" in screen.raw[screen.raw.rfind(b"\x1b[?1049l") :]


def test_no_color(shop: Server) -> None:
    """With NO_COLOR there is none; without it there is."""
    colour = re.compile(rb"\x1b\[(?:\d+;)*(?:3|4|9|10)[0-7](?:;\d+)*m")
    with top(shop, NO_COLOR="1") as plain, top(shop) as coloured:
        for screen in (plain, coloured):
            screen.shows("bob: 60 of 100")
        assert not colour.search(plain.raw)
        assert colour.search(coloured.raw)


def test_a_terminal_without_unicode(shop: Server) -> None:
    """Bars and marks are ASCII there."""
    with top(shop, PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONCOERCECLOCALE="0") as screen:
        screen.shows("bob: 60 of 100", "###..")
        assert screen.raw.isascii()


def run(server: Server, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "boundq", "top", *words],
        env={**os.environ, "BOUNDQ_URL": server.url, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_json_needs_no_terminal(shop: Server) -> None:
    """One line for each look; rates come with the second."""
    done = run(shop, "--json", "--count", "3", "--interval", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(looks) == 3
    assert [one["name"] for one in looks[0]["queues"]] == ["ada", "bob", "eve"]
    assert [look["queues"][1]["jobs"] for look in looks] == [60, 60, 60]
    assert looks[0]["queues"][0]["rates"] is None
    assert looks[2]["queues"][0]["rates"]["arrived"]["value"] == 0
    assert looks[2]["warnings"][0]["code"] == "maxmemory_unset"


def test_a_pipe_gets_plain_text(shop: Server) -> None:
    """Without a terminal and without --json: what ``ls --watch`` prints."""
    done = run(shop, "--count", "2", "--interval", "0.1", "bob")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("bob ") == 2
    assert "\x1b" not in done.stdout


def test_a_dumb_terminal_gets_plain_text(shop: Server) -> None:
    """One that cannot move its cursor is not drawn upon; Ctrl-C ends it."""
    with top(shop, TERM="dumb") as screen:
        screen.shows("bob")
        screen.press("\x03")
        assert screen.ends() == 0
        assert b"\x1b[?1049h" not in screen.raw


def test_a_look_is_the_same_commands_however_many_jobs(shop: Server) -> None:
    """What the server is asked depends on the number of looks and queues only."""

    def asked() -> int:
        shop.cli("CONFIG", "RESETSTAT")
        done = run(shop, "--json", "--count", "3", "--interval", "0.1", "ada", "bob")
        assert done.returncode == 0
        return sum(
            int(re.match(r"calls=(\d+)", value)[1])
            for name, value in shop.info("commandstats").items()
            if name in ("cmdstat_evalsha", "cmdstat_scan") or (name == "cmdstat_info" and "calls" in value)
        )

    asked()  # the script is known from now on
    few = asked()
    for name in ("ada", "bob"):
        queue = Queue(name, shop.url, max_jobs=100)
        queue.configure(Limits(max_jobs=100_000))
        assert all(result.ok for result in queue.enqueue_many([b"x"] * 20_000))
    assert asked() == few
    assert few <= 3 * (2 + 1) + 1  # our own look at the statistics may be among them


@pytest.mark.parametrize("words", [("--interval", "0"), ("--count", "0"), ("--interval", "x")])
def test_bad_options(shop: Server, words: tuple[str, str]) -> None:
    """Exit code 2, and what would be right."""
    done = run(shop, *words)
    assert done.returncode == 2
    assert words[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_answer_json_says_so(shop: Server) -> None:
    """A look that failed is a line with ``error``, and no numbers."""
    shop.kill()
    done = run(shop, "--json", "--count", "2", "--interval", "0.1")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(line) for line in lines] == [["at", "error"]] * 2
