"""Plain directories: each YAML and JSON file of a tree is manifests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pilothouse.delivery.resources.applications import SourceDirectory

from .errors import ManifestError
from .globs import matches
from .manifests import Manifest, read_manifests
from .mirrors import Entry, Limits, Mirror

__all__ = ["chosen", "read_directory", "resolve_link"]

_ENDS: Final = (".yaml", ".yml", ".json")
_MAX_LINKS: Final = 20
_LARGE: Final = 1 << 18


def chosen(entries: Sequence[Entry], options: SourceDirectory) -> list[Entry]:
    """Return the files and links of a directory that are manifests. Raises ManifestError for Jsonnet."""
    found = []
    for each in entries:
        if "/" in each.path and not options.recurse:
            continue
        if options.exclude and matches(options.exclude, each.path):
            continue
        if options.include and not matches(options.include, each.path):
            continue
        if each.path.endswith(".jsonnet"):
            raise ManifestError(each.path, "Jsonnet is not rendered here; exclude it, or commit what it gives")
        if each.path.endswith(_ENDS) and (each.is_file or each.is_link):
            found.append(each)
    return found


async def read_directory(
    mirror: Mirror, path: str, tree: str, options: SourceDirectory, limits: Limits
) -> list[Manifest]:
    """Return the objects of a directory's files, in the order of their paths. Raises SourceError."""
    entries = await mirror.entries(tree, recurse=bool(options.recurse))
    files = chosen(entries, options)
    by_path = {each.path: each for each in entries}
    targets = await _links(mirror, path, files, by_path)
    real = [targets.get(each.path, each) for each in files]
    for named, each in zip(files, real, strict=True):
        if each.size > limits.file_bytes:
            raise ManifestError(
                _full(path, named.path), f"it has {each.size} bytes; at most {limits.file_bytes} are read"
            )
    held = await mirror.blobs(real)
    found: list[Manifest] = []
    for named, each in zip(files, real, strict=True):
        file, data = _full(path, named.path), held[each.oid]
        # A large file must not hold up all others.
        found += (
            await asyncio.to_thread(read_manifests, file, data) if len(data) > _LARGE else read_manifests(file, data)
        )
    return found


async def _links(mirror: Mirror, path: str, files: Sequence[Entry], by_path: dict[str, Entry]) -> dict[str, Entry]:
    """Return where links lead. Raises ManifestError for those that lead out of the directory, or nowhere."""
    links = [each for each in by_path.values() if each.is_link]
    if not any(each.is_link for each in files):
        return {}
    held = await mirror.blobs(links)
    texts = {each.path: held[each.oid].decode(errors="replace") for each in links}
    return {
        each.path: by_path[target]
        for each in files
        if each.is_link and (target := resolve_link(path, each.path, texts, by_path))
    }


def resolve_link(path: str, link: str, links: dict[str, str], known: dict[str, Entry]) -> str:
    """Return the path of the file to which a link leads. links: targets by path. Raises ManifestError."""
    at = link
    for _ in range(_MAX_LINKS):
        text = links[at]
        target = _joined(at, text)
        if target is None:
            raise ManifestError(_full(path, link), f"this link leads to {text[:200]!r}, out of the directory")
        if target not in known:
            raise ManifestError(_full(path, link), f"this link leads to {text[:200]!r}, where no file is")
        if target not in links:
            return target
        at = target
    raise ManifestError(_full(path, link), "this link leads in a circle")


def _joined(link: str, target: str) -> str | None:
    """Return the path from the directory on, None where it leaves it."""
    if target.startswith("/") or "\0" in target:
        return None
    parts = link.split("/")[:-1]
    for part in target.split("/"):
        if part in {"", "."}:
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _full(path: str, name: str) -> str:
    # Names in git are bytes; those that are no text are shown with backslashes.
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return f"{path}/{shown}" if path else shown
