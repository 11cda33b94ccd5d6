"""The loop of `boundq top` on a screen: news and keys in, a picture out."""

from __future__ import annotations

import queue
import signal
import sys
from typing import Any

from boundq.cli._terminal import Ended, Terminal
from boundq.cli._top_model import Model
from boundq.cli._top_poll import Poller
from boundq.cli._top_view import View
from boundq.cli._watch import Watch

# Ages are drawn anew so often, in seconds, also when nothing comes.
REDRAW_SECONDS = 0.5


def run(watch: Watch, console: Any, interval: float) -> int:
    """Until q or a signal; the exit code."""
    model = Model(watch, interval)
    view = View(unicode="utf" in (console.encoding or "").lower())
    # What the encoding cannot show must not end the program.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a terminal's
    try:
        with Terminal(console) as terminal:
            poller = Poller(watch, interval, terminal.wake)
            poller.start()
            while not model.quit:
                _hear(poller, model)
                terminal.show(view.draw(model, *console.size))
                for key in terminal.keys(REDRAW_SECONDS):
                    if key == "space":
                        poller.now()
                    elif wish := model.press(key):
                        poller.switch(wish.name, wish.switch)
    except Ended as ended:
        return 0 if ended.number == signal.SIGINT else 128 + ended.number
    return 0


def _hear(poller: Poller, model: Model) -> None:
    while True:
        try:
            model.hear(poller.news.get_nowait())
        except queue.Empty:
            return
