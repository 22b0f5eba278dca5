"""Removing a directory of a root with all that is in it, without ever following a link or going into another mount."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Final

__all__ = ["remove_folder"]

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_folder(root: str, name: str) -> None:
    """Remove `name`, a directory right in `root`; one that is gone is fine.

    It may be as deep as can be: what is in it is moved up and removed there, so neither descriptors nor the stack grow.
    Raises ValueError for a name that is none of a directory right in the root, OSError for what stays, such as a mount.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f'"{name}" is no name of a directory in {root}')
    try:
        above = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            top = _open(name, above)
        except FileNotFoundError:
            return
        except NotADirectoryError:  # a link too is removed, not what it leads to
            os.unlink(name, dir_fd=above)
            return
        try:
            _same_mount(top, above, name)
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=above)
    finally:
        os.close(above)


def _empty(top: int) -> None:
    number = 0
    while found := os.listdir(top):
        for name in found:
            try:
                inner = _open(name, top)
            except NotADirectoryError:
                os.unlink(name, dir_fd=top)
                continue
            try:
                _same_mount(inner, top, name)
                number = _lift(inner, top, number)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _lift(inner: int, top: int, number: int) -> int:
    """Unlink the files of a directory and move its directories into `top`, under numbers that are free there."""
    for name in os.listdir(inner):
        if not stat.S_ISDIR(os.stat(name, dir_fd=inner, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=inner)
            continue
        while True:
            number += 1
            try:
                os.rename(name, f".{number}", src_dir_fd=inner, dst_dir_fd=top)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise
            else:
                break
    return number


def _open(name: str, above: int) -> int:
    """Open a directory, also one that is unreadable for its owner. Raises NotADirectoryError for what is none."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)
        return os.open(f"/proc/self/fd/{fd}", _OPEN & ~os.O_NOFOLLOW)
    finally:
        os.close(fd)


def _same_mount(inner: int, outer: int, name: str) -> None:
    if os.fstat(inner).st_dev != os.fstat(outer).st_dev:
        raise OSError(errno.EXDEV, "is another mount; unmount it first", name)
