"""Examples in README, docs and `examples/` are run, so they cannot rot.

A ```python block runs as a program of its own, and each `$` line of a ```console block as a shell command; both must
end with status 0, within a minute, without warnings. All blocks of one page share an empty directory. Lines of a
console block without `$` show output and are not compared. A block right after `<!-- not run: reason -->` is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

_BLOCK = re.compile(
    r"(?P<mark><!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```(?P<kind>python|console)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A fenced block: what it is, where it starts, its text, and why it is not run."""

    kind: str
    line: int
    text: str
    reason: str | None


def blocks_of(text: str) -> list[Block]:
    """Return the python and console blocks of a page in order."""
    return [
        Block(found["kind"], text.count("\n", 0, found.start("kind")) + 1, found["text"], found["reason"])
        for found in _BLOCK.finditer(text)
    ]


def commands_of(text: str) -> list[str]:
    r"""Return the `$` lines of a console block; one that ends in `\` goes on in the next line."""
    joined = text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def run(command: list[str], directory: Path, where: str) -> None:
    """Run one command with the environment's own programs first in PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONWARNINGS": "error", "NO_COLOR": "1"}
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{where}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_examples_run(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8")):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.reason is not None:
            continue
        if block.kind == "python":
            script = tmp_path / f"line_{block.line}.py"
            script.write_text(block.text, encoding="utf-8")
            run([sys.executable, str(script)], tmp_path, where)
            continue
        commands = commands_of(block.text)
        assert commands, f"{where}: a console block without a `$` line"
        for command in commands:
            run(["/bin/bash", "-c", command], tmp_path, f"{where}: {command}")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    run([sys.executable, str(example)], tmp_path, example.name)


def test_blocks_are_found() -> None:
    page = (
        "a\n```python\nx = 1\n```\n"
        "<!-- not run: wants a network -->\n```console\n$ y \\\n  z\nout\n$ w\n```\n"
        "```text\n$ v\n```\n"
    )
    first, second = blocks_of(page)
    assert first == ("python", 2, "x = 1\n", None)
    assert (second.kind, second.line, second.reason) == ("console", 6, "wants a network")
    assert commands_of(second.text) == ["y    z", "w"]


def test_a_failing_example_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)here: status 1.*old"):
        run([sys.executable, "-c", "import warnings; warnings.warn('old')"], tmp_path, "here")


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {
        name.strip() for row in re.findall(r"^\| ([a-z][^|]*) \|", page, re.MULTILINE) for name in row.split(",")
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *settings["dependency-groups"].values(),
    ]
    wanted = {re.split(r"[\[<>=~!]", line)[0] for group in groups for line in group}
    assert explained - {"library"} == wanted


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: no {target}"
