"""Every bench runs through, at its smallest; how fast anything was is not looked at."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench.__main__ import NAMES, main
from tests.bench._processes import started


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("any_server")  # where there is no such server, this is skipped
@pytest.mark.parametrize("name", NAMES)
def test_bench(name: str, tmp_path: Path) -> None:
    """It ends, leaves no process behind, prints a table, and writes figures and a picture that can be read."""
    words = [name, "--size=tiny", "--server=valkey-9.1", f"--results={tmp_path}"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert started() == set()

    data = json.loads((tmp_path / f"{name}.json").read_text())
    assert data["options"]["size"] == "tiny"
    [server] = data["servers"].values()
    assert server["groups"]
    for group in server["groups"]:
        assert group["title"] in done.output
        for arm, figures in group["arms"].items():
            assert arm in done.output
            assert {len(figure["runs"]) for figure in figures.values()} <= {1, 2}
    numbers = _numbers(data["servers"])
    assert numbers
    assert all(math.isfinite(number) for number in numbers)

    picture = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    drawn = list(picture.iter("{http://www.w3.org/2000/svg}polyline"))
    drawn += [one for one in picture.iter("{http://www.w3.org/2000/svg}rect") if one.attrib["class"] != "card"]
    assert drawn


def test_list() -> None:
    """``--list`` names all benches and says what each is about, and runs none."""
    done = CliRunner().invoke(main, ["--list"], catch_exceptions=False)
    assert done.exit_code == 0
    lines = [line.split(maxsplit=1) for line in done.output.splitlines()]
    assert [name for name, _ in lines] == list(NAMES)
    assert all(": " in sentence for _, sentence in lines)


def test_wrong_name() -> None:
    """A bench that there is not is refused, with those that there are."""
    done = CliRunner().invoke(main, ["enqeue"])
    assert done.exit_code == 2
    assert all(name in done.output for name in NAMES)
