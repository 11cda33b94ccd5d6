"""A password with an ``@`` in it, given in each of the three ways: whatever becomes of the call, no output shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from boundq import Queue
from tests._servers import Server
from tests.cli.conftest import Run
from tests.conftest import FreshServer

# As people write it into a URL, where it should be %40.
PASSWORD = "s3cr3t@with@ends"


@pytest.mark.parametrize("way", ["flag", "environment", "file"])
def test_no_output_shows_the_password(
    fresh_server: FreshServer, run_on: Callable[[Server], Run], tmp_path: Path, way: str
) -> None:
    """Right, wrong, no server, --help, an import that fails with the URL in its error."""
    server = fresh_server(tcp=True)
    Queue("q", server.tcp_url).enqueue_bytes(b"x")
    server.cli("CONFIG", "SET", "requirepass", PASSWORD)
    run = run_on(server)
    host = server.tcp_url.split("://")[1].rsplit("@", 1)[-1]

    def outputs(url: str, *words: str) -> tuple[int, str]:
        environment = {"BOUNDQ_URL": url} if way == "environment" else {}
        given: tuple[str, ...] = ()
        if way == "flag":
            given = ("--url", url)
        if way == "file":
            (tmp_path / "url").write_text(url + "\n")
            given = ("--url-file", str(tmp_path / "url"))
        done = run(*words, *given, **environment)
        return done.returncode, done.stdout + done.stderr

    right, wrong = f"redis://:{PASSWORD}@{host}", f"redis://:{PASSWORD}@more@{host}"
    gone = f"redis://:{PASSWORD}@127.0.0.1:1/0"
    broken = f"redis://:{PASSWORD}@127.0.0.1:port/0"
    for url, words, code in [
        (right, ("stats", "q"), 0),
        (right, ("doctor",), None),
        (right, ("ls", "--help"), 0),
        (wrong, ("stats", "q"), 77),
        (wrong, ("ls", "--json"), 77),
        (wrong, ("check", "q"), 3),
        (gone, ("stats", "q"), 69),
        (gone, ("doctor",), 2),
        (broken, ("ls",), 78),
    ]:
        ended, text = outputs(url, *words)
        assert code is None or ended == code, (url, words, text)
        assert "Traceback" not in text
        for part in ("s3cr3t", "with@", "@ends", "ends@"):
            assert part not in text, (words, text)


def test_a_worker_whose_target_fails_does_not_show_it(run: Run, tmp_path: Path) -> None:
    """The error of a module that cannot be imported is shown, but for the password in it."""
    (tmp_path / "shop.py").write_text(f'raise RuntimeError("cannot reach redis://:{PASSWORD}@db:6379/0")\n')
    done = run("worker", "shop:jobs")
    assert done.returncode == 2
    assert "cannot reach redis://:***@db:6379/0" in done.stdout + done.stderr
    assert "ends" not in done.stdout + done.stderr
