"""The key that seals clients' sessions, kept in a file, so that a gateway that is started anew knows them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from pilothouse.foundation.logs import get_logger

__all__ = ["KEY_BYTES", "kept_session_key", "session_key"]

KEY_BYTES: Final = 32

_log = get_logger(__name__)


def kept_session_key(path: Path) -> bytes:
    """Return the key in a file; empty where it cannot be had, which is logged: sessions end with the gateway then."""
    try:
        return session_key(path)
    except (OSError, ValueError) as error:
        _log.warning("sessions of clients end with this gateway: no key can be kept", reason=str(error))
        return b""


def session_key(path: Path) -> bytes:
    """Return the key in a file, which is made (mode 0600) where it is not there. Raises OSError, and ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        return _checked(path)
    except FileNotFoundError:
        pass
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # whole, and never over a key that another gateway has just made
    finally:
        fresh.unlink()
    return _checked(path)


def _checked(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) < KEY_BYTES:
        raise ValueError(f"{path}: a session key has {KEY_BYTES} bytes and more; remove the file to have a new one")
    return key
