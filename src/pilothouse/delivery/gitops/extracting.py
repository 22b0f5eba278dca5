"""Directories of a commit put on the disk for a program that renders them: only what it needs, nothing that escapes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence

from .directory import resolve_link
from .errors import ManifestError, RepositoryError
from .manifests import LFS, is_lfs_pointer
from .mirrors import Entry, Limits, Mirror

__all__ = ["extract"]

_READ = (".yaml", ".yml", ".json", ".tpl", ".tgz", ".gz")


async def extract(mirror: Mirror, commit: str, paths: Iterable[str], target: str, limits: Limits) -> None:
    """Write directories and files of a commit below `target`, at their paths.

    Links become copies of the files that they lead to, within the same directory. Raises ManifestError for others, and
    RepositoryError where it is too much.
    """
    named = await mirror.named(commit, paths)
    for path, found in named.items():
        if found is None:
            raise RepositoryError(f"path {path!r}: the commit does not have it")
        if found.kind == "blob":
            entries: Sequence[Entry] = [Entry("", "100644", found.oid, found.size)]
        elif found.kind == "tree":
            entries = await mirror.entries(found.oid)
        else:
            raise RepositoryError(f"path {path!r} is a submodule; submodules are not fetched")
        await _write(mirror, path, entries, target, limits)


async def _write(mirror: Mirror, path: str, entries: Sequence[Entry], target: str, limits: Limits) -> None:
    for each in entries:
        if each.size > limits.file_bytes:
            raise ManifestError(
                f"{path}/{each.path}", f"it has {each.size} bytes; at most {limits.file_bytes} are read"
            )
    files = [each for each in entries if each.is_file or each.is_link]
    held = await mirror.blobs(files)
    by_path = {each.path: each for each in files}
    links = {each.path: held[each.oid].decode(errors="replace") for each in files if each.is_link}
    written: dict[str, tuple[bytes, bool]] = {}
    for each in files:
        source = by_path[resolve_link(path, each.path, links, by_path)] if each.is_link else each
        place = "/".join(part for part in (path, each.path) if part)
        if is_lfs_pointer(held[source.oid]) and (not each.path or place.endswith(_READ)):
            raise ManifestError(place, LFS)
        written[place] = held[source.oid], source.mode == "100755"
    await asyncio.to_thread(_write_all, target, written)


def _write_all(target: str, files: dict[str, tuple[bytes, bool]]) -> None:
    for path, (data, _) in files.items():
        parts = path.split("/")
        if any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
            raise ManifestError(path, "no file may be there")
        place = os.path.join(target, *parts)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        # Never executable: nothing of a repository is run.
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(data)
