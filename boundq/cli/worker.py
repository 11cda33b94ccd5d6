"""``boundq worker``."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading

import click

from boundq import Queue, Worker
from boundq._core.queue import BaseQueue


@click.command("worker")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--threads", type=click.IntRange(1), default=8, show_default=True, help="Jobs that run at once.")
@click.option(
    "--lease", type=float, default=30.0, show_default=True, metavar="SECONDS", help="After which others may take over."
)
@click.option(
    "--grace", type=float, default=30.0, show_default=True, metavar="SECONDS", help="For running jobs after SIGTERM."
)
@click.option("--burst", is_flag=True, help="Stop when nothing is ready.")
@click.option("--quiet", "-q", is_flag=True, help="Log warnings and errors only.")
def command(targets: tuple[str, ...], threads: int, lease: float, grace: float, burst: bool, quiet: bool) -> None:
    """
    Run the tasks of one or several queues, in threads.

    TARGET is module:queue, or a module: then all queues declared in it. The current folder is searched first.
    SIGTERM and Ctrl-C stop it: running jobs have the grace to finish, the rest is given back. A second signal
    gives back at once.

    Exit code 0: stopped; 2: a target cannot be used; 70: given up after ten unexpected errors in a row.

    \b
    Examples:
      boundq worker shop.jobs:emails
      boundq worker shop.jobs --threads 32 --grace 60
      boundq worker shop.jobs:emails --burst
    """
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    queues = find_queues(targets)
    for queue in queues:
        click.echo(f"queue {queue.name}: {', '.join(sorted(queue.tasks)) or 'no tasks'}", err=True)
    click.echo(f"{threads} threads, leases of {lease:g} s, {grace:g} s of grace; Ctrl-C stops", err=True)
    worker = Worker(queues, threads=threads, lease=lease, grace=grace, burst=burst)
    code = worker.run()
    click.echo(f"stopped: {worker.done} done, {worker.failed} not", err=True)
    if any(thread.name.startswith("boundq-job") and thread.is_alive() for thread in threading.enumerate()):
        # A handler that outlived the grace cannot be ended, and its job is given back already: do not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def find_queues(targets: tuple[str, ...]) -> list[Queue]:
    """The queues that targets name, each once."""
    sys.path.insert(0, os.getcwd())
    found: dict[int, Queue] = {}
    for target in targets:
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise click.UsageError(f"{target}: cannot import {module_name}: {type(error).__name__}: {error}") from error
        values = [getattr(module, attribute, None)] if attribute else list(vars(module).values())
        queues = [value for value in values if isinstance(value, BaseQueue)]
        if not queues:
            what = f"{attribute} is no queue" if attribute else "it declares no queue"
            raise click.UsageError(f"{target}: {what}; name one as module:queue")
        for queue in queues:
            if not queue.tasks:
                raise click.UsageError(f"{target}: queue {queue.name} has no tasks to run")
            sync: Queue = queue.sync  # type: ignore[attr-defined]  # both shells have it
            found.setdefault(id(sync), sync)
    return list(found.values())
