"""
How a worker logs: lines for people, or one JSON object a line for machines.

Either way a line says which job it is about: the ids that a record carries, and those of the job that the logging
thread or task runs, whichever library logs. Payloads are never in it. Nothing in a line can steer a terminal or pass
for another line; passwords in URLs are masked; its size is bounded.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from typing import Any

import click

from boundq.cli._exit import exit_code
from boundq.cli._text import printable
from boundq.errors import BoundqError
from boundq.job_control import CURRENT

# Characters of a message, and of a traceback: its end says most.
MESSAGE, TRACEBACK = 4000, 16_000
IDS = ("queue", "job_id", "task", "attempt")

# Up to the last @ of a word: a password may have one in it, or a slash. Bounded, so that no hostile line costs time.
_SECRET = re.compile(r"(://[^\s/:]{0,256}:)\S{1,1000}@|([?&][a-z_]*password=)[^\s&'\"]+")


def set_up(style: str, *, quiet: bool) -> None:
    """
    Log to standard error, everything that this process logs.

    Args:
        style: ``text`` or ``json``; with the latter, warnings and what nobody caught are logged too.
        quiet: Warnings and errors only.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    if style == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def is_json() -> bool:
    """Whether `set_up` chose it."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


class LoggedErrors(click.Command):
    """A command whose errors are log records too, where the log is JSON; exit codes stay what they are."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.UsageError, BoundqError) as error:
            if not is_json():
                raise
            text = error.format_message() if isinstance(error, click.UsageError) else str(error)
            logging.getLogger("boundq.worker").critical("%s", text)
            sys.exit(error.exit_code if isinstance(error, click.UsageError) else exit_code(error))


def _log_uncaught(kind: Any, error: Any, trace: Any) -> None:
    logging.getLogger("boundq").critical("not caught: %s", kind.__name__, exc_info=(kind, error, trace))


class JsonFormatter(logging.Formatter):
    """``time level logger message``, the ids that are known, ``exception``; ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _bounded(masked(_message(record)), MESSAGE),
            **ids_of(record),
            "pid": record.process,
        }
        if record.exc_info:
            trace = masked(self.formatException(record.exc_info))
            line["exception"] = trace if len(trace) <= TRACEBACK else "…" + trace[-TRACEBACK:]
        return json.dumps(line, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """``2026-05-01 12:00:00,000 WARNING boundq.worker: …``; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # A copy: other handlers, and their formatters, get the record as it was.
        ours = logging.makeLogRecord({**record.__dict__, "exc_text": None, "args": None})
        ours.msg = printable(masked(_message(record)), MESSAGE)
        known = ids_of(record)
        if "job_id" in known and known["job_id"] not in ours.msg:  # another library's line, out of a handler
            ours.msg += f" [queue {known['queue']}, job {known['job_id']}]"
        return super().format(ours)

    def formatException(self, ei: Any) -> str:
        lines = masked(super().formatException(ei))[-TRACEBACK:].splitlines()
        return "\n".join(printable(line) for line in lines)


def ids_of(record: logging.LogRecord) -> dict[str, Any]:
    """The ids that a record carries as ``extra``; of the job that runs here where it carries none."""
    found = {name: getattr(record, name) for name in IDS if isinstance(getattr(record, name, None), str | int)}
    job = CURRENT.get(None)
    if job is not None and "job_id" not in found:
        found |= {"queue": job.queue, "job_id": job.id, "task": job.task, "attempt": job.attempt}
    return {name: found[name] for name in IDS if name in found}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # arguments that do not fit, or whose text cannot be made: what there is of it
        return f"{record.msg} (arguments left out: {type(error).__name__})"


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def masked(text: str) -> str:
    """The text, with stars for the passwords of the URLs in it."""
    return _SECRET.sub(_stars, text) if "://" in text else text


def _stars(match: re.Match[str]) -> str:
    return f"{match[1]}***@" if match[1] else f"{match[2]}***"


def _utc(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
