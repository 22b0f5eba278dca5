"""An image's documents and layers out of a registry or a layout, checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from pilothouse.node.config import RegistryAuth
from pilothouse.node.errors import ImagePullError

from .layout import Layout, find_image, open_layout
from .model import ImageConfig
from .oci import Config, Descriptor, Index, Manifest, check_digest, digest_of, own_architecture, read_document, select
from .reference import Reference
from .registry import Registry

__all__ = ["Fetched", "Source", "fetch", "layout_source", "registry_source"]

_MAX_CONFIG = 4 << 20


class Source(Protocol):
    """Where an image comes from."""

    async def top(self) -> bytes:
        """Return the manifest or index that the name leads to. Raises `ImagePullError`."""

    async def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest or configuration. Raises `ImagePullError`."""

    async def blob(self, wanted: Descriptor, path: str) -> None:
        """Write a blob to a new file, checked. Raises `ImagePullError`, `OSError`."""


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An image's documents, and its layers from the lowest to the topmost."""

    id: str
    digest: str
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    size: int


async def fetch(source: Source, name: str) -> Fetched:
    """Return the documents of the image for this machine. Raises `ImagePullError`."""
    try:
        data = await source.top()
        top = digest_of(data)
        document = read_document(data)
        if isinstance(document, Index):
            document = read_document(await source.document(select(document, own_architecture())))
        if not isinstance(document, Manifest):
            raise ImagePullError(f'failed to pull and unpack image "{name}": an index in an index')
        text = await source.document(document.config)
        config = msgspec.json.decode(text, type=Config)
        if len(config.rootfs.diff_ids) != len(document.layers):
            raise ImagePullError(
                f'failed to pull and unpack image "{name}": mismatched image rootfs and manifest layers'
            )
    except (ValueError, msgspec.MsgspecError) as error:
        raise ImagePullError(f'failed to pull and unpack image "{name}": {error}') from error
    return Fetched(
        id=document.config.digest,
        digest=top,
        config=config.config or ImageConfig(),
        layers=document.layers,
        diff_ids=config.rootfs.diff_ids,
        size=sum(layer.size for layer in document.layers) + document.config.size,
    )


@asynccontextmanager
async def layout_source(image: str) -> AsyncIterator[Source]:
    """Open a layout as a source. Raises `ImagePullError`."""
    layout, tag = await asyncio.to_thread(open_layout, image)
    try:
        yield _LayoutSource(layout, find_image(layout.index(), tag, image), image)
    finally:
        layout.close()


@asynccontextmanager
async def registry_source(reference: Reference, auth: RegistryAuth | None, *, insecure: bool) -> AsyncIterator[Source]:
    """Open a registry as a source. Raises `RuntimeUnavailable` where the library for it is missing."""
    async with Registry(reference, auth, insecure=insecure) as registry:
        yield _RegistrySource(registry, reference)


class _LayoutSource:
    def __init__(self, layout: Layout, image: Descriptor, name: str) -> None:
        self._layout = layout
        self._image = image
        self._name = name

    async def top(self) -> bytes:
        return await self.document(self._image)

    async def document(self, wanted: Descriptor) -> bytes:
        try:
            with self._layout.open(wanted.digest) as file:
                data = file.read(_MAX_CONFIG)
        except OSError as error:
            raise ImagePullError(f'failed to pull image "{self._name}": {wanted.digest}: {error.strerror}') from error
        check_digest(data, wanted.digest)
        return data

    async def blob(self, wanted: Descriptor, path: str) -> None:
        await asyncio.to_thread(self._copy, wanted, path)

    def _copy(self, wanted: Descriptor, path: str) -> None:
        algorithm, _, expected = wanted.digest.partition(":")
        with self._layout.open(wanted.digest) as source, open(path, "xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != expected:
            os.unlink(path)
            raise ImagePullError(
                f'failed to pull image "{self._name}": unexpected digest {algorithm}:{found}, expected {wanted.digest}'
            )


class _RegistrySource:
    def __init__(self, registry: Registry, reference: Reference) -> None:
        self._registry = registry
        self._reference = reference

    async def top(self) -> bytes:
        data, _, _ = await self._registry.manifest(self._reference.digest or self._reference.tag)
        return data

    async def document(self, wanted: Descriptor) -> bytes:
        if "manifest" in wanted.media_type or wanted.platform is not None:
            data, _, _ = await self._registry.manifest(wanted.digest)
            return data
        data = await self._registry.small_blob(wanted, _MAX_CONFIG)
        check_digest(data, wanted.digest)
        return data

    async def blob(self, wanted: Descriptor, path: str) -> None:
        await self._registry.blob(wanted, path)
