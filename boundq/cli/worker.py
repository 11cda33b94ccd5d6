"""``boundq worker``."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import click

from boundq import Queue, Worker
from boundq._core.queue import BaseQueue
from boundq.cli._logs import LoggedErrors, is_json, masked, set_up
from boundq.worker.child import serve_alone
from boundq.worker.health import HealthFile
from boundq.worker.ledger import LedgerWriter
from boundq.worker.nursery import Nursery
from boundq.worker.reload import Reloader, tell_files
from boundq.worker.remote import RemoteKeeper
from boundq.worker.supervisor import Supervisor


@click.command("worker", cls=LoggedErrors)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@click.option("--threads", type=click.IntRange(1), default=8, show_default=True, help="Plain tasks at once, in each.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=100, show_default=True, help="async def tasks at once, in each."
)
@click.option("--weights", metavar="Q=N,...", help="Whose turn it is when slots are scarce; 1 where nothing is said.")
@click.option("--lease", type=float, default=30.0, show_default=True, help="Seconds until others take over.")
@click.option("--grace", type=float, default=30.0, show_default=True, help="Seconds for running jobs after SIGTERM.")
@click.option("--burst", is_flag=True, help="Stop when nothing is ready.")
@click.option("--max-jobs", type=click.IntRange(1), help="Replace a worker process after about so many jobs.")
@click.option("--isolate", is_flag=True, help="Run plain tasks in child processes, which can be killed.")
@click.option("--health-file", metavar="PATH", help="Written once a second, for `boundq health PATH`.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the log."
)
@click.option("--reload", is_flag=True, help="Start anew when a source file changes, for development.")
@click.option("--quiet", "-q", is_flag=True, help="Log warnings and errors only.")
@click.option("--socket", "socket_fd", type=int, hidden=True)
@click.option("--ledger", "ledger_fd", type=int, hidden=True)
@click.option("--files", "files_fd", type=int, hidden=True)
@click.option("--nursery-socket", type=int, hidden=True)
@click.option("--child-socket", type=int, hidden=True)
@click.pass_context
def command(
    context: click.Context,
    targets: tuple[str, ...],
    processes: int,
    threads: int,
    concurrency: int,
    weights: str | None,
    lease: float,
    grace: float,
    burst: bool,
    max_jobs: int | None,
    isolate: bool,
    health_file: str | None,
    log_format: str,
    reload: bool,
    quiet: bool,
    socket_fd: int | None,
    ledger_fd: int | None,
    files_fd: int | None,
    nursery_socket: int | None,
    child_socket: int | None,
) -> None:
    """
    Run the tasks of one or several queues: plain functions in threads, async def ones on an event loop.

    TARGET is module:queue, or a module: then all queues declared in it. The current folder is searched first.

    A supervisor keeps the leases of what its worker processes run, and replaces those that die. SIGTERM and Ctrl-C
    stop: running jobs have the grace to finish, the rest is given back. A second signal gives back at once. SIGUSR1
    makes it quiet: it claims nothing more and goes on running; SIGUSR2 has it claim again.

    With --isolate each plain task runs in a child process, --threads of them at once. It is killed at the task's
    timeout, when its job is cancelled or its lease lost, and at the end of the grace; one that dies by itself fails
    its own job only. For tasks that keep the processor busy, hang or crash. async def ones stay on the event loop.

    Exit code 0: stopped; 2: a target cannot be used; 70: given up after unexpected errors in a row; 78: an option makes
    no sense.

    \b
    Examples:
      boundq worker shop.jobs:emails
      boundq worker shop.jobs --processes 4 --threads 32 --grace 60
      boundq worker shop.jobs --weights emails=3,reports=1
      boundq worker shop.jobs:emails --burst
      boundq worker shop.jobs:reports --isolate --threads 4
    """
    set_up(log_format, quiet=quiet)
    if reload:
        sys.exit(Reloader(_again(context), grace=grace).run())
    queues = find_queues(targets)
    # What the processes of --isolate are started with.
    words = [*targets, *["--quiet"] * quiet, f"--log-format={log_format}"]
    if nursery_socket is not None:
        command = [sys.executable, "-m", "boundq", "worker", *words]
        Nursery(socket.socket(fileno=nursery_socket), queues, command).run()
    if child_socket is not None:
        serve_alone(socket.socket(fileno=child_socket), queues)
    options = {"threads": threads, "concurrency": concurrency, "lease": lease, "grace": grace, "max_jobs": max_jobs}
    supervised = socket_fd is not None or os.name == "posix"
    worker = Worker(
        queues,
        burst=burst,
        weights=_weights(weights),
        isolate=words if isolate else (),
        health_file=None if supervised else health_file,
        **options,  # type: ignore[arg-type]  # by name
    )
    if socket_fd is not None and ledger_fd is not None:
        ledger = LedgerWriter(ledger_fd)
        keeper = RemoteKeeper(socket.socket(fileno=socket_fd), ledger, lease, worker.stop, _quieter(worker))
        worker.keep_leases_with(keeper)
        if health_file:
            worker.tell_health_to(keeper.tell_health)
        _work(worker)
    if files_fd is not None:
        tell_files(files_fd)
    for queue in queues:
        _say(f"queue {queue.name}: {', '.join(sorted(queue.tasks))}")
    places = "child processes" if isolate else "threads"
    _say(
        f"{processes} process{'es' if processes > 1 else ''}, {threads} {places} and {concurrency} async tasks each; "
        f"leases of {lease:g} s, {grace:g} s of grace; Ctrl-C stops"
    )
    if os.name != "posix":
        _work(worker)
    child = [sys.executable, "-m", "boundq", "worker", *targets]
    child += [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    child += [f"--weights={weights}"] if weights else []
    child += ["--burst"] * burst + ["--quiet"] * quiet + ["--isolate"] * isolate + [f"--log-format={log_format}"]
    child += [f"--health-file={health_file}"] if health_file else []
    supervisor = Supervisor(
        queues,
        child,
        processes=processes,
        lease=lease,
        grace=grace,
        restart=not burst,
        health=HealthFile(health_file, processes) if health_file else None,
    )
    sys.exit(supervisor.run())


def _work(worker: Worker) -> NoReturn:
    """Be a worker process."""
    # What is loaded by now stays: the garbage collector need not look through it again and again, which halts all
    # handlers each time (`bench latency`: p99 of coroutines at half of the drain rate).
    gc.collect()
    gc.freeze()
    code = worker.run()
    _say(f"stopped: {worker.done} done, {worker.failed} not")
    if worker.running:
        # A handler that outlived the grace cannot be ended, and its job is given back already: do not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _quieter(worker: Worker) -> Callable[[bool], None]:
    return lambda whether: worker.quiet() if whether else worker.resume()


def _say(text: str) -> None:
    """A line that --quiet does not silence: as it is for people, as a record for machines."""
    if is_json():
        record = logging.LogRecord("boundq.worker", logging.INFO, __file__, 0, text, None, None)
        logging.getLogger().handle(record)
    else:
        click.echo(text, err=True)


def _again(context: click.Context) -> list[str]:
    """The command that we were given, but for --reload."""
    words = [sys.executable, "-m", "boundq", "worker"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if not isinstance(parameter, click.Option) or parameter.name == "reload" or value == parameter.default:
            continue
        if parameter.is_flag:
            words += [parameter.opts[0]] * bool(value)
        elif value is not None:
            words.append(f"{parameter.opts[0]}={value}")
    return [*words, *context.params["targets"]]


def _weights(text: str | None) -> dict[str, float]:
    try:
        return {
            name: float(number) for name, _, number in (part.partition("=") for part in (text or "").split(",") if part)
        }
    except ValueError:
        raise click.BadParameter("write queue=number, separated by commas", param_hint="--weights") from None


def find_queues(targets: tuple[str, ...]) -> list[Queue]:
    """The queues that targets name, each once."""
    sys.path.insert(0, os.getcwd())
    found: dict[int, Queue] = {}
    for target in targets:
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            what = masked(f"{type(error).__name__}: {error}")  # it may hold the URL that the module was given
            raise click.UsageError(f"{target}: cannot import {module_name}: {what}") from error
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
