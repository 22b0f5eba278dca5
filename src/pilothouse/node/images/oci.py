"""Documents of the OCI image specification, and which part of an index is for this machine. Pure."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence

import msgspec

from .model import ImageConfig

__all__ = [
    "ACCEPTED",
    "Config",
    "Descriptor",
    "Index",
    "Manifest",
    "Platform",
    "chain_ids",
    "check_digest",
    "digest_of",
    "own_architecture",
    "read_document",
    "select",
]

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ACCEPTED = ", ".join((*_MANIFESTS, *_INDEXES))
_MAX_LAYERS = 256
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Platform(msgspec.Struct, frozen=True):
    """For what a manifest is."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """What something is, by its content."""

    digest: str
    size: int = 0
    media_type: str = msgspec.field(name="mediaType", default="")
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """A list of manifests, one for each platform, or of a layout's images."""

    manifests: tuple[Descriptor, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """An image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class _RootFs(msgspec.Struct, frozen=True, kw_only=True):
    diff_ids: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """An image's configuration."""

    architecture: str = ""
    os: str = ""
    config: ImageConfig | None = None
    rootfs: _RootFs = _RootFs()


def read_document(data: bytes, media_type: str = "") -> Index | Manifest:
    """Read a manifest or an index, told by its content. Raises `ValueError`."""
    try:
        keys = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if "manifests" in keys:
            return msgspec.json.decode(data, type=Index)
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a manifest{f' ({media_type})' if media_type else ''}: {error}") from error
    if len(manifest.layers) > _MAX_LAYERS:
        raise ValueError(f"{len(manifest.layers)} layers; at most {_MAX_LAYERS} are taken")
    return manifest


def own_architecture() -> str:
    """Return this machine's architecture as images name it."""
    return _MACHINES.get(platform.machine(), platform.machine())


def select(index: Index, architecture: str, system: str = "linux") -> Descriptor:
    """Return the manifest for a platform. Raises `ValueError` that names those there are."""
    fitting = [
        entry for entry in index.manifests if entry.platform is None or _fits(entry.platform, architecture, system)
    ]
    # One that says for what it is goes before one that does not; attestations are for the platform "unknown".
    fitting.sort(key=lambda entry: entry.platform is None)
    if not fitting:
        there = ", ".join(
            sorted(
                {f"{entry.platform.os}/{entry.platform.architecture}" for entry in index.manifests if entry.platform}
            )
        )
        raise ValueError(
            f"no match for platform in manifest: {system}/{architecture} is wanted, there are: {there or 'none'}"
        )
    return fitting[0]


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the name of each layer with all below it, as the specification has it."""
    found: list[str] = []
    for diff_id in diff_ids:
        found.append(digest_of(f"{found[-1]} {diff_id}".encode()) if found else diff_id)
    return found


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_digest(data: bytes, digest: str) -> None:
    """Raise `ValueError` where bytes are not those of a digest."""
    algorithm, _, wanted = digest.partition(":")
    if algorithm not in {"sha256", "sha512"}:
        raise ValueError(f'digest "{digest}": unknown algorithm; sha256 and sha512 are taken')
    found = hashlib.new(algorithm, data).hexdigest()
    if found != wanted:
        raise ValueError(f"unexpected digest {algorithm}:{found}, expected {digest}")


def _fits(found: Platform, architecture: str, system: str) -> bool:
    return found.architecture == architecture and found.os == system
