"""
A Maildir to deliver into, and to count from.

`mailbox.Maildir` waits for the disk with each mail. On a slow disk the demo would show the disk, so this one does
not: its mails outlive the demo, not a power cut. Delivery is otherwise as in maildir(5), and any mail reader opens
the folder.
"""

from __future__ import annotations

import itertools
import os
import time
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import NamedTuple

from boundq.demo.render import id_of

__all__ = ["Mail", "Maildir"]


class Mail(NamedTuple):
    """A delivered mail: its message's id, and when it came, in Unix seconds."""

    id: str
    at: float


class Maildir:
    """
    Args:
        folder: Made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = itertools.count()
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def deliver(self, mail: EmailMessage) -> None:
        """Write one mail; a reader sees it whole or not at all. Threads may share this."""
        name = f"{time.time_ns()}.P{os.getpid()}Q{next(self._names)}.demo"
        written = self.folder / "tmp" / name
        with written.open("xb") as file:
            file.write(mail.as_bytes())
        written.rename(self.folder / "new" / name)

    def read(self) -> list[Mail]:
        """All delivered mails, the oldest first, from their files."""
        parser = BytesHeaderParser()
        mails = []
        for entry in os.scandir(self.folder / "new"):
            with open(entry.path, "rb") as file:
                mails.append(Mail(id_of(str(parser.parse(file)["Message-ID"])), entry.stat().st_mtime))
        return sorted(mails, key=lambda mail: mail.at)
