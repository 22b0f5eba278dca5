"""The images of a node: pulled or read once; layers kept by content, as long as an image or container has them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from pilothouse.foundation.files import OsFileSystem, write_whole
from pilothouse.foundation.logs import get_logger
from pilothouse.node.config import RegistryAuth
from pilothouse.node.errors import ImageInspectError, ImagePullError, NotFound
from pilothouse.node.runtime import FilesystemUsage, ImageService, ImageStatus

from .fetching import Fetched, Source, fetch, layout_source, registry_source
from .layers import LayerError, flatten, unpack
from .model import HOST, Bundle, ImageConfig
from .oci import chain_ids
from .reference import is_local, parse

__all__ = ["ImageOptions", "ImageStore"]

_VERSION = 1
_SHORT = 24
_EMPTY = "empty"
_SCRATCH = "tmp-"
_log = get_logger(__name__)


class ImageOptions(Protocol):
    """What the store is told."""

    @property
    def root(self) -> str:
        """The runtime's directory."""

    @property
    def host_image(self) -> bool:
        """Whether `image: host` is allowed."""

    @property
    def local_images(self) -> tuple[str, ...]:
        """Directories below which layouts and directories may be used as images."""

    @property
    def insecure_registries(self) -> tuple[str, ...]:
        """Registries that are spoken to without TLS."""

    @property
    def image_bytes(self) -> int:
        """How large a layer may be, unpacked."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    layers: tuple[str, ...]
    size: int
    config: ImageConfig


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    version: int = _VERSION
    images: tuple[_Stored, ...] = ()


class ImageStore(ImageService):
    """Images below `root`/images. `owners`: files get their owners, as only root can; `overlay`: layers stack."""

    def __init__(self, options: ImageOptions, *, owners: bool, overlay: bool) -> None:
        self._options = options
        self._owners = owners
        self._overlay = overlay
        self._root = f"{options.root}/images"
        self._layers = f"{self._root}/layers"
        self._images: dict[str, _Stored] = {}
        # Each is there as long as somebody pulls the image or waits for that.
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Read what there is, and remove what a crash left half done. Raises `ImageInspectError`."""
        os.makedirs(f"{self._layers}/{_EMPTY}", mode=0o755, exist_ok=True)
        for name in os.listdir(self._root):
            if name.startswith(_SCRATCH):
                await asyncio.to_thread(shutil.rmtree, f"{self._root}/{name}", ignore_errors=True)
        try:
            with open(f"{self._root}/index.json", "rb") as file:  # noqa: ASYNC230  # a small file, once
                index = msgspec.json.decode(file.read(), type=_Index)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            raise ImageInspectError(f"{self._root}/index.json: {error}") from error
        if index.version > _VERSION:
            raise ImageInspectError(
                f"{self._root}/index.json: version {index.version}; this program reads up to {_VERSION}"
            )
        self._images = {image.id: image for image in index.images}

    async def status(self, image: str) -> ImageStatus | None:
        if image == HOST:
            return ImageStatus(id=HOST, tags=(HOST,), pinned=True) if self._options.host_image else None
        if image.startswith("dir:"):
            return ImageStatus(id=image, tags=(image,)) if _is_directory(image.removeprefix("dir:")) else None
        found = self._find(image)
        return _status(found) if found is not None else None

    async def pull(self, image: str, auth: RegistryAuth | None = None) -> str:
        if is_local(image):
            self._permit(image)
        if image == HOST:
            return HOST
        if image.startswith("dir:"):
            if not _is_directory(image.removeprefix("dir:")):
                raise ImagePullError(f'failed to pull image "{image}": no such directory')
            return image
        name = image if is_local(image) else str(parse(image))
        async with self._locks.setdefault(name, asyncio.Lock()):
            if is_local(image):
                async with layout_source(image) as source:
                    return await self._take(name, source)
            registry = parse(image)
            insecure = registry.registry in self._options.insecure_registries
            async with registry_source(registry, auth, insecure=insecure) as source:
                return await self._take(name, source)

    async def load(self, image: str, name: str) -> str:
        """Read the image of a layout (`oci:` or `oci-archive:`) and give it a name; return its id.

        Raises `ImagePullError`, `InvalidImageName`.
        """
        async with layout_source(image) as source:
            return await self._take(str(parse(name)), source)

    async def list(self) -> Sequence[ImageStatus]:
        return [_status(image) for image in self._images.values()]

    async def remove(self, image: str) -> None:
        found = self._find(image)
        if found is None:
            return
        async with self._changing:
            names = () if image == found.id else tuple(name for name in found.names if name != self._name(image))
            if names:
                self._images[found.id] = msgspec.structs.replace(found, names=names)
            else:
                self._images.pop(found.id, None)
            self._save()
        await self.collect()

    async def filesystem(self) -> FilesystemUsage:
        from pilothouse.node.process.usage import directory_usage, filesystem_usage  # noqa: PLC0415  # no cycle

        used = await asyncio.to_thread(directory_usage, self._root)
        return filesystem_usage(self._root, used.used_bytes)

    async def bundle(self, image: str) -> Bundle:
        """Return an image that is here. Raises `NotFound`, `InvalidImageName`, `ImagePullError` (not permitted)."""
        if is_local(image):
            self._permit(image)
        if image == HOST:
            return Bundle(id=HOST)
        if image.startswith("dir:"):
            path = _real(image.removeprefix("dir:"))
            return Bundle(id=image, base="/", layers=(path,))
        found = self._find(image)
        if found is None:
            raise NotFound(f'image "{image}": not found')
        layers = tuple(reversed(found.layers)) or (_EMPTY,)
        return Bundle(id=found.id, config=found.config, base=self._layers, layers=layers)

    async def prepare(self, bundle: Bundle, directory: str) -> Bundle:
        """Make room for a container's own files: a layer on top, or, where nothing stacks, a copy. Raises `OSError`."""
        if self._overlay:
            os.mkdir(f"{directory}/upper", 0o755)
            os.mkdir(f"{directory}/work", 0o700)
            return bundle
        target = f"{directory}/rootfs"
        layers = [os.path.join(bundle.base, layer) for layer in bundle.layers]
        await asyncio.to_thread(flatten, layers, target, owners=self._owners)
        return msgspec.structs.replace(bundle, directory=target)

    async def collect(self) -> int:
        """Remove layers that neither an image nor a container has; return how many."""
        async with self._changing:
            wanted = {layer for image in self._images.values() for layer in image.layers} | {_EMPTY}
            wanted |= await asyncio.to_thread(_used_by_containers, f"{self._options.root}/pods")
            gone = [name for name in os.listdir(self._layers) if name not in wanted]
            for name in gone:
                # Out of the way first, so that a crash leaves no half of a layer under its name.
                grave = f"{self._root}/{_SCRATCH}{name}"
                os.rename(f"{self._layers}/{name}", grave)
                await asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True)
        return len(gone)

    async def _take(self, name: str, source: Source) -> str:
        scratch = tempfile.mkdtemp(prefix=_SCRATCH, dir=self._root)
        try:
            fetched = await fetch(source, name)
            chains = chain_ids(fetched.diff_ids)
            short = [chain.partition(":")[2][:_SHORT] for chain in chains]
            for number, layer in enumerate(short):
                await self._layer(name, fetched, number, layer, short[:number], source, scratch)
            async with self._changing:
                self._enter(name, fetched, tuple(short))
        except (LayerError, OSError) as error:
            raise ImagePullError(
                f'failed to pull and unpack image "{name}": failed to extract layer: {error}'
            ) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        return fetched.id

    async def _layer(  # a layer is all of these
        self,
        name: str,
        fetched: Fetched,
        number: int,
        layer: str,
        below: Sequence[str],
        source: Source,
        scratch: str,
    ) -> None:
        if _is_directory(f"{self._layers}/{layer}"):
            return
        packed, unpacked = f"{scratch}/packed-{number}", f"{scratch}/layer-{number}"
        await source.blob(fetched.layers[number], packed)
        lower = [f"{self._layers}/{part}" for part in reversed(below)]
        digest, _ = await asyncio.to_thread(
            unpack, packed, unpacked, lower, owners=self._owners, limit=self._options.image_bytes
        )
        os.unlink(packed)
        if digest != fetched.diff_ids[number]:
            raise ImagePullError(
                f'failed to pull and unpack image "{name}": wrong diff id calculated on extraction: {digest}, '
                f"expected {fetched.diff_ids[number]}"
            )
        try:
            os.rename(unpacked, f"{self._layers}/{layer}")
        except OSError:
            if not _is_directory(f"{self._layers}/{layer}"):  # another image brought the same one meanwhile
                raise

    def _enter(self, name: str, fetched: Fetched, layers: tuple[str, ...]) -> None:
        for other in list(self._images.values()):
            if name in other.names and other.id != fetched.id:
                rest = tuple(known for known in other.names if known != name)
                self._images[other.id] = msgspec.structs.replace(other, names=rest)
        before = self._images.get(fetched.id)
        digest = f"{name.partition('@')[0].rpartition(':')[0] or name}@{fetched.digest}"
        names: tuple[str, ...] = (name,)
        digests: tuple[str, ...] = () if is_local(name) else (digest,)
        if before is not None:
            names = tuple(dict.fromkeys((*before.names, name)))
            digests = tuple(dict.fromkeys((*before.digests, *digests)))
        self._images[fetched.id] = _Stored(
            id=fetched.id, names=names, digests=digests, layers=layers, size=fetched.size, config=fetched.config
        )
        self._save()

    def _save(self) -> None:
        data = msgspec.json.encode(_Index(images=tuple(self._images.values())))
        write_whole(OsFileSystem(), f"{self._root}/index.json", data, 0o600)

    def _find(self, image: str) -> _Stored | None:
        if image in self._images:
            return self._images[image]
        if (found := self._images.get(f"sha256:{image}")) is not None:
            return found
        name = self._name(image)
        return next((found for found in self._images.values() if name in found.names or name in found.digests), None)

    def _name(self, image: str) -> str:
        return image if is_local(image) or image in self._images else str(parse(image))

    def _permit(self, image: str) -> None:
        if image == HOST:
            if not self._options.host_image:
                raise ImagePullError("image: host is not allowed on this node")
            return
        path = _real(image.partition(":")[2])
        allowed = [_real(root) for root in self._options.local_images]
        if not any(os.path.commonpath((path, root)) == root for root in allowed):
            raise ImagePullError(
                f'failed to pull image "{image}": not below a directory that this node allows (local_images)'
            )


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)


def _real(path: str) -> str:
    return os.path.realpath(path)


def _status(image: _Stored) -> ImageStatus:
    return ImageStatus(id=image.id, tags=image.names, digests=image.digests, size=image.size, user=image.config.user)


class _UsedRoot(msgspec.Struct, frozen=True):
    lower: tuple[str, ...] = ()


class _Used(msgspec.Struct, frozen=True):
    root: _UsedRoot


def _used_by_containers(pods: str) -> set[str]:
    found: set[str] = set()
    for pod in _listing(pods):
        for container in _listing(f"{pods}/{pod}/containers"):
            path = f"{pods}/{pod}/containers/{container}/spec.json"
            with contextlib.suppress(OSError, msgspec.MsgspecError), open(path, "rb") as file:
                found.update(msgspec.json.decode(file.read(), type=_Used).root.lower)
    return found


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
