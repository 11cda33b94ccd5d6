"""``boundq enqueue``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import click

from boundq import Queue
from boundq._job import Prepared
from boundq.cli._exit import FULL, exit_code
from boundq.cli._shared import console, json_option, print_json, queue_argument, server_options
from boundq.errors import BoundqError, ConfigError
from boundq.model import PRIORITIES

# Jobs between two updates of the bar.
_STEP = 5000


@click.command("enqueue")
@queue_argument
@click.argument("task")
@click.argument("arguments", nargs=-1)
@click.option(
    "--from", "source", type=click.File("rb"), help="NDJSON: a line is a job's arguments; - is standard input."
)
@click.option("--priority", type=click.Choice(PRIORITIES), help="Default: normal.")
@click.option("--delay", type=float, metavar="SECONDS", help="May run after that.")
@click.option("--expires", type=float, metavar="SECONDS", help="Is not started any more after that.")
@click.option("--unique", metavar="KEY", help="Not again while a job with this key is held.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait for room that long, when the queue is full.")
@click.option("--create/--no-create", default=False, help="Create the queue, with default limits, if there is none.")
@server_options
@json_option
def command(
    queue: str,
    task: str,
    arguments: tuple[str, ...],
    source: BinaryIO | None,
    url: str | None,
    as_json: bool,
    create: bool,
    **options: Any,
) -> None:
    """
    Add one job with ARGUMENTS, or a job for each line of a file.

    An argument that is JSON is taken as such, else as text; name=value is a keyword argument. A line of a file is a
    JSON array (arguments) or object (keyword arguments).

    Exit code 75: the queue is full (or sealed), the job was not stored.

    \b
    Examples:
      boundq enqueue emails send 42 to=ada@example.org
      boundq enqueue emails send --from jobs.ndjson
      generate | boundq enqueue emails send --from - --priority low
    """
    target = Queue(queue, url, create=create)
    given = {name: value for name, value in options.items() if value is not None}
    if source is None:
        args, kwargs = _arguments(arguments)
        receipt = target.named(task, **given).enqueue(*args, **kwargs)
        if as_json:
            print_json({"id": receipt.id, "duplicate": receipt.duplicate, "jobs": receipt.jobs, "bytes": receipt.bytes})
        else:
            click.echo(f"job {receipt.id}{' (duplicate: it was there)' if receipt.duplicate else ''}")
        return
    if arguments:
        raise click.UsageError("give arguments or --from, not both")
    if "unique" in given or "wait" in given:
        raise click.UsageError("--unique and --wait are for single jobs")
    _many(target, source, target.named(task, **given).call, as_json)


def _many(target: Queue, source: BinaryIO, call: Any, as_json: bool) -> None:
    jobs = _lines(source, call)
    admitted, refused, problem = 0, 0, None
    with _progress(source) as advance:
        while problem is None and (step := list(islice(jobs, _STEP))):
            results = target.enqueue_many(step)
            admitted += sum(result.ok for result in results)
            bad = [result for result in results if not result.ok]
            refused += len(bad)
            hard = [one.error or (one.rejection.error() if one.rejection else None) for one in bad]
            problem = next((one for one in hard if one is not None), None)
            advance(len(results) - len(bad))
    if as_json:
        print_json({"admitted": admitted, "refused": refused, "error": str(problem) if problem else None})
    else:
        click.echo(f"{admitted} admitted" + (f", {refused} not; the rest of the input was not read" if refused else ""))
    if problem is not None:
        click.echo(f"boundq: {problem}", err=True)
        sys.exit(exit_code(problem) if isinstance(problem, BoundqError) else FULL)


def _arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = _value(value)
        elif kwargs:
            raise click.UsageError(f"{word!r}: arguments come before name=value ones")
        else:
            args.append(_value(word))
    return args, kwargs


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _lines(source: BinaryIO, call: Any) -> Iterator[Prepared]:
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"line {number}", line[:80], f"it is not JSON: {error}") from None
        if isinstance(value, list):
            yield call(*value)
        elif isinstance(value, dict):
            yield call(**value)
        else:
            raise ConfigError(f"line {number}", value, "a line is an array or an object of arguments")


class _progress:  # used like a function
    """A bar on a terminal, over the file's bytes where it has a size; nothing in a pipe."""

    def __init__(self, source: BinaryIO) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        out = console(stderr=True)
        self._source = source
        self._bar = Progress(
            *(TextColumn("enqueue"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[jobs]} jobs")),
            TimeRemainingColumn(),
            console=out,
            disable=not out.is_terminal,
        )
        try:
            here = source.tell()
            self._size: int | None = source.seek(0, 2)
            source.seek(here)
        except OSError:
            self._size = None
        self._task = self._bar.add_task("", total=self._size, jobs=0)
        self._jobs = 0

    def __enter__(self) -> Any:
        self._bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, jobs: int) -> None:
        self._jobs += jobs
        self._bar.update(self._task, jobs=self._jobs, completed=self._source.tell() if self._size else None)
