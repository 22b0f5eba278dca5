"""What a client shows to the server: tokens, fixed, from a file or from a program, and when to get new ones."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from pilothouse.foundation.clock import Clock, SystemClock

from .config import ClientConfig, ExecConfig
from .errors import CredentialsError
from .execplugin import ExecCredential, run_plugin

__all__ = ["Credentials", "ExecCredentials", "FixedCredentials", "Shown", "TokenFile", "credentials_for"]

_FILE_SECONDS: Final = 60.0
"""How long what a token file held is used without looking again, as client-go does."""
_LEEWAY: Final = timedelta(seconds=10)
_REFUSAL_SECONDS: Final = 10.0
"""A program is not run more often than this because the server refuses what it gives."""
_MAX_TOKEN: Final = 1 << 16


class Shown(NamedTuple):
    """What to show now: the Authorization header, empty for none, and a certificate with its key as PEM."""

    authorization: str = ""
    certificate: bytes = b""
    key: bytes = b""

    def __repr__(self) -> str:
        return "Shown(***)"


class Credentials(Protocol):
    """A source of credentials."""

    async def shown(self) -> Shown:
        """Return what to show with the next request. Raises CredentialsError."""

    def refused(self, shown: Shown) -> bool:
        """Hear that the server did not accept it (401); say whether asking again may help."""


class FixedCredentials:
    """Credentials that do not change."""

    def __init__(self, authorization: str = "") -> None:
        self._shown = Shown(authorization)

    async def shown(self) -> Shown:
        return self._shown

    def refused(self, shown: Shown) -> bool:
        """Say no: there are no others."""
        del shown
        return False


class TokenFile:
    """A bearer token in a file that somebody renews; it is read anew each minute and when it was refused."""

    def __init__(self, path: str, source: str = "", clock: Clock | None = None) -> None:
        self._path = path
        self._source = source
        self._clock = clock or SystemClock()
        self._shown = Shown()
        self._until = float("-inf")

    async def shown(self) -> Shown:
        now = self._clock.monotonic()
        if now >= self._until:
            self._shown = Shown(f"Bearer {self._read()}")
            self._until = now + _FILE_SECONDS
        return self._shown

    def refused(self, shown: Shown) -> bool:
        """Look whether there is another by now."""
        if shown == self._shown:
            self._until = float("-inf")
            return self._read() != shown.authorization.removeprefix("Bearer ")
        return True

    def _read(self) -> str:
        where = f"{self._source}: " if self._source else ""
        try:
            with open(self._path, encoding="ascii") as file:
                token = file.read(_MAX_TOKEN).strip()
        except (OSError, UnicodeDecodeError) as error:
            if self._shown.authorization:
                # Being renewed just now, or gone: what was there last is the best guess, and the server judges it.
                return self._shown.authorization.removeprefix("Bearer ")
            why = getattr(error, "strerror", None) or "no token"
            raise CredentialsError(f"{where}token file {self._path}: {why}") from error
        if not token or any(character.isspace() for character in token):
            raise CredentialsError(f"{where}token file {self._path}: {'holds no token' if token else 'is empty'}")
        return token


class ExecCredentials:
    """Credentials of a program, which is run when there are none, they expire or were refused; one at a time."""

    def __init__(
        self,
        config: ExecConfig,
        clock: Clock | None = None,
        run: Callable[[ExecConfig], Awaitable[ExecCredential]] = run_plugin,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._run = run
        self._found: ExecCredential | None = None
        self._shown = Shown()
        self._refused = float("-inf")
        self._lock = asyncio.Lock()

    async def shown(self) -> Shown:
        if self._fresh():
            return self._shown
        async with self._lock:
            if not self._fresh():
                self._found = found = await self._run(self._config)
                authorization = f"Bearer {_checked(found.token, self._config.source)}" if found.token else ""
                self._shown = Shown(authorization, found.certificate, found.key)
            return self._shown

    def refused(self, shown: Shown) -> bool:
        """Forget what was refused, unless others did already, or the same happened just before."""
        if shown != self._shown:
            return True
        now = self._clock.monotonic()
        if now - self._refused < _REFUSAL_SECONDS:
            return False
        self._refused = now
        self._found = None
        return True

    def _fresh(self) -> bool:
        found = self._found
        return found is not None and (found.expires is None or self._clock.now() + _LEEWAY < found.expires)


def _checked(token: str, source: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CredentialsError(f"{source}: token: holds characters that no header can carry")
    return token


def credentials_for(config: ClientConfig, clock: Clock | None = None) -> Credentials:
    """Return the source that a configuration names; as in Kubernetes a token counts before a program."""
    if config.token_file:
        return TokenFile(config.token_file, config.source, clock)
    if config.token:
        return FixedCredentials(f"Bearer {_checked(config.token, config.source)}")
    if config.exec is not None:
        return ExecCredentials(config.exec, clock)
    if config.username:
        pair = f"{config.username}:{config.password}".encode()
        return FixedCredentials(f"Basic {base64.b64encode(pair).decode()}")
    return FixedCredentials()
