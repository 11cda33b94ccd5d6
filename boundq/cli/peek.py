"""``boundq peek``."""

from __future__ import annotations

from typing import get_args

import click

from boundq import Server
from boundq.cli._listing import listing
from boundq.cli._select import matcher, page, paging
from boundq.cli._shared import json_option, queue_argument, server_options
from boundq.model import PRIORITIES, Priority, State


@click.command("peek")
@queue_argument
@click.option("--state", type=click.Choice(get_args(State)), default="ready", show_default=True, help="In this state.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Of this priority.")
@click.option("--task", metavar="NAME", help="Of this task.")
@paging
@server_options
@json_option
def command(
    queue: str,
    state: State,
    priority: Priority | None,
    task: str | None,
    limit: int,
    after: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Look at the jobs of a queue, in the order in which they will come; dead letters the oldest first.

    Nothing is changed. A page is cheap however long the queue is; --task looks at 2,000 jobs, and says where to go on.

    \b
    Examples:
      boundq peek emails
      boundq peek emails --state active
      boundq peek emails --priority high --task send --limit 100
      boundq peek emails --json | jq -r '.jobs[].id'
    """
    found, further, looked = page(
        Server(url).queue(queue), state, matcher(task=task, priority=priority), limit, after, priority
    )
    listing(found, further, looked, as_json=as_json, queue=queue, state=state)
