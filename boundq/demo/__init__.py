"""
The incident, replayed: a flood fills a real server through an ordinary list queue, then meets boundq.

    acts.py       the acts, in order              plan.py      how long, how much
    load.py       producers, and what they were told
    listqueue.py  Act 1's queue                   bounded.py   that of Acts 2 and 3
    foreign.py    keys of somebody else's, up to maxmemory
    render.py     a message becomes a mail        maildir.py   where mails end up
    watch.py      samples of the server           record.py    what an act leaves behind
    stage.py      the display                     verdict.py   what it proves     picture.py   the SVG

`redis` is imported in ``listqueue.py`` and ``foreign.py``, and there only: they are what boundq is not. All else
uses what boundq offers to everybody.
"""

from __future__ import annotations

from boundq.demo.acts import play

__all__ = ["play"]
