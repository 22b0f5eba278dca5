"""The scripts behind `make`: what they do where something is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def make_path(directory: Path, *programs: str) -> str:
    """Make a PATH that holds only these programs."""
    for name in programs:
        found = shutil.which(name)
        assert found is not None, name
        (directory / name).symlink_to(found)
    return str(directory)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_lists_every_target() -> None:
    shown = run("make", "help", MAKEFLAGS="").stdout
    listed = set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE))
    assert listed == {"help", "setup", "demo", "up", "test", "coverage", "lint", "test-long", "bench", "docs", "clean"}


def test_without_a_python_that_is_new_enough(tmp_path: Path) -> None:
    path = make_path(tmp_path, "bash", "env")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = run("scripts/find-python", PATH=path, PYTHON="")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.11 or newer found\nhint: ")
    old.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    assert run("scripts/find-python", PATH=path, PYTHON="").stdout.strip() == str(old)


def test_packages_that_cannot_be_installed_say_what_is_left_out(tmp_path: Path) -> None:
    done = run("scripts/debian-packages", PATH=make_path(tmp_path, "bash", "env", "id"))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    wanted = re.findall(r"\[([\w-]+)\]=[\w-]+", (ROOT / "scripts/debian-packages").read_text(encoding="utf-8"))
    assert len(lines) == len(set(wanted))
    for line in lines:
        assert re.fullmatch(r"left out: .+: [\w-]+ is missing \(package [\w-]+\) and there is no apt-get", line)


def test_an_unknown_benchmark_is_named() -> None:
    done = run("scripts/bench", "no-such")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no benchmark 'no-such'\nhint: one of:")
