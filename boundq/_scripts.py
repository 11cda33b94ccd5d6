"""The Lua scripts: found, put together from their pieces, and hashed, once per process."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

_INCLUDE = re.compile(r"^([ ]*)-- @include (lib/[a-z_]+)\n", re.MULTILINE)


class Script(NamedTuple):
    """A script as the server gets it; ``plain`` lacks the ``#!lua`` line, which fakeredis cannot read."""

    name: str
    text: str
    sha: bytes
    plain: str
    plain_sha: bytes


def _folder() -> Path:
    # The wheel carries lua/ as boundq/_lua. An editable install keeps a stale copy of that elsewhere, never here.
    here = Path(__file__).resolve().parent
    packaged = here / "_lua"
    return packaged if packaged.is_dir() else here.parent / "lua"


def source(name: str) -> str:
    """The script's text with every ``-- @include lib/x`` replaced by that file."""
    text = (_folder() / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: source(match[2]), text)


@cache
def load(name: str) -> Script:
    """The script of this name, e.g. ``"enqueue"``."""
    text = source(name)
    plain = text.split("\n", 1)[1] if text.startswith("#!") else text
    return Script(name, text, _sha(text), plain, _sha(plain))


@cache
def every() -> tuple[Script, ...]:
    """All scripts, by name."""
    return tuple(load(path.stem) for path in sorted(_folder().glob("*.lua")))


def _sha(text: str) -> bytes:
    # The hash is the server's name for a script (EVALSHA); nothing rests on it being hard to forge.
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
