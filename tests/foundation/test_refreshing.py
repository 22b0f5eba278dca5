"""What is shown in place: one frame over the other on a terminal, one after the other elsewhere."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from pilothouse.foundation.refreshing import fitted, refresh
from pilothouse.foundation.terminal import table_lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO, frames: Sequence[Sequence[str]], size: tuple[int, int] = (80, 24)) -> str:
    coming = iter(frames)
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == len(frames):
            raise KeyboardInterrupt

    refresh(lambda: next(coming), 2.0, out=out, pause=pause, size=lambda: size)
    assert paused == [2.0] * len(frames)
    return out.getvalue()


def test_a_terminal_is_written_over_until_the_user_ends_it() -> None:
    home, clear, below = "\x1b[H", "\x1b[K\n", "\x1b[J"
    assert shown(Terminal(), [["one", "two"], ["three"]]) == (
        f"{home}one{clear}two{clear}{below}{home}three{clear}{below}"
    )


def test_elsewhere_frames_follow_each_other() -> None:
    assert shown(io.StringIO(), [["one", "two"], ["x" * 200]], (10, 2)) == f"one\ntwo\n\n{'x' * 200}\n\n"


def test_an_interrupt_while_a_frame_is_made_ends_it_too() -> None:
    def frame() -> list[str]:
        raise KeyboardInterrupt

    out = Terminal()
    refresh(frame, 1.0, out=out)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (5, ["aaaa…", "b", "c", "d"]),
        (4, ["aaaa…", "b", "… 2 …"]),
        (2, ["… 4 …"]),
        (0, ["… 4 …"]),
    ],
)
def test_no_more_than_fits_is_shown(rows: int, wanted: list[str]) -> None:
    assert fitted(["aaaaaaa", "b", "c", "d"], 5, rows) == wanted


def test_a_table_is_aligned_and_steers_no_terminal() -> None:
    rows = [{"name": "a", "in_flight": 1, "more": "x"}, {"name": "long\x1b[2J", "in_flight": 22}]
    assert table_lines(rows, ["name", "in_flight"]) == [
        "NAME         IN FLIGHT",
        "a            1",
        "long\\x1b[2J  22",
    ]
