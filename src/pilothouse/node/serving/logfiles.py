"""A container's log on disk: the file it is written to and those that were rotated away, read in order and followed."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import BinaryIO, Final, cast

from pilothouse.foundation.clock import Clock

from .loglines import LogOptions, LogWriter, tail_offset

__all__ = ["log_files", "read_log"]

_BLOCK: Final = 1 << 16
_LOOK_SECONDS: Final = 0.1
"""How often a log that is followed is looked at; and every tenth time whether its container still runs."""
_ROTATED: Final = re.compile(r"\.\d{8}-\d{6}(?:[.-]\d+)?(\.gz)?").fullmatch

Write = Callable[[bytes], Awaitable[None]]


def log_files(path: str) -> list[str]:
    """Return the files of a log, oldest first, as rotation names them: `0.log.20260102-030405(.gz)`, `0.log`."""
    directory, name = os.path.split(path)
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for each in sorted(os.listdir(directory)):
            if each.startswith(name) and _ROTATED(each.removeprefix(name)):
                # While a file is being packed, both are there.
                found.setdefault(each.removesuffix(".gz"), os.path.join(directory, each))
    return [*(found[key] for key in sorted(found)), path]


def _opened(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return cast("BinaryIO", os.fdopen(fd, "rb", buffering=0))


def _tail(path: str, file: BinaryIO, wanted: int) -> tuple[int, int]:
    """Return from where to read for the last `wanted` lines, and how many lines are still wanted from before."""
    if path.endswith(".gz"):
        data = file.read()
        place, count = tail_offset(data, wanted)
        return (0, max(0, wanted - count)) if place < 0 else (place, 0)
    end = file.seek(0, os.SEEK_END)
    ends = 0
    at = end
    while at > 0:
        size = min(_BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        place, count = tail_offset(block, wanted - ends)
        if place >= 0:
            return at + place, 0
        ends += count
    return 0, max(0, wanted - ends)


def _starts(paths: list[str], tail: int | None) -> Iterator[tuple[str, int]]:
    """Give the files to read with the place to begin at."""
    if tail is None:
        yield from ((path, 0) for path in paths)
        return
    chosen: list[tuple[str, int]] = []
    wanted = tail
    for path in reversed(paths):
        try:
            with contextlib.closing(_opened(path)) as file:
                place, wanted = _tail(path, file, wanted)
        except (FileNotFoundError, EOFError):
            continue
        chosen.append((path, place))
        if not wanted:
            break
    yield from reversed(chosen)


async def read_log(
    path: str, options: LogOptions, write: Write, *, running: Callable[[], Awaitable[bool]], clock: Clock
) -> None:
    """Write what the options choose of a log; with `follow` on until its container does not run any more.

    Raises FileNotFoundError where there is no log.
    """
    writer = LogWriter(options)
    found = False
    for name, start in list(_starts(log_files(path), options.tail)):
        try:
            file = _opened(name)
        except FileNotFoundError:
            continue
        found = True
        with contextlib.closing(file):
            file.seek(start)
            await _copy(file, writer, write)
            if name == path and options.follow and not writer.done:
                await _follow(path, file, writer, write, running, clock)
        if writer.done:
            return
    if not found:
        raise FileNotFoundError(2, "no such log", path)


async def _copy(file: BinaryIO, writer: LogWriter, write: Write) -> bool:
    """Copy to the end of a file; return whether there was anything."""
    some = False
    with contextlib.suppress(EOFError):
        while not writer.done and (data := file.read(_BLOCK)):
            some = True
            if out := writer.feed(data):
                await write(out)
    return some


async def _follow(  # what is followed, how, and until when
    path: str,
    file: BinaryIO,
    writer: LogWriter,
    write: Write,
    running: Callable[[], Awaitable[bool]],
    clock: Clock,
) -> None:
    current, opened = file, False
    looks = 0
    try:
        while not writer.done:
            looks += 1
            runs = looks % 10 != 0 or await running()
            some = await _copy(current, writer, write)
            fresh = _replaced(path, current)
            if fresh is not None:
                # Written between the last look and the rename.
                await _copy(current, writer, write)
                if opened:
                    current.close()
                current, opened = fresh, True
                continue
            if not runs and not some:
                return
            if not some:
                await clock.sleep(_LOOK_SECONDS)
    finally:
        if opened:
            current.close()


def _replaced(path: str, file: BinaryIO) -> BinaryIO | None:
    """Return the file that is now at the path, where it is another one."""
    try:
        found, ours = os.stat(path), os.fstat(file.fileno())
        if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            return None
        return _opened(path)
    except FileNotFoundError:
        return None
