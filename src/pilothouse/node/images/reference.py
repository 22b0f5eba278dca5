"""Names of images, as Docker and the OCI distribution specification have them. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from pilothouse.node.errors import InvalidImageName

from .model import HOST

__all__ = ["LOCAL_SCHEMES", "Reference", "is_local", "parse"]

LOCAL_SCHEMES = ("oci:", "oci-archive:", "dir:")
"""Images that are a directory or file of this machine; after the path of the first two may come `:tag`."""

_DEFAULT_REGISTRY, _DEFAULT_TAG, _LIBRARY = "docker.io", "latest", "library/"
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MAX_NAME = 255


class Reference(NamedTuple):
    """A full name: `tag` is empty only where `digest` is not."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The name without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_local(image: str) -> bool:
    """Whether an image is of this machine: its own files, a layout or a directory."""
    return image == HOST or image.startswith(LOCAL_SCHEMES)


def parse(image: str) -> Reference:
    """Return the full name of an image. Raises `InvalidImageName`."""
    rest, _, digest = image.partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise _invalid(image, "invalid checksum digest format")
    first, slash, after = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        registry, rest = first, after
    else:
        registry = _DEFAULT_REGISTRY
    if registry == "index.docker.io":
        registry = _DEFAULT_REGISTRY
    repository, colon, tag = rest.partition(":")
    if registry == _DEFAULT_REGISTRY and "/" not in repository:
        repository = _LIBRARY + repository
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(image, "invalid reference format")
    if not _DOMAIN.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
        lower = repository.lower() != repository
        why = f"repository name ({repository}) must be lowercase" if lower else ""
        raise _invalid(image, f"invalid reference format{f': {why}' if why else ''}")
    if len(registry) + 1 + len(repository) > _MAX_NAME:
        raise _invalid(image, f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(registry, repository, tag or ("" if digest else _DEFAULT_TAG), digest)


def _invalid(image: str, why: str) -> InvalidImageName:
    return InvalidImageName(f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {why}')
