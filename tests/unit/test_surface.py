"""The public surface: exports, docstrings, and two queue classes that mirror each other name for name."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import boundq
from boundq import AsyncLease, AsyncQueue, Lease, Queue
from boundq.task import Enqueuer, Task

PAIRS = [(Queue, AsyncQueue), (Lease, AsyncLease)]
RENAMED = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
"""How Python itself names the two."""

NOT_MIRRORED = {"sync", "aio"}
"""Each is itself on one side, and the twin on the other."""


def public(cls: type) -> dict[str, object]:
    found = {}
    for name in dir(cls):
        plain = RENAMED.get(name, name)
        if not name.startswith("_") or plain in RENAMED.values():
            value = inspect.getattr_static(cls, name)
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            found[plain] = value
    return found


def spelled(signature: inspect.Signature) -> str:
    """A signature with the classes of one side put in the place of those of the other."""
    return str(signature).replace("AsyncQueue", "Queue").replace("AsyncLease", "Lease")


@pytest.mark.parametrize(("sync", "aio"), PAIRS, ids=["queue", "lease"])
def test_same_names(sync: type, aio: type) -> None:
    """Every public name of one is one of the other (R-157)."""
    assert set(public(sync)) == set(public(aio))
    assert len(public(sync)) > 8


@pytest.mark.parametrize(
    ("sync", "aio", "name"),
    [
        (sync, aio, name)
        for sync, aio in PAIRS
        for name in sorted(public(sync).keys() & public(aio).keys())
        if name not in NOT_MIRRORED
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_same_signatures(sync: type, aio: type, name: str) -> None:
    """Same parameters, kinds, defaults and annotations; what waits is a coroutine on one side."""
    mine, theirs = public(sync)[name], public(aio)[name]
    assert type(mine) is type(theirs)
    if not inspect.isfunction(mine):
        return
    assert spelled(inspect.signature(mine)) == spelled(inspect.signature(theirs))
    shared = mine is theirs
    assert shared or inspect.iscoroutinefunction(theirs), f"{name} of the asyncio class blocks"
    assert not inspect.iscoroutinefunction(mine)
    assert spelled_doc(mine) == spelled_doc(theirs)


def spelled_doc(function: object) -> str:
    text = inspect.getdoc(function) or ""
    for one, other in (("AsyncQueue", "Queue"), ("event loop's", "process's"), ("this event loop", "this process")):
        text = text.replace(one, other)
    return text


@pytest.mark.parametrize("name", ["enqueue", "try_enqueue"])
def test_task_has_both_sides(name: str) -> None:
    """`enqueue` and `aenqueue`, `try_enqueue` and `atry_enqueue`: the same arguments."""
    mine, theirs = getattr(Enqueuer, name), getattr(Enqueuer, f"a{name}")
    assert str(inspect.signature(mine)) == str(inspect.signature(theirs))
    assert inspect.iscoroutinefunction(theirs)
    assert not inspect.iscoroutinefunction(mine)


def test_exports() -> None:
    """Every name of ``__all__`` is there, listed by ``dir``, typed in the module's head; and no other is."""
    namespace: dict[str, object] = {}
    exec("from boundq import *", namespace)
    assert set(boundq.__all__) <= set(namespace)
    assert len(boundq.__all__) == len(set(boundq.__all__))
    assert sorted(boundq.__all__) == dir(boundq)
    source = inspect.getsource(boundq)
    for name in set(boundq.__all__) - {"__version__"}:
        assert f"import {name} as {name}\n" in source, f"{name} is unknown to type checkers"
        assert getattr(boundq, name).__module__.startswith("boundq.")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = boundq.no_such_name
    with pytest.raises(ImportError):
        exec("from boundq import no_such_name")


def test_version() -> None:
    """A version of three numbers."""
    assert [part.isdigit() for part in boundq.__version__.split(".")] == [True] * 3


@pytest.mark.parametrize("name", sorted(set(boundq.__all__) - {"__version__"}))
def test_docstrings(name: str) -> None:
    """Every export says what it is, and so does each public method of an exported class."""
    thing = getattr(boundq, name)
    assert inspect.getdoc(thing)
    if not inspect.isclass(thing):
        return
    for member, value in vars(thing).items():
        if member.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
            continue
        assert inspect.getdoc(value), f"{name}.{member} says nothing"


def test_task_is_a_function_to_look_at() -> None:
    """A task has the signature, name and docstring of its function."""

    @Queue("q").task
    def send(campaign: int, *, to: str = "x") -> None:
        """Sends."""

    assert isinstance(send, Task)
    assert str(inspect.signature(send)) == "(campaign: 'int', *, to: 'str' = 'x') -> 'None'"
    assert (send.__name__, inspect.getdoc(send)) == ("send", "Sends.")
    assert repr(send) == "<Task send of queue q>"


TYPED = """
from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from boundq import AsyncQueue, Queue, QueueFull, Receipt, Rejection, Task

mails = Queue("mails", max_jobs=10, max_bytes="1 MiB")
pages = AsyncQueue("pages")


@mails.task(retries=5, timeout=30)
def send(campaign: int, *, to: str) -> bool:
    return True


@mails.task
def ping(n: int = 0) -> None: ...


@pages.task(priority="high")
async def fetch(url: str) -> bytes:
    return b""


assert_type(send.enqueue(42, to="ada"), Receipt)
assert_type(send.try_enqueue(42, to="ada"), Receipt | Rejection)
assert_type(send(42, to="ada"), bool)
ping.enqueue()
ping.options(delay=timedelta(seconds=5), unique="k", priority="low").enqueue(3)
mails.enqueue_many([send.call(1, to="x"), b"raw"], atomic=True)


async def go() -> None:
    assert_type(await fetch.aenqueue("https://example.org"), Receipt)
    assert_type(await send.aenqueue(1, to="x"), Receipt)
    assert_type(await fetch("u"), bytes)
    for lease in await pages.claim(5, wait=1.0):
        async with lease:
            assert_type(lease.payload, bytes)


try:
    send.enqueue(1, to="x")
except QueueFull as full:
    assert_type(full.retry_after, float | None)

send.enqueue("42", to="ada")  # E
send.enqueue(42)  # E
send.enqueue(42, "ada")  # E
send.enqueue(42, to="ada", cc="bob")  # E
send.options(delay=5).enqueue(42, to=7)  # E
send.options(priority="urgent").enqueue(42, to="x")  # E
send.options(colour="red")  # E
send.call(42, to=None)  # E
send.try_enqueue()  # E
ping.enqueue("3")  # E
fetch.enqueue(5)  # E
send("42", to="ada")  # E
mails.enqueue_bytes("text")  # E
mails.enqueue_bytes(b"x", priority=3)  # E
mails.peek("done")  # E
mails.claim("5")  # E
Queue("q", limits={"max_jobs": 1})  # E
"""


def test_types_are_checked(tmp_path: Path) -> None:
    """Wrong arguments of a task are found by mypy, at the very lines, and right ones are none (R-46)."""
    path = tmp_path / "typed.py"
    path.write_text(TYPED)
    root = Path(boundq.__file__).parent.parent
    options = ["--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache"), "--config-file", "/dev/null"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(path)], capture_output=True, text=True, cwd=root, check=False
    )
    lines = TYPED.split("\n")
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# E")}
    found = {int(line.split(":")[1]) for line in run.stdout.splitlines() if ": error:" in line and "typed.py" in line}
    assert found == expected, run.stdout + run.stderr
    assert [line for line in run.stdout.splitlines() if ": error:" in line and "typed.py" not in line] == []
