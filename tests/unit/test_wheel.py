"""The wheel, built and installed outside the checkout, is whole: scripts, example data, entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it. Dependencies are this interpreter's; our checkout is not in it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True, timeout=120)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    # A plain path line: the folder's own .pth files, and so the editable install, do not take part.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = str(folder / "env")
    install = [sys.executable, "-m", "pip", "--python", env, "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    return folder / "env"


def run(environment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment, in its folder, with nothing of ours in the path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BOUNDQ_URL")}
    program = environment / "bin" / words[0]
    return subprocess.run(
        [program, *words[1:]], cwd=environment, env=clean, capture_output=True, text=True, timeout=110, check=False
    )


def test_the_package_is_the_wheel_s_and_has_its_scripts(environment: Path) -> None:
    """It does not fall back on the checkout, and every script can be put together."""
    code = (
        "import boundq, pathlib; from boundq import _scripts; root = pathlib.Path(boundq.__file__).parent; print(root);"
        "[_scripts.load(path.stem) for path in (root / '_lua').glob('*.lua')]; _scripts.load('enqueue')"
    )
    done = run(environment, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(environment)


def test_the_program_runs_the_demo(environment: Path) -> None:
    """`boundq demo` needs nothing of the checkout, and its verdict holds."""
    done = run(environment, "boundq", "demo", "--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (environment / "boundq-demo.svg").exists()
