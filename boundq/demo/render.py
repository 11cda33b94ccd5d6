"""A message becomes a mail: the template and the record of its recipient, from ``examples/campaign``."""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from importlib import resources
from pathlib import Path
from string import Template

import msgspec

__all__ = ["Campaign", "Message", "id_of"]

_SENDER = Address("Larkfield Seeds", "letters", "larkfield.example")
_ID_DOMAIN = "demo.larkfield.example"


class Message(msgspec.Struct, frozen=True):
    """
    What goes through a queue.

    Args:
        id: Chosen by the producer; no two messages have the same.
        to: The recipient's address.
        subject, text: As the letter was when it was sent off, so that a later edit changes no mail.
    """

    id: str
    to: str
    subject: str
    text: str


class Campaign:
    """
    A letter, the template around it and those who get it.

    Args:
        folder: Holds ``news.txt``, ``mail.txt`` and ``recipients.json``; None: those that come with boundq.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or _folder()
        self.news = (folder / "news.txt").read_text(encoding="utf-8")
        self._template = Template((folder / "mail.txt").read_text(encoding="utf-8"))
        records = msgspec.json.decode((folder / "recipients.json").read_bytes(), type=list[dict[str, str]])
        self._records = {record["email"]: record for record in records}
        self._addresses = list(self._records)

    def letter(self, message_id: str, n: int) -> Message:
        """The letter to the n-th recipient, round and round: some 4 KiB."""
        return Message(message_id, self._address(n), "The ground is warm enough", self.news)

    def test_send(self, message_id: str, n: int) -> Message:
        """The same to one reader, as the author tries it out while writing."""
        return Message(message_id, self._address(n), "[test] The ground is warm enough", self.news)

    def render(self, message: Message) -> EmailMessage:
        """The mail, complete. Raises KeyError for an unknown recipient."""
        record = self._records[message.to]
        mail = EmailMessage()
        mail["From"] = _SENDER
        mail["To"] = Address(record["name"], addr_spec=record["email"])
        mail["Subject"] = f"{message.subject}, {record['first_name']}"
        mail["Date"] = formatdate(usegmt=True)
        mail["Message-ID"] = f"<{message.id}@{_ID_DOMAIN}>"
        mail.set_content(self._template.substitute(record, text=message.text))
        return mail

    def _address(self, n: int) -> str:
        return self._addresses[n % len(self._addresses)]


def id_of(message_id_header: str) -> str:
    """The message's id, out of the mail's ``Message-ID`` header."""
    return message_id_header.strip().removeprefix("<").partition("@")[0]


def _folder() -> Path:
    # As for the scripts: the wheel carries examples/ as boundq/_examples, a checkout has it beside the package.
    packaged = Path(str(resources.files("boundq") / "_examples" / "campaign"))
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "examples" / "campaign"
