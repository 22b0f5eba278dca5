"""Golden traces of state machines: scripts of commands with the answers expected of them, replayed line by line.

A trace is a file of blocks. A block is one or more commands, a line `----`, the answer, and an empty line. `#` begins a
comment. With PILOTHOUSE_REWRITE_TRACES=1 the answers are written anew, to be read before they are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "blocks_of", "replay", "traces_in"]

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

Command = Callable[[str, list[str]], list[str]]
"""Takes a command's name and words, returns the lines of its answer."""


class Block(NamedTuple):
    """Commands, the answer expected, and where it begins."""

    head: list[str]
    expected: list[str]
    line: int


def traces_in(directory: str, prefix: str) -> list[Path]:
    """Return the traces of one state machine."""
    found = sorted((GOLDEN / directory).glob(f"{prefix}*.txt"))
    assert found, f"no traces {prefix}*.txt in {directory}"
    return found


def blocks_of(text: str) -> list[Block]:
    """Split a trace."""
    blocks, head, answer, in_answer, start = [], list[str](), list[str](), False, 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line == "----":
            in_answer = True
        elif in_answer and line:
            answer.append(line)
        elif in_answer:
            blocks.append(Block(head, answer, start))
            head, answer, in_answer, start = [], [], False, number + 1
        else:
            head.append(line)
    if head and any(head):
        blocks.append(Block(head, [], start))
    return blocks


def replay(path: Path, command: Command) -> None:
    """Run a trace and compare each answer."""
    written = []
    for block in blocks_of(path.read_text()):
        answer = []
        for line in block.head:
            words = line.partition("#")[0].split()
            if words:
                answer += command(words[0], words[1:])
        written.append("\n".join([*block.head, "----", *answer]) + "\n")
        if not os.environ.get("PILOTHOUSE_REWRITE_TRACES"):
            assert answer == block.expected, f"{path.name}:{block.line}: {block.head}"
    if os.environ.get("PILOTHOUSE_REWRITE_TRACES"):
        path.write_text("\n".join(written))
