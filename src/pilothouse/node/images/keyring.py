"""Credentials of registries out of Docker's configuration files, and which of them go with an image. Pure."""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from pilothouse.node.config import RegistryAuth

from .reference import Reference

__all__ = ["CONFIG", "CONFIG_JSON", "Keyring", "KeyringError"]

CONFIG_JSON: Final = ".dockerconfigjson"
CONFIG: Final = ".dockercfg"
"""The keys of secrets of the types kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg."""

_DEFAULT_REGISTRY: Final = "docker.io"
_DEFAULT_KEY: Final = "index.docker.io"
_VERSIONS: Final = ("/v1/", "/v2/")


class KeyringError(ValueError):
    """A configuration cannot be read; the message never shows what is in it."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _ConfigJson(msgspec.Struct, frozen=True, kw_only=True):
    auths: dict[str, _Entry] = {}


class Keyring:
    """Credentials by registry and path, as a kubelet matches them.

    A key is a host, maybe with a port, and maybe a path; `*` stands for anything in one label of the host.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[RegistryAuth]] = {}

    def add(self, data: Mapping[str, bytes]) -> None:
        """Add what a secret has under the keys of such secrets. Raises `KeyringError`."""
        try:
            if CONFIG_JSON in data:
                entries = msgspec.json.decode(data[CONFIG_JSON], type=_ConfigJson).auths
            elif CONFIG in data:
                entries = msgspec.json.decode(data[CONFIG], type=dict[str, _Entry])
            else:
                raise KeyringError(f'it has neither "{CONFIG_JSON}" nor "{CONFIG}"')
        except msgspec.MsgspecError:
            raise KeyringError("what it has is no configuration of Docker") from None
        for place, entry in entries.items():
            self._found.setdefault(_key(place), []).append(_auth(place, entry))

    def lookup(self, image: Reference) -> tuple[RegistryAuth, ...]:
        """Return the credentials to try for an image, those of the longest path first."""
        name = image.name
        # In reverse order of the text a longer path comes before its beginning.
        found = [auth for key in sorted(self._found, reverse=True) if _matches(key, name) for auth in self._found[key]]
        if not found and image.registry == _DEFAULT_REGISTRY:
            found = self._found.get(_DEFAULT_KEY, [])
        return tuple(found)


def _auth(place: str, entry: _Entry) -> RegistryAuth:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            text = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise KeyringError(f'"auth" of "{place}" is not in base64') from None
        username, colon, password = text.partition(":")
        if not colon:
            raise KeyringError(f'"auth" of "{place}" is not a name and a password with a colon between them')
        password = password.rstrip("\0")
    return RegistryAuth(
        username=username,
        password=password,
        identity_token=entry.identitytoken,
        registry_token=entry.registrytoken,
    )


def _key(place: str) -> str:
    """Return host and path of a key, without the versions of Docker's protocol that clients put there."""
    split = urlsplit(place if place.startswith(("https://", "http://")) else f"https://{place}")
    path = split.path
    if path.startswith(_VERSIONS):
        path = path[3:]
    return split.netloc + ("" if path == "/" else path)


def _matches(key: str, name: str) -> bool:
    host, _, path = key.partition("/")
    own_host, _, own_path = name.partition("/")
    labels, port = _host(host)
    own_labels, own_port = _host(own_host)
    return (
        port == own_port
        and len(labels) == len(own_labels)
        and own_path.startswith(path)
        and all(fnmatch.fnmatchcase(own, wanted) for own, wanted in _pairs(own_labels, labels))
    )


def _host(host: str) -> tuple[list[str], str]:
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name, port = host, ""
    return name.split("."), port


def _pairs(first: Iterable[str], second: Iterable[str]) -> Iterable[tuple[str, str]]:
    return zip(first, second, strict=True)
