"""Other people's bytes on their way to a terminal: nothing in them may steer it."""

from __future__ import annotations

import unicodedata

from boundq._sizes import duration, moment

# Controls (C0, C1, DEL), formats (bidi marks, zero widths), surrogates, private use, unassigned, line separators.
_STEERING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str | bytes, width: int | None = None) -> str:
    """The text with everything that could steer a terminal shown as an escape, cut to ``width`` characters."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if width is not None and len(text) > width:
        text = text[:width]
        cut = True
    else:
        cut = False
    if not (text.isascii() and text.isprintable()):
        text = "".join(_escape(one) if unicodedata.category(one) in _STEERING else one for one in text)
    if width is not None and (cut or len(text) > width):
        text = text[: max(width - 1, 0)] + "…"
    return text


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def when(at: float, seen: float) -> str:
    """A time, and how long ago or ahead it is."""
    away = at - seen
    return f"{moment(at)} ({f'in {duration(away)}' if away > 0 else f'{duration(-away)} ago'})"
