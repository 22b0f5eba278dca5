"""OCI image layouts: a directory, or the same in a tar file."""

from __future__ import annotations

import os
import tarfile
from typing import IO, Protocol

import msgspec

from pilothouse.node.errors import ImagePullError

from .oci import Descriptor, Index

__all__ = ["Layout", "LayoutArchive", "LayoutDirectory", "find_image", "open_layout"]

_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_MAX_INDEX = 4 << 20


class Layout(Protocol):
    """Where blobs come from."""

    def index(self) -> Index:
        """Return `index.json`. Raises `OSError`, `ValueError`."""

    def open(self, digest: str) -> IO[bytes]:
        """Open a blob. Raises `OSError`."""

    def close(self) -> None:
        """Close what is open."""


class LayoutDirectory:
    """A layout in a directory."""

    def __init__(self, path: str) -> None:
        self._path = path

    def index(self) -> Index:
        with open(f"{self._path}/index.json", "rb") as file:
            return msgspec.json.decode(file.read(_MAX_INDEX), type=Index)

    def open(self, digest: str) -> IO[bytes]:
        algorithm, _, value = digest.partition(":")
        if not (algorithm.isalnum() and value.isalnum()):
            raise ValueError(f'digest "{digest}": not one')
        return open(f"{self._path}/blobs/{algorithm}/{value}", "rb")

    def close(self) -> None:
        pass


class LayoutArchive:
    """A layout in a tar file, not compressed."""

    def __init__(self, path: str) -> None:
        self._tar = tarfile.open(path, "r:")  # noqa: SIM115  # it lives as long as this

    def index(self) -> Index:
        return msgspec.json.decode(self._member("index.json").read(_MAX_INDEX), type=Index)

    def open(self, digest: str) -> IO[bytes]:
        return self._member(f"blobs/{digest.replace(':', '/', 1)}")

    def close(self) -> None:
        self._tar.close()

    def _member(self, name: str) -> IO[bytes]:
        for spelled in (name, f"./{name}"):
            try:
                found = self._tar.extractfile(spelled)
            except KeyError:
                continue
            if found is not None:
                return found
        raise FileNotFoundError(2, "not in the archive", name)


def open_layout(image: str) -> tuple[Layout, str]:
    """Open the layout of an `oci:` or `oci-archive:` image; return it and the tag. Raises `ImagePullError`."""
    scheme, _, rest = image.partition(":")
    path, tag = rest, ""
    if not os.path.exists(path):
        path, _, tag = rest.rpartition(":")
    try:
        layout: Layout = LayoutDirectory(path) if scheme == "oci" else LayoutArchive(path)
        layout.index()
    except (OSError, tarfile.TarError, msgspec.MsgspecError) as error:
        raise ImagePullError(f'failed to pull image "{image}": not an OCI layout: {error}') from error
    return layout, tag


def find_image(index: Index, tag: str, image: str) -> Descriptor:
    """Return a layout's image by its tag; without one there has to be just one. Raises `ImagePullError`."""
    named = [
        entry
        for entry in index.manifests
        if not tag
        or (entry.annotations or {}).get(_REF_NAME) == tag
        or (entry.annotations or {}).get(_FULL_NAME, "").endswith(f":{tag}")
    ]
    if len(named) == 1:
        return named[0]
    if not named:
        raise ImagePullError(f'failed to pull image "{image}": the layout has no image "{tag}": not found')
    raise ImagePullError(f'failed to pull image "{image}": the layout has {len(named)} images; add ":tag"')
