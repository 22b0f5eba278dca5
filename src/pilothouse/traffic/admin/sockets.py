"""A unix socket that only its owner may use, and that one process has at a time; one left behind is taken over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pilothouse.foundation.home import default_home

__all__ = ["AdminSocketError", "OwnedSocket", "default_socket", "within"]

_BACKLOG: Final = 16


class AdminSocketError(Exception):
    """The socket cannot be had; the message names it and says why."""


class OwnedSocket:
    """Listens at a path from now on until `close`. Raises AdminSocketError.

    Who holds the lock of PATH.lock has the path: the kernel ends that with the process, so a socket that is there
    beside a free lock was left behind. Directories that are missing are made, for the owner alone, and removed at the
    end where they are empty.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._lock = -1
        self._made: list[Path] = []
        try:
            for directory in reversed([each for each in path.parents if not each.exists()]):
                directory.mkdir(mode=0o700, exist_ok=True)
                self._made.append(directory)
            self._take_lock()
            self.sock: Final = self._listen()
        except OSError as error:
            self._unlock()
            reason = error.strerror or str(error)
            where = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
            raise AdminSocketError(f"admin socket {path}: cannot be made: {reason}{where}") from error
        except AdminSocketError:
            self._unlock()
            raise

    def _take_lock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            self._lock = os.open(self._lock_path, flags, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                self._lock = -1
                raise AdminSocketError(f"admin socket {self.path}: another gateway has it") from None
            with contextlib.suppress(FileNotFoundError):
                if self._lock_path.stat().st_ino == os.fstat(self._lock).st_ino:
                    return
            os.close(self._lock)  # who had it removed it meanwhile
            self._lock = -1

    def _listen(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise AdminSocketError(f"admin socket {self.path}: there is something else of that name")
            self.path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with within(self.path) as short:
                sock.bind(short)
            self.path.chmod(0o600)  # nobody can connect before it listens
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Remove the socket, unless that was done already."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.sock.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock)
        self._lock = -1
        with contextlib.suppress(OSError):
            for directory in reversed(self._made):
                directory.rmdir()


def default_socket(data_dir: Path | None) -> Path:
    """Return where the socket of a user's gateway is, in a directory of data or in the user's own."""
    return (data_dir or default_home()).absolute() / "run" / "gateway.sock"


@contextlib.contextmanager
def within(path: Path) -> Iterator[str]:
    """Give a name of the same file that is short enough for a socket's address, which has 108 bytes. Raises OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
