"""Addresses of repositories: which are allowed, and which of them mean the same."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from .errors import RepositoryError

__all__ = ["Address", "is_here", "normalised", "parse_address", "without_password"]

_SCP: Final = re.compile(r"(?:(?P<user>[A-Za-z0-9_.-]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^:\s][^\s]*)")
_SCHEMES: Final = frozenset({"https", "http", "ssh", "file"})
_MAX: Final = 2048


class Address(NamedTuple):
    """An address that git may be given. scheme: https, http, ssh or file."""

    url: str
    scheme: str
    host: str


def parse_address(url: str, *, plain_http: bool = False) -> Address:
    """Return an address that git may be given; plain_http: also where the host is not this machine.

    Raises RepositoryError for other transports, options in disguise and passwords in the address.
    """
    if not url or len(url) > _MAX or url != url.strip() or any(ord(each) < 33 or ord(each) == 127 for each in url):
        raise RepositoryError(f"repoURL: {url[:100]!r} is no address; write https://, ssh://, git@host:path or file://")
    if url.startswith("-") or "::" in url.partition("/")[0]:
        raise RepositoryError(f"repoURL: {url[:100]!r}: such transports are not allowed; use https, ssh or file")
    return _parsed(url, plain_http=plain_http) if "://" in url else _scp(url)


def _scp(url: str) -> Address:
    found = _SCP.fullmatch(url)
    if found is None or found["path"].startswith("-"):
        raise RepositoryError(f"repoURL: {url[:100]!r} is no address; write https://, ssh://, git@host:path, file://")
    return Address(url, "ssh", found["host"])


def _parsed(url: str, *, plain_http: bool) -> Address:
    try:
        parts = urlsplit(url)
        host, password = parts.hostname or "", parts.password
    except ValueError as error:
        raise RepositoryError(f"repoURL: {without_password(url)[:100]!r}: {error}") from None
    problem = ""
    if parts.scheme not in _SCHEMES:
        problem = f"transport {parts.scheme!r} is not allowed; use https, ssh or file"
    elif password is not None:
        problem = f"{without_password(url)}: a password; put it into a repository Secret"
    elif parts.scheme == "file" and (host not in {"", "localhost"} or not parts.path.startswith("/")):
        problem = f"{url[:100]!r}: want file:///PATH"
    elif parts.scheme != "file" and (not host or host.startswith("-")):
        problem = f"{url[:100]!r} names no host"
    elif parts.scheme == "http" and not plain_http and not is_here(host):
        problem = f"{url[:100]!r}: plain HTTP is for this machine alone; use https"
    if problem:
        raise RepositoryError(f"repoURL: {problem}")
    return Address(url, parts.scheme, host)


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def without_password(url: str) -> str:
    """Return an address without what stands between the scheme and `@`."""
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@", "", url)


def normalised(url: str) -> str:
    """Return the same text for addresses that mean the same repository.

    As Argo CD does: without user, `.git` and a slash at the end, and in lower case; registries without `oci://`.
    """
    text = re.sub(r"^(?:oci://)+", "", url.strip().lower())
    if "://" not in text and (found := _SCP.fullmatch(text)):
        text = f"ssh://{found['host']}/{found['path'].lstrip('/')}"
    scheme, sep, rest = text.partition("://")
    if sep:
        authority, slash, path = rest.partition("/")
        text = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return text.rstrip("/").removesuffix(".git").rstrip("/")
