"""What people log in with: a bearer token, or a kubeconfig of which only the credentials are taken. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["MOST_BYTES", "Pasted", "PastedError", "read_pasted"]

MOST_BYTES: Final = 64 << 10
_MOST_TOKEN: Final = 16 << 10


class PastedError(ValueError):
    """What was pasted is nothing to log in with; the message says what is wanted and never what there was."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """Credentials of one user: a token, or a certificate with its key as PEM."""

    token: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)


def read_pasted(text: str) -> Pasted:
    """Return the credentials in a text. Raises PastedError.

    Of a kubeconfig the user of its current context counts, with token or embedded certificate; files and programs that
    it names are those of another machine, and its server is not asked.
    """
    text = text.strip()
    if not text:
        raise PastedError("nothing was given; paste a token or a kubeconfig")
    if len(text.encode()) > MOST_BYTES:
        raise PastedError(f"that is over {MOST_BYTES >> 10} KiB, which no token and no kubeconfig of one user is")
    if "\n" not in text and ":" not in text and "{" not in text:
        return Pasted(token=_token(text.removeprefix("Bearer ").strip()))
    return _of_kubeconfig(_parsed(text))


def _token(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > _MOST_TOKEN:
        raise PastedError("that is no bearer token: it has spaces, or characters that no token has, or is too long")
    return text


def _parsed(text: str) -> dict[str, Any]:
    import yaml  # noqa: PLC0415  # only for kubeconfigs

    try:
        # what refers to itself can grow without end
        has_aliases = any(isinstance(each, yaml.AliasToken) for each in yaml.scan(text, yaml.SafeLoader))
        found = None if has_aliases else yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        has_aliases, found = False, None
    if has_aliases:
        raise PastedError("a kubeconfig with anchors and aliases is not read here; write it out, or paste a token")
    if not isinstance(found, dict):
        raise PastedError("that is neither a token nor a kubeconfig; a token has no spaces and no line breaks")
    return found


def _of_kubeconfig(config: dict[str, Any]) -> Pasted:
    current = config.get("current-context")
    context = _named(config, "contexts", "context", current)
    if context is None:
        raise PastedError("the kubeconfig has no current-context that it also describes")
    user = _named(config, "users", "user", context.get("user"))
    if user is None:
        raise PastedError("the kubeconfig does not describe the user of its current context")
    if token := user.get("token"):
        return Pasted(token=_token(str(token).strip()))
    if user.get("client-certificate-data") and user.get("client-key-data"):
        return Pasted(certificate=_pem(user, "client-certificate-data"), key=_pem(user, "client-key-data"))
    raise PastedError(
        "the kubeconfig's user has neither `token` nor embedded certificate (`kubectl config view --raw --flatten "
        "--minify` embeds files); where a program gives the token, run it and paste what it prints"
    )


def _named(config: dict[str, Any], many: str, one: str, name: object) -> dict[str, Any] | None:
    listed = config.get(many)
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and name and each.get("name") == name and isinstance(each.get(one), dict):
            return dict(each[one])
    return None


def _pem(user: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode("".join(str(user[name]).split()), validate=True)
    except (binascii.Error, ValueError):
        raise PastedError(f"the kubeconfig's {name} is not base64") from None
