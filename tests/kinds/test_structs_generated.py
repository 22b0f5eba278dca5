"""The script that writes the structs: what is committed is what it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "generate-structs"
STRUCTS = ROOT / "src" / "pilothouse" / "kinds" / "structs"
LINES = 400


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_committed_modules_are_those_written(tmp_path: Path) -> None:
    done = run("--into", tmp_path)
    assert done.returncode == 0, done.stderr
    written = {place.name: place.read_text() for place in tmp_path.iterdir()}
    committed = {place.name: place.read_text() for place in STRUCTS.glob("*.py")}
    assert {name: committed.get(name) for name in written} == written
    by_hand = {"__init__.py", "_absent.py", "_codec.py", "_resource.py", "_struct.py", "_values.py"}
    assert set(committed) == set(written) | by_hand
    assert all(text.count("\n") <= LINES for text in committed.values())


def test_a_change_by_hand_is_noticed(tmp_path: Path) -> None:
    for place in STRUCTS.glob("*.py"):
        (tmp_path / place.name).write_text(place.read_text())
    (tmp_path / "coordination.py").write_text("")
    done = run("--check", "--into", tmp_path)
    assert done.returncode == 1
    assert done.stdout == f"{tmp_path / 'coordination.py'} is out of date: run scripts/generate-structs\n"
    assert (tmp_path / "coordination.py").read_text() == ""
