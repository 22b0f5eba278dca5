"""Layers of images: archives unpacked into directories that an overlay file system stacks, whiteouts included.

An archive is never trusted: no entry leads outside, no device is made, sizes and counts are bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, cast

__all__ = ["LayerError", "Unpacking", "flatten", "open_archive", "unpack"]

_MAX_ENTRIES = 2_000_000
_MAX_LINKS = 40
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."
_FICLONE = 0x40049409
_KEPT_XATTRS = ("security.capability", "user.")


class LayerError(Exception):
    """A layer that cannot be unpacked."""


class _Hashing(io.RawIOBase):
    """A stream that knows the digest of what was read of it, and stops at a limit."""

    def __init__(self, inner: IO[bytes], limit: int) -> None:
        self._inner = inner
        self._limit = limit
        self._hash = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        self.count += len(data)
        if self.count > self._limit:
            raise LayerError(f"more than {self._limit} bytes; the runtime's limit for an image")
        return len(data)

    def digest(self) -> str:
        """Read what is left, and return the digest of all."""
        while data := self._inner.read(_CHUNK):
            self._hash.update(data)
        return f"sha256:{self._hash.hexdigest()}"


@contextlib.contextmanager
def open_archive(path: str) -> Iterator[IO[bytes]]:
    """Open a layer's archive, whatever it is packed with. Raises `LayerError` for what cannot be unpacked here."""
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == b"\x28\xb5\x2f\xfd":
            raise LayerError("the layer is packed with zstd, which is not read here; push the image with gzip layers")
        if magic[:2] != b"\x1f\x8b":
            yield file
            return
        with gzip.GzipFile(fileobj=file) as plain:
            yield cast("IO[bytes]", plain)


class Unpacking:
    """One layer on its way into `target`; `below` are the directories of the lower layers, the topmost first.

    `owners` says whether files get the owners that the archive says, `xattr` the namespace of the overlay's marks.
    """

    def __init__(self, target: str, below: Sequence[str], *, owners: bool, limit: int) -> None:
        self._target = target
        self._below = tuple(below)
        self._owners = owners
        self._limit = limit
        self._prefix = "trusted.overlay." if owners else "user.overlay."
        self._directories: list[tuple[str, tarfile.TarInfo]] = []

    def run(self, archive: IO[bytes]) -> tuple[str, int]:
        """Unpack all; return the digest and size of the archive unpacked. Raises `LayerError`, `OSError`."""
        hashing = _Hashing(archive, self._limit)
        count = 0
        try:
            with tarfile.open(fileobj=io.BufferedReader(hashing, _CHUNK), mode="r|") as tar:
                for entry in tar:
                    count += 1
                    if count > _MAX_ENTRIES:
                        raise LayerError(f"more than {_MAX_ENTRIES} entries")
                    self._entry(tar, entry)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
            raise LayerError(f"not a readable archive: {error}") from error
        for path, entry in reversed(self._directories):
            self._finish(path, entry)
        return hashing.digest(), hashing.count

    def _entry(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        name = posixpath.normpath("/" + entry.name)
        if name == "/":
            return
        parent = self._parent(posixpath.dirname(name))
        base = posixpath.basename(name)
        if base == _OPAQUE:
            self._mark_opaque(parent)
        elif base.startswith(_WHITEOUT):
            self._white_out(parent, base.removeprefix(_WHITEOUT))
        else:
            self._make(tar, entry, f"{parent}/{base}")

    def _make(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        if entry.isdir():
            self._own_directory(path)
            self._directories.append((path, entry))
            return
        _remove(path)
        if entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.islnk():
            self._link(entry, path)
            return
        elif entry.isfile():
            source = tar.extractfile(entry)
            with open(path, "xb") as file:
                shutil.copyfileobj(cast("IO[bytes]", source), file, _CHUNK)
        elif entry.isfifo():
            os.mkfifo(path)
        else:
            # Devices come from the runtime, never from an image.
            return
        self._finish(path, entry)

    def _link(self, entry: tarfile.TarInfo, path: str) -> None:
        wanted = posixpath.normpath("/" + entry.linkname)
        source = f"{self._parent(posixpath.dirname(wanted))}/{posixpath.basename(wanted)}"
        if not os.path.lexists(source):
            inner = source.removeprefix(self._target)
            lower = next((f"{layer}{inner}" for layer in self._below if os.path.lexists(f"{layer}{inner}")), None)
            if lower is None:
                raise LayerError(f'"{entry.name}": a link to "{entry.linkname}", which is not there')
            _copy(lower, path)
            return
        os.link(source, path, follow_symlinks=False)

    def _finish(self, path: str, entry: tarfile.TarInfo) -> None:
        if self._owners:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.issym():
            os.chmod(path, stat.S_IMODE(entry.mode) | (0 if self._owners else stat.S_IRUSR))
        for key, value in entry.pax_headers.items():
            name = key.removeprefix(_XATTR)
            if name != key and name.startswith(_KEPT_XATTRS) and not name.startswith("user.overlay."):
                with contextlib.suppress(OSError):
                    os.setxattr(path, name, value.encode(errors="surrogateescape"), follow_symlinks=False)
        with contextlib.suppress(OSError, OverflowError):
            os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)

    def _parent(self, path: str) -> str:
        """Return the directory of this layer that a path within the image is, over links of it and lower layers."""
        parts = [part for part in path.split("/") if part]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            inner = "/".join((*done, part))
            led = self._link_at(inner)
            if led is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise LayerError(f'"{path}": too many links')
            parts = [step for step in led.split("/") if step and step != "."] + parts
            done = [] if led.startswith("/") else done
        place = self._target
        for part in done:
            place = f"{place}/{part}"
            self._directory(place)
        return place

    def _link_at(self, inner: str) -> str | None:
        for layer in (self._target, *self._below):
            try:
                mode = os.lstat(f"{layer}/{inner}").st_mode
            except OSError:
                continue
            return os.readlink(f"{layer}/{inner}") if stat.S_ISLNK(mode) else None
        return None

    def _directory(self, place: str) -> None:
        """Make a directory that the archive only implies, like the one it stands for below."""
        if not self._own_directory(place):
            return
        inner = place.removeprefix(self._target)
        for layer in self._below:
            with contextlib.suppress(OSError):
                found = os.lstat(f"{layer}{inner}")
                if self._owners:
                    os.chown(place, found.st_uid, found.st_gid)
                os.chmod(place, stat.S_IMODE(found.st_mode))
                return

    def _own_directory(self, place: str) -> bool:
        """Make a directory unless it is there, opaque in a whiteout's place; return whether it is new."""
        if os.path.isdir(place) and not os.path.islink(place):
            return False
        hides = _is_whiteout(place)
        _remove(place)
        os.mkdir(place, 0o755)
        if hides:
            self._mark_opaque(place)
        return True

    def _mark_opaque(self, directory: str) -> None:
        os.setxattr(directory, f"{self._prefix}opaque", b"y")

    def _white_out(self, parent: str, name: str) -> None:
        if name in {"", ".", ".."} or "/" in name:
            raise LayerError(f'"{_WHITEOUT}{name}": not a whiteout')
        path = f"{parent}/{name}"
        if os.path.lexists(path):
            # It is of this layer, and a whiteout is about those below.
            if os.path.isdir(path) and not os.path.islink(path):
                self._mark_opaque(path)
            return
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def unpack(path: str, target: str, below: Sequence[str], *, owners: bool, limit: int) -> tuple[str, int]:
    """Unpack the archive at `path` into the new directory `target`; return digest and size of what was packed.

    Raises `LayerError`, `OSError`; what was unpacked is then still there.
    """
    os.mkdir(target, 0o755)
    with open_archive(path) as archive:
        return Unpacking(target, below, owners=owners, limit=limit).run(archive)


def flatten(layers: Sequence[str], target: str, *, owners: bool) -> None:
    """Copy stacked layers, the topmost first, into one directory, where nothing can stack them. Raises `OSError`."""
    os.makedirs(target, exist_ok=True)
    for layer in reversed(layers):
        _merge(layer, target, owners=owners)


def _merge(source: str, target: str, *, owners: bool) -> None:
    for entry in os.scandir(source):
        place = f"{target}/{entry.name}"
        found = entry.stat(follow_symlinks=False)
        if _is_whiteout(entry.path):
            _remove(place)
            continue
        if entry.is_dir(follow_symlinks=False):
            if _is_opaque(entry.path) or not os.path.isdir(place) or os.path.islink(place):
                _remove(place)
                os.mkdir(place, 0o755)
            _merge(entry.path, place, owners=owners)
        else:
            _remove(place)
            _copy(entry.path, place)
        if owners:
            os.chown(place, found.st_uid, found.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(place, stat.S_IMODE(found.st_mode))


def _is_whiteout(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(path: str) -> bool:
    for prefix in ("trusted", "user"):
        with contextlib.suppress(OSError):
            return os.getxattr(path, f"{prefix}.overlay.opaque") == b"y"
    return False


def _copy(source: str, target: str) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if not stat.S_ISREG(os.lstat(source).st_mode):
        return
    with open(source, "rb") as old, open(target, "xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, _CHUNK)
    shutil.copystat(source, target, follow_symlinks=False)


def _remove(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)
