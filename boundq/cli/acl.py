"""``boundq acl``."""

from __future__ import annotations

import re
import sys

import click

from boundq._ops.acl import ROLES, rules
from boundq.cli._shared import json_option, print_json, queue_names
from boundq.errors import ConfigError

# What needs no quotes in redis-cli, and is no trouble in a users.acl file.
_USER = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


@click.command("acl")
@click.argument("role", type=click.Choice(ROLES))
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="Q",
    shell_complete=queue_names,
    help="For this queue; may be given several times.",
)
@click.option("--all", "everything", is_flag=True, help="For all queues of the server.")
@click.option("--user", metavar="NAME", help="The user; by default boundq-ROLE.")
@click.option("--may-load", is_flag=True, help="Let it load scripts, after a restart of the server, say; its own too.")
@json_option
def command(
    role: str, queues: tuple[str, ...], everything: bool, user: str | None, may_load: bool, as_json: bool
) -> None:
    """
    Print the smallest ACL rule for a role: what to type, as an admin of the server.

    producer: enqueues; reads, claims and deletes no job. worker: runs jobs, and enqueues. inspector: looks, and
    changes nothing. admin: all that boundq can do with the queue.

    Only workers and admins may load scripts. After a restart of the server the others wait until one of them has done
    so (`boundq doctor` does too), for as long as their calls may take; --may-load changes that.

    The rule keeps the user's passwords; it needs no connection to a server.

    \b
    Examples:
      boundq acl producer --queue emails --user shop
      boundq acl worker --queue emails --queue reports
      boundq acl inspector --all --json | jq -r .command
    """
    if bool(queues) == everything:
        raise click.UsageError("name the queues with --queue, or say --all")
    name = user if user is not None else f"boundq-{role}"
    if not _USER.match(name):
        raise ConfigError("--user", name, "a name is 1 to 64 characters out of A-Z a-z 0-9 . _ -")
    words = rules(role, queues, may_load=may_load)
    line = " ".join(["ACL", "SETUSER", name, *(f'"{word}"' if " " in word else word for word in words)])
    if as_json:
        print_json({"role": role, "user": name, "queues": list(queues) or None, "rules": words, "command": line})
        return
    click.echo(line)
    if sys.stdout.isatty():
        click.echo(f"then a password of its own: ACL SETUSER {name} >PASSWORD; and keep it: ACL SAVE", err=True)
