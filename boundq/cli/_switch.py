"""What pause, resume, seal and unseal have in common."""

from __future__ import annotations

import sys
from typing import Any, Literal

import click

from boundq import Server
from boundq._sizes import moment
from boundq.cli._shared import json_option, on_each, print_json, queue_arguments, reason_option, server_options, who
from boundq.cli._text import printable

_DONE = {"pause": "paused", "resume": "resumed", "seal": "sealed", "unseal": "unsealed"}
_ALREADY = {"pause": "was paused", "resume": "was not paused", "seal": "was sealed", "unseal": "was not sealed"}


def switch(verb: Literal["pause", "resume", "seal", "unseal"], text: str) -> click.Command:
    """The command of one of them."""

    @click.command(verb, help=text)
    @queue_arguments
    @reason_option
    @server_options
    @json_option
    def command(queues: tuple[str, ...], reason: str | None, url: str | None, as_json: bool) -> None:
        server, by = Server(url), who(reason)

        def one(name: str) -> dict[str, Any]:
            queue = server.queue(name)
            changed = getattr(queue, verb)(by)
            stats = queue.stats()
            return {
                "name": name,
                "changed": changed,
                "paused_since": stats.paused_since,
                "paused_by": stats.paused_by or None,
                "sealed_since": stats.sealed_since,
                "sealed_by": stats.sealed_by or None,
            }

        results, code = on_each(queues, one)
        if as_json:
            print_json({"queues": results})
        else:
            for result in results:
                click.echo(_sentence(verb, result))
        sys.exit(code)

    return command


def _sentence(verb: str, result: dict[str, Any]) -> str:
    if result["changed"]:
        return f"{result['name']}: {_DONE[verb]}"
    kind = "paused" if verb in ("pause", "resume") else "sealed"
    since, by = result[f"{kind}_since"], result[f"{kind}_by"]
    details = f", since {moment(since)}" if since else ""
    return f"{result['name']}: {_ALREADY[verb]}{details}{f', by {printable(by)}' if by else ''}; nothing changed"
