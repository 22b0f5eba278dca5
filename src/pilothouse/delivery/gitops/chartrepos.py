"""Chart repositories and registries, as the real `helm` is told of them: by files that are there for one run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from .addresses import is_here, parse_address
from .errors import RepositoryError
from .git import Access

__all__ = ["ChartRemote", "RunHelm", "check_remote", "command_of", "introduce", "is_registry"]

_OCI: Final = "oci://"


class ChartRemote(NamedTuple):
    """A chart repository (https) or a registry (oci). name: of a repository for helm, `source/CHART`."""

    url: str
    access: Access
    name: str = "source"


class RunHelm(Protocol):
    """Runs helm with some words."""

    def __call__(self, *words: str, stdin: bytes = b"") -> Awaitable[bytes]:
        """Return what it printed. Raises ToolError."""
        ...


def command_of(words: Sequence[str]) -> str:
    """Return a command of helm for errors, without what it is about."""
    return " ".join(["helm", *words[: 2 if words[0] in {"dependency", "registry", "repo"} else 1]])


def is_registry(url: str) -> bool:
    """Whether an address is that of a registry: `oci://`, or as Argo CD writes it, without a scheme."""
    return url.startswith(_OCI) or "://" not in url


def check_remote(remote: ChartRemote, *, plain_http: bool) -> None:
    """Refuse addresses by which no charts come, and plain HTTP to other machines. Raises RepositoryError."""
    if not is_registry(remote.url):
        if parse_address(remote.url, plain_http=plain_http).scheme not in {"https", "http"}:
            raise RepositoryError(f"repoURL: {remote.url[:100]!r}: charts come by https or oci")
        return
    address = parse_address(f"https://{remote.url.removeprefix(_OCI)}")
    if remote.access.plain_http and not plain_http and not is_here(address.host):
        raise RepositoryError(
            f"repoURL: {remote.url[:100]!r}: insecureOCIForceHttp is for registries on this machine alone; use TLS"
        )


async def introduce(helm: RunHelm, home: str, remotes: Sequence[ChartRemote], *, plain_http: bool) -> list[str]:
    """Tell helm of these, with what opens them; return the words for registries that further runs want.

    home: of helm for these runs, removed after them. Raises RepositoryError and ToolError.
    """
    for remote in remotes:
        check_remote(remote, plain_http=plain_http)
    registries = [remote for remote in remotes if is_registry(remote.url)]
    repositories = [remote for remote in remotes if not is_registry(remote.url)]
    if repositories:
        listed = [_entry(home, number, remote) for number, remote in enumerate(repositories)]
        config = msgspec.json.encode({"apiVersion": "", "repositories": listed})
        await asyncio.to_thread(_write, os.path.join(home, "helm", "config", "repositories.yaml"), config)
        await helm("repo", "update", *(remote.name for remote in repositories))
    words: list[str] = []
    for number, remote in enumerate(registries):
        own = _words(home, f"registry{number}", remote.access)
        words = words or own
        if remote.access.password:
            host = remote.url.removeprefix(_OCI).partition("/")[0]
            login = ["--insecure" if word == "--insecure-skip-tls-verify" else word for word in own]
            who = ["--username", remote.access.username, "--password-stdin"]
            await helm("registry", "login", *who, *login, host, stdin=remote.access.password.encode())
    return words


def _entry(home: str, number: int, remote: ChartRemote) -> dict[str, object]:
    """Return a repository as helm's file has it; there the password is in no command line."""
    access = remote.access
    made: dict[str, object] = {"name": remote.name, "url": remote.url}
    made |= {"username": access.username, "password": access.password} if access.password else {}
    made |= {"insecure_skip_tls_verify": access.insecure}
    return made | {
        field: _file(home, f"repository{number}-{field}", data)
        for field, data in (("caFile", access.ca), ("certFile", access.tls_certificate), ("keyFile", access.tls_key))
        if data
    }


def _words(home: str, name: str, access: Access) -> list[str]:
    words = ["--plain-http"] if access.plain_http else []
    words += ["--insecure-skip-tls-verify"] if access.insecure and not access.plain_http else []
    for option, data in (
        ("--ca-file", access.ca),
        ("--cert-file", access.tls_certificate),
        ("--key-file", access.tls_key),
    ):
        words += [option, _file(home, f"{name}{option}", data)] if data else []
    return words


def _file(home: str, name: str, text: str) -> str:
    place = os.path.join(home, name)
    _write(place, text.encode())
    return place


def _write(place: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
