"""The README's Python blocks run as they stand, and its table of options is complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from boundq.cli import health, worker
from boundq.limits import Limits
from boundq.task import EnqueueOptions

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_are_blocks() -> None:
    """The pattern that finds them still does."""
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0][:40])
def test_block_runs(code: str, tmp_path: Path) -> None:
    """Typed into a file, each block runs by itself and warns of nothing."""
    script = tmp_path / "block.py"
    script.write_text(code, encoding="utf-8")
    env = {**os.environ, "BOUNDQ_URL": "embedded:"}
    words = [sys.executable, "-W", "error", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr


def test_the_first_steps_as_typed(tmp_path: Path) -> None:
    """The first block, saved as shop.py, feeds a queue that `boundq worker shop:emails` empties, over `embedded:///`."""
    (tmp_path / "shop.py").write_text(BLOCKS[0], encoding="utf-8")
    env = {**os.environ, "BOUNDQ_URL": f"embedded://{tmp_path}/data"}

    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path, env=env
        ).stdout

    assert "Receipt(id=" in run("shop.py")
    assert run("-m", "boundq", "worker", "shop:emails", "--burst") == "campaign 42 to ada@example.org\n"


@pytest.mark.parametrize("name", [*EnqueueOptions.__annotations__, *Limits.__dataclass_fields__])
def test_every_option_is_in_a_table(name: str) -> None:
    """Each option of a job and each limit has a row."""
    assert re.search(rf"^\|.*`{name}`", README, re.MULTILINE)


def test_the_recipes_use_options_that_exist() -> None:
    """What docs/deploy.md starts `boundq worker` and `boundq health` with is known to them."""
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    used = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--kill-whom", "--signal", "--init"}  # systemctl's, docker's
    known = {word for command in (worker.command, health.command) for one in command.params for word in one.opts}
    assert used <= known
    assert len(used) > 6
