"""Asks a running gateway, by its admin socket, and says what is wrong where there is none."""

from __future__ import annotations

import http.client
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec

from pilothouse.foundation.terminal import CommandError, ExitCode

from .sockets import within

__all__ = ["ask"]

_SECONDS: Final = 10.0
_MOST_BYTES: Final = 64 << 20
_Answer = TypeVar("_Answer")


class _Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        with within(self._path) as short:
            self.sock.connect(short)


def ask(path: Path, page: str, kind: type[_Answer], query: dict[str, str | int], seconds: float = _SECONDS) -> _Answer:
    """Return a page of the gateway at `path`. Raises CommandError.

    seconds: how long each step may take.
    """
    connection = _Connection(path, seconds)
    try:
        connection.request("GET", f"/{page}?{urlencode(query)}")
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except TimeoutError:
        raise CommandError(
            f"admin socket {path}: the gateway did not answer within {seconds:g} s", code=ExitCode.UNAVAILABLE
        ) from None
    except OSError as error:
        raise _explained(path, error) from error
    except http.client.HTTPException as error:
        raise CommandError(
            f"admin socket {path}: what listens there is no gateway, or has too many connections ({error!r})",
            code=ExitCode.UNAVAILABLE,
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        text = body[:1000].decode("utf-8", "replace").strip()
        raise CommandError(f"admin socket {path}: {text}")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise CommandError(f"admin socket {path}: a gateway of another version? {error}") from error


def _explained(path: Path, error: OSError) -> CommandError:
    start = "start one with `pilothouse gateway run`, or name its socket with --admin-socket"
    if isinstance(error, PermissionError):
        return CommandError(
            f"admin socket {path}: only {_owner(path)} may ask this gateway",
            hint=f"run it as {_owner(path)}, for example by sudo",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return CommandError(f"no gateway at {path}", hint=start, code=ExitCode.UNAVAILABLE)
    if isinstance(error, ConnectionRefusedError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            return CommandError(f"{path} is no socket", hint=start, code=ExitCode.USAGE)
        return CommandError(
            f"no gateway at {path}: its socket was left behind when it was killed",
            hint="the next `pilothouse gateway run` takes it over",
            code=ExitCode.UNAVAILABLE,
        )
    return CommandError(f"admin socket {path}: {error.strerror or error}", code=ExitCode.UNAVAILABLE)


def _owner(path: Path) -> str:
    try:
        uid = path.stat().st_uid
    except OSError:
        return "its owner"
    if uid == os.geteuid():
        return "its owner"
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
