"""Bearer tokens that are looked up: those of a token file, and the bootstrap tokens kept as secrets."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Object, View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times

__all__ = [
    "BootstrapTokens",
    "Dependency",
    "StaticTokens",
    "TokenAnswer",
    "TokenAuthenticator",
    "TokenError",
    "TokenFileError",
    "intersection",
    "read_token_file",
    "secret_value",
]

_log = get_logger(__name__)

Dependency: TypeAlias = tuple[str, str, str]
"""Resource, namespace and name of an object without which a token is worth nothing."""


class TokenError(Exception):
    """A token is not good. The message is Kubernetes' own; callers see it in a TokenReview only."""


class TokenFileError(Exception):
    """A token file cannot be used; the message names the file, the line and the way out."""


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """Whom a token stands for.

    audiences: those asked for that the token is for; empty where nobody asks. depends: objects whose change makes it
    worth asking again. expires: the moment (seconds of the epoch) after which it is to be asked again, None for never.
    """

    user: User
    audiences: tuple[str, ...] = ()
    depends: tuple[Dependency, ...] = ()
    expires: float | None = None


class TokenAuthenticator(Protocol):
    """Knows the users of one sort of token."""

    def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> TokenAnswer | Awaitable[TokenAnswer | None] | None:
        """Return whom the token stands for, None where it is not of this sort.

        audiences: those it has to be for; empty for the API server's own. Raises TokenError.
        """


def intersection(wanted: Sequence[str], held: Sequence[str]) -> tuple[str, ...]:
    """Return what of `held` is wanted, in the order held."""
    return tuple(one for one in held if one in wanted)


class StaticTokens:
    """The tokens of a file. Kept by their digest, so that neither memory nor time tells a token."""

    def __init__(self, users: Mapping[str, User], *, api_audiences: Sequence[str] = ()) -> None:
        self._users = {_digest(token): user for token, user in users.items()}
        self._api_audiences = tuple(api_audiences)

    def __len__(self) -> int:
        return len(self._users)

    def authenticate_token(self, token: str, audiences: tuple[str, ...] = ()) -> TokenAnswer | None:
        """Return whom the token stands for."""
        user = self._users.get(_digest(token))
        if user is None:
            return None
        shared = intersection(audiences or self._api_audiences, self._api_audiences)
        return TokenAnswer(user, shared) if shared or not audiences else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read_token_file(path: str) -> dict[str, User]:
    """Read a token file as kube-apiserver has it: lines of `token,user,uid` and, quoted, `"group,group"`.

    Warns of a file that others may read. Raises TokenFileError.
    """
    try:
        mode = os.stat(path).st_mode
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except OSError as error:
        raise TokenFileError(f"token file '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenFileError(f"token file '{path}': is not UTF-8 text; write it anew") from error
    if stat.S_IMODE(mode) & 0o077:
        _log.warning("others can read the tokens; run chmod 600", path=path, mode=f"{stat.S_IMODE(mode):04o}")
    return _read_tokens(path, text)


def _read_tokens(path: str, text: str) -> dict[str, User]:
    users: dict[str, User] = {}
    reader = csv.reader(text.splitlines(keepends=True), strict=True, skipinitialspace=False)
    try:
        for record in reader:
            _add(users, record, f"token file '{path}', line {reader.line_num}")
    except csv.Error as error:
        raise TokenFileError(f"token file '{path}', line {reader.line_num}: {error}") from error
    return users


def _add(users: dict[str, User], record: list[str], where: str) -> None:
    if not record:
        return
    if len(record) < 3:
        raise TokenFileError(f"{where}: must have at least 3 columns (token, user name, user uid), found {len(record)}")
    token, name, uid = record[:3]
    if not token:
        _log.warning("an empty token is ignored", where=where)
        return
    if token in users:
        _log.warning("the same token stands there twice; the last one counts", where=where)
    groups = tuple(record[3].split(",")) if len(record) > 3 else ()
    users[token] = User(name, uid, groups)


_BOOTSTRAP: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})").fullmatch
_EXTRA_GROUP: Final = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]").fullmatch


class BootstrapTokens:
    """The tokens with which new nodes come: secrets of type `bootstrap.kubernetes.io/token` in `kube-system`."""

    def __init__(self, view: View, *, clock: Clock | None = None, api_audiences: Sequence[str] = ()) -> None:
        self._view = view
        self._clock = clock or SystemClock()
        self._api_audiences = tuple(api_audiences)

    def authenticate_token(self, token: str, audiences: tuple[str, ...] = ()) -> TokenAnswer | None:
        """Return whom the token stands for."""
        parts = _BOOTSTRAP(token)
        if parts is None:
            return None
        key: Dependency = ("secrets", "kube-system", f"bootstrap-token-{parts[1]}")
        secret = self._view.get(*key)
        if secret is None or not self._good(secret, parts[1], parts[2]):
            return None
        groups = _bootstrap_groups(secret)
        shared = intersection(audiences or self._api_audiences, self._api_audiences)
        if groups is None or (audiences and not shared):
            return None
        expires = self._expiration(secret)
        return TokenAnswer(User(f"system:bootstrap:{parts[1]}", groups=groups), shared, (key,), expires)

    def _good(self, secret: Object, token_id: str, token_secret: str) -> bool:
        if secret["metadata"].get("deletionTimestamp") or secret.get("type") != "bootstrap.kubernetes.io/token":
            return False
        if not hmac.compare_digest(secret_value(secret, "token-secret").encode(), token_secret.encode()):
            return False
        if secret_value(secret, "token-id") != token_id:
            return False
        expires = self._expiration(secret)
        if expires is not None and expires < self._clock.now().timestamp():
            return False
        return secret_value(secret, "usage-bootstrap-authentication") == "true"

    @staticmethod
    def _expiration(secret: Object) -> float | None:
        text = secret_value(secret, "expiration")
        if not text:
            return None
        try:
            return times.parse(text).timestamp()
        except times.TimeError:
            return 0.0


def _bootstrap_groups(secret: Object) -> tuple[str, ...] | None:
    extra = secret_value(secret, "auth-extra-groups")
    groups = {"system:bootstrappers"}
    for group in extra.split(",") if extra else ():
        if not _EXTRA_GROUP(group):
            return None
        groups.add(group)
    return tuple(sorted(groups))


def secret_value(secret: Object, key: str) -> str:
    """Return a value of a secret as text, empty where it has none or one that is no text."""
    value = (secret.get("data") or {}).get(key)
    if not isinstance(value, str):
        return ""
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
