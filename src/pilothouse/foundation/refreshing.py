"""What is shown again and again: in place on a terminal, as `top` does, one after the other elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, TextIO

__all__ = ["fitted", "refresh"]

_HOME: Final = "\x1b[H"
_END_OF_LINE: Final = "\x1b[K"
_BELOW: Final = "\x1b[J"


def refresh(
    frame: Callable[[], Sequence[str]],
    seconds: float,
    *,
    out: TextIO | None = None,
    pause: Callable[[float], object] = time.sleep,
    size: Callable[[], tuple[int, int]] = shutil.get_terminal_size,
) -> None:
    """Show the lines that `frame` returns every so many seconds, until the user interrupts it (Ctrl-C).

    pause: waits; size: columns and lines of the terminal.
    """
    out = out or sys.stdout
    is_terminal = out.isatty()
    try:
        while True:
            lines = frame()
            if is_terminal:
                shown = fitted(lines, *size())
                out.write(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in shown) + _BELOW)
            else:
                out.write("".join(f"{line}\n" for line in lines) + "\n")
            out.flush()
            pause(seconds)
    except KeyboardInterrupt:
        return


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """Return what of the lines a terminal has room for; its last line says how many are left out."""
    room = max(1, rows - 1)  # the cursor has the last one
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more"]
    return [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in lines]
