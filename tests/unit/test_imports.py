"""What imports what: layers point down, heavy libraries stay out, and a bare import is quick."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import boundq

ROOT = Path(boundq.__file__).parent

LAYERS = [
    ("cli", ["boundq.__main__", "boundq.cli", "boundq.demo", "boundq.testing", "boundq.contrib", "boundq.metrics"]),
    ("ops", ["boundq._ops"]),
    ("worker", ["boundq.worker", "boundq._runner"]),
    ("shells", ["boundq.sync", "boundq.aio"]),
    (
        "core",
        [
            *("boundq._core", "boundq._archive", "boundq.lease", "boundq.task"),
            *("boundq.job_control", "boundq.middleware", "boundq.tracing"),
        ],
    ),
    (
        "wire",
        [
            *("boundq._attempt", "boundq._retry", "boundq._connect", "boundq._call", "boundq._scripts"),
            *("boundq._session", "boundq._status", "boundq._gate", "boundq._poll", "boundq._embedded"),
        ],
    ),
    (
        "values",
        [
            *("boundq._charge", "boundq._job", "boundq._envelope", "boundq._keys", "boundq._sizes", "boundq._target"),
            *("boundq.model", "boundq.limits", "boundq.errors", "boundq.schedule", "boundq._health", "boundq._rates"),
        ],
    ),
]
"""From top to bottom. A module imports from its own layer and from those below; the rest of its name is inside."""

ABOVE_ALL = {"boundq"}
"""`boundq` itself names everything, lazily: it is imported by what stands above the shells only."""

TWINS = {("boundq.sync.queue", "boundq.aio.queue"), ("boundq.aio.queue", "boundq.sync.queue")}
"""Each shell knows the other, when it is asked for its twin."""

HOMES = {
    "redis": ("boundq.sync", "boundq.aio", "boundq.demo"),  # the demo shows what happens without boundq
    "fakeredis": ("boundq.testing",),
    "click": ("boundq.cli",),
    "rich": ("boundq.cli", "boundq.demo"),
    "asyncio": ("boundq.aio", "boundq._runner", "boundq.worker", "boundq.testing", "boundq.contrib"),
    "pickle": (),
    "prometheus_client": ("boundq.metrics", "boundq.cli", "boundq.contrib"),
    "opentelemetry": ("boundq.otel", "boundq.contrib", "boundq.tracing"),
    "watchfiles": ("boundq.worker.reload",),
    "zstandard": ("boundq.cli", "boundq._archive", "boundq.archive", "boundq.sync", "boundq.aio"),
}
"""Who may import what."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The modules that a module imports, anywhere in it but for type checking."""
    tree = ast.parse(MODULES[name].read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {name}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else str(node.module))
    return found


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> int | None:
    for place, (_, packages) in enumerate(LAYERS):
        if any(is_in(name, package) for package in packages):
            return place
    return None


def test_every_module_has_a_layer() -> None:
    """A new module is put into the table."""
    assert [name for name in MODULES if layer(name) is None and name not in ABOVE_ALL] == []
    assert len(MODULES) > 20


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ABOVE_ALL])
def test_imports_point_down(name: str) -> None:
    """From a layer to itself or below, never up."""
    mine = layer(name)
    assert mine is not None
    for other in imports(name):
        if not is_in(other, "boundq") or (name, other) in TWINS:
            continue
        if other in ABOVE_ALL:
            assert mine < [title for title, _ in LAYERS].index("shells"), f"{name} imports the whole of boundq"
            continue
        theirs = layer(other)
        assert theirs is not None
        assert theirs >= mine, f"{name} ({LAYERS[mine][0]}) imports {other} ({LAYERS[theirs][0]})"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_have_a_home(name: str) -> None:
    """`redis` only in the shells, `click` only in the command line, no pickle anywhere (R-43)."""
    used = {other.split(".")[0] for other in imports(name)}
    for library, homes in HOMES.items():
        if library in used:
            assert any(is_in(name, home) for home in homes), f"{name} imports {library}"


HEAVY = ("click", "rich", "fakeredis", "asyncio", "redis", "msgspec", "hiredis", "logging", "dataclasses")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(run.stdout.split())


def test_bare_import_loads_nothing() -> None:
    """``import boundq`` costs a program nothing that it may never use."""
    loaded = loaded_after("import boundq")
    assert "boundq" in loaded
    assert not loaded & set(HEAVY)
    assert {name for name in loaded if name.startswith("boundq.")} == set()


@pytest.mark.parametrize(
    "statement", ["from boundq import Queue", "import boundq; boundq.Queue('q'); boundq.QueueFull"]
)
def test_queue_without_asyncio(statement: str) -> None:
    """A program of threads pays neither for asyncio nor for the client library before it connects."""
    loaded = loaded_after(statement)
    assert "boundq.sync.queue" in loaded
    assert not loaded & {"asyncio", "redis", "click", "rich", "fakeredis", "boundq.aio.queue", "boundq.worker.worker"}


def test_async_queue_without_threads() -> None:
    """Nor one of asyncio for the other shell, nor for the client library."""
    loaded = loaded_after("from boundq import AsyncQueue")
    assert "boundq.aio.queue" in loaded
    assert not loaded & {"redis", "click", "rich", "fakeredis", "boundq.sync.queue"}


def test_import_is_quick() -> None:
    """``import boundq`` adds less than 100 ms to a bare Python, by the median of several runs in turn."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
        return time.perf_counter() - start

    differences = []
    for _ in range(9):
        bare = seconds("pass")
        differences.append(seconds("import boundq") - bare)
    assert statistics.median(differences) < 0.1, differences
