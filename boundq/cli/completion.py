"""``boundq completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from boundq.cli import COMPLETE_VAR, app


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """
    Print what makes a shell complete boundq's verbs and options, and the names of queues.

    Names come from the server that BOUNDQ_URL names, within a second; where it does not answer, there are none. An
    embedded server is not started for it.

    \b
    Examples:
      boundq completion bash > ~/.local/share/bash-completion/completions/boundq
      boundq completion zsh > ~/.zfunc/_boundq
      boundq completion fish > ~/.config/fish/completions/boundq.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click has all three"
    click.echo(kind(app, {}, "boundq", COMPLETE_VAR).source())
