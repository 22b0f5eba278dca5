"""Files of a volume written so that readers see all of the old ones or all of the new ones, as a kubelet does.

The files are in a directory with the time as its name; `..data` links to it, and what users see links through `..data`.
A change makes a new directory and renames one link.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from .payload import File, Files, PayloadError
from .places import owners_left

__all__ = ["checked_path", "read_back", "write_files"]

_DATA: Final = "..data"
_NEXT: Final = "..data_tmp"
_READ: Final = 0o440
_DIRECTORY: Final = 0o755
_MAX_PATH: Final = 4096


def checked_path(path: str) -> str:
    """Return a file's path below its volume. Raises `PayloadError` for one that would leave it."""
    parts = path.split("/")
    if not path or path.startswith("/") or len(path) > _MAX_PATH or "\0" in path:
        raise PayloadError(f"invalid path: must be relative path: {path}")
    if ".." in parts:
        raise PayloadError(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise PayloadError(f"invalid path: must not start with '..': {path}")
    return os.path.normpath(path)


def write_files(directory: str, files: Files, now: datetime, group: int | None = None) -> bool:
    """Make a volume show `files` and nothing else; return whether that changed anything.

    group: owns the files and may read them, what cannot be done without rights is left. Raises `PayloadError`, OSError.
    """
    wanted = {checked_path(path): file for path, file in files.items()}
    os.makedirs(directory, _DIRECTORY, exist_ok=True)
    current = _current(directory)
    if current is not None and _same(os.path.join(directory, current), wanted, group):
        _links(directory, wanted)
        return False
    made = _stamped(directory, now)
    target = os.path.join(directory, made)
    try:
        for path, file in wanted.items():
            _write(target, path, file, group)
        _swap(directory, made)
    except BaseException:
        if _current(directory) != made:
            shutil.rmtree(target, ignore_errors=True)
        raise
    _links(directory, wanted)
    _sweep(directory, made)
    return True


def read_back(directory: str, path: str) -> bytes | None:
    """Return a file that the volume shows, None where there is none."""
    try:
        with open(os.path.join(directory, _DATA, path), "rb") as file:
            return file.read()
    except OSError:
        return None


def _current(directory: str) -> str | None:
    try:
        name = os.readlink(os.path.join(directory, _DATA))
    except OSError:
        return None
    return name if os.path.isdir(os.path.join(directory, name)) else None


def _stamped(directory: str, now: datetime) -> str:
    base = f"..{now:%Y_%m_%d_%H_%M_%S}."
    for number in range(now.microsecond, now.microsecond + 1_000_000):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(directory, f"{base}{number:09d}"))
            os.chmod(os.path.join(directory, f"{base}{number:09d}"), _DIRECTORY)
            return f"{base}{number:09d}"
    raise OSError(17, "too many versions of a volume at one time", directory)


def _write(target: str, path: str, file: File, group: int | None) -> None:
    place = os.path.join(target, path)
    os.makedirs(os.path.dirname(place), _DIRECTORY, exist_ok=True)
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(file.data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if file.uid is not None or group is not None:
            with owners_left():
                os.fchown(fd, -1 if file.uid is None else file.uid, -1 if group is None else group)
        os.fchmod(fd, _mode(file, group))
    finally:
        os.close(fd)


def _mode(file: File, group: int | None) -> int:
    return file.mode if group is None else file.mode | _READ


def _same(current: str, wanted: Files, group: int | None) -> bool:
    found = {
        os.path.relpath(os.path.join(parent, name), current) for parent, _, names in os.walk(current) for name in names
    }
    if found != set(wanted):
        return False
    for path, file in wanted.items():
        place = os.path.join(current, path)
        if os.stat(place).st_mode & 0o7777 != _mode(file, group):
            return False
        with open(place, "rb") as opened:
            if opened.read() != file.data:
                return False
    return True


def _swap(directory: str, made: str) -> None:
    link = os.path.join(directory, _NEXT)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(made, link)
    os.rename(link, os.path.join(directory, _DATA))


def _links(directory: str, paths: Iterable[str]) -> None:
    """Let what users see lead through `..data`, and take away links to what is no more."""
    tops = {path.split("/", 1)[0] for path in paths}
    for name in os.listdir(directory):
        if not name.startswith("..") and name not in tops:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
    for top in tops:
        with contextlib.suppress(FileExistsError):
            os.symlink(os.path.join(_DATA, top), os.path.join(directory, top))


def _sweep(directory: str, keep: str) -> None:
    for name in os.listdir(directory):
        if name.startswith("..") and name not in {_DATA, _NEXT, keep}:
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
