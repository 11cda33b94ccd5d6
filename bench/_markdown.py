"""Results as Markdown, for README.md in this folder: ``python -m bench._markdown [FOLDER]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench._report import RESULTS

_MOST_COLUMNS = 4


def tables(folder: Path) -> Iterator[str]:
    """The lines: for each bench what it was taken under, and a table with a column for each server and figure."""
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        yield from ("", f"### {data['bench']}", "", _under(data))
        yield from _table(data["servers"])


def _under(data: dict[str, Any]) -> str:
    commit = data["commit"][:9] + (" with changes" if data["changed"] else "")
    return (
        f"{data['when'][:10]}, commit {commit}, size {data['options']['size']}, Python {data['python']}, "
        f"{data['cpus']} CPUs ({data['processor']}), load {data['load']:.1f}."
    )


def _table(servers: dict[str, Any]) -> Iterator[str]:
    head: list[str] | None = None
    for groups in zip(*(server["groups"] for server in servers.values()), strict=True):
        columns = [one for one in groups[0]["columns"] if one["compared"] or one["told"]] or groups[0]["columns"]
        by_server = list(zip(servers, groups, strict=True))
        # Side by side where that is not too wide.
        for some in [by_server] if len(columns) <= _MOST_COLUMNS else [[one] for one in by_server]:
            now = [f"{server}: {column['heading']}" for server, _ in some for column in columns]
            if now != head:
                head = now
                yield from ("", f"| | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}")
            yield f"| **{groups[0]['title']}** |{' |' * len(head)}"
            # A peer may have run on one server only.
            for arm in dict.fromkeys(arm for group in groups for arm in group["arms"]):
                cells = [
                    _cell(group["arms"].get(arm, {}).get(one["figure"]), one) for _, group in some for one in columns
                ]
                yield f"| {arm} | {' | '.join(cells)} |"


def _cell(found: dict[str, Any] | None, column: dict[str, Any]) -> str:
    if found is None:
        return "-"
    median = f"{found['median']:,.{column['digits']}f}"
    if "x_base" not in found or not column["compared"]:
        return median
    ratio = found["x_base"]
    return f"{median}, × {ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in tables(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS))
