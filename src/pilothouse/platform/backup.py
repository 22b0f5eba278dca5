"""Saving the platform of a data directory to one file: online through its server, or from files that nobody has."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import IO, Final

import msgspec

from pilothouse import __version__
from pilothouse.client import Client, ClientError, ConfigError
from pilothouse.client.calls import refusal
from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.tls import TlsError
from pilothouse.kinds.status import ApiStatus, NotFound
from pilothouse.store.errors import DamagedData, DirectoryInUse, StoreError
from pilothouse.store.etcd.snapshot_file import save

from .backupfile import FORMAT, MANIFEST, STORE, VOLUMES, BackupError, Entry, Manifest
from .nodeplan import PlanError, read_plan
from .state import holder, read_state

__all__ = ["Saved", "backup"]

_MODE: Final = 0o600
_TRIES: Final = 3
_IDLE_SECONDS: Final = 60.0
_CONFIG: Final = "encryption-provider-config"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved. how: online or offline. changed: files of volumes that changed while they were read."""

    file: str
    bytes: int
    how: str
    store: str
    volumes: int = 0
    changed: tuple[str, ...] = ()


async def backup(directory: str, file: str, *, volumes: bool = False, encryption: str = "") -> Saved:
    """Save a platform to a new file, mode 0600, whole or not at all.

    encryption: the file of --encryption-provider-config where one is used. volumes: with the directories of this
    machine's local volumes, as they are at the moment. Raises BackupError, OSError.
    """
    target = _target(directory, file)
    # A directory of its own beside it: names that others can guess may be theirs, and a link needs one file system.
    work = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.", dir=os.path.dirname(target))
    try:
        how, store, keys = await _consistent(directory, os.path.join(work, STORE), encryption)
        return _write(directory, work, target, (how, store, keys), _volumes(directory) if volumes else "")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _target(directory: str, file: str) -> str:
    if not os.path.isdir(os.path.join(directory, "pki")):
        raise BackupError(f"{directory}: no platform has been here", "name its directory with --data-dir")
    if os.path.lexists(file):
        raise BackupError(f"{file}: exists", "name a new file, or remove it first")
    return os.path.abspath(file)


# The store and its keys


async def _consistent(directory: str, copy: str, encryption: str) -> tuple[str, str, dict[str, bytes]]:
    """Copy the store, and return how, what it is, and the keys by which all in the copy can be read."""
    keys = _keys(directory, encryption)
    for _ in range(_TRIES):
        how, store = await _copy_store(directory, copy)
        after = _keys(directory, encryption)
        if after == keys:
            return how, store, keys
        keys = after  # they were exchanged meanwhile: what the copy has may be encrypted with one that is forgotten
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)
    raise BackupError(f"{directory}: its keys change all the time", "wait until `pilothouse keys rotate` is over")


def _keys(directory: str, encryption: str) -> dict[str, bytes]:
    names = sorted(os.listdir(os.path.join(directory, "pki")))
    paths = {f"pki/{name}": os.path.join(directory, "pki", name) for name in names if not name.endswith(".tmp")}
    paths["keys.key"] = os.path.join(directory, "keys.key")
    if encryption:
        paths[_CONFIG] = encryption
    found: dict[str, bytes] = {}
    for name, path in paths.items():
        with contextlib.suppress(FileNotFoundError, IsADirectoryError), open(path, "rb") as file:
            found[name] = file.read()
    if encryption and _CONFIG not in found:
        raise BackupError(f"{encryption}: is not there", "name the file that `pilothouse up` was given")
    return found


async def _copy_store(directory: str, copy: str) -> tuple[str, str]:
    pid = holder(directory)
    if pid is None:
        try:
            return "offline", await _copy_offline(directory, copy)
        except DirectoryInUse:
            pass  # `pilothouse apiserver` has it, which no supervisor is above
        except DamagedData as error:
            hint = "`pilothouse store check` says more; restore an older backup into a new directory"
            raise BackupError(error.message, hint, is_damaged=True) from error
        except StoreError as error:
            raise BackupError(error.message) from error
    state = read_state(directory)
    kubeconfig = state.kubeconfig if state is not None and state.kubeconfig else ""
    return "online", await _copy_online(kubeconfig or os.path.join(directory, "admin.kubeconfig"), copy)


async def _copy_offline(directory: str, copy: str) -> str:
    from pilothouse.apiserver.snapshots import framed  # noqa: PLC0415  # only where no server does it
    from pilothouse.store.engine import EmbeddedStore  # noqa: PLC0415
    from pilothouse.store.options import StoreOptions  # noqa: PLC0415

    place = os.path.join(directory, "store")
    if not os.path.isdir(place):  # noqa: ASYNC240
        return "external"
    if (owner := os.stat(place).st_uid) != os.geteuid():
        # What is written while it is open would be ours, and its owner's platform could not start any more.
        raise BackupError(f"{directory}: is of user {owner}", f"call this as that user: `sudo -u '#{owner}' ...`")
    store = await EmbeddedStore.open(StoreOptions(data_dir=place))
    try:
        await save(framed(store), copy)
    finally:
        await store.close()
    return "embedded"


async def _copy_online(kubeconfig: str, copy: str) -> str:
    from pilothouse.apiserver.snapshots import SNAPSHOT_PATH  # noqa: PLC0415

    try:
        async with Client.from_kubeconfig(kubeconfig, backoff=None) as client:
            answer = await client.transport.request("GET", SNAPSHOT_PATH, stream=True, idle=_IDLE_SECONDS)
            if answer.stream is None:
                raise refusal(answer)
            await save(_blocks(answer.stream), copy)
    except NotFound:
        return "external"
    except (ClientError, ConfigError, TlsError, ApiStatus, DamagedData) as error:
        hint = "try again, or `pilothouse down --keep-pods` first: without a server the files themselves are copied"
        raise BackupError(f"the running server does not send a copy of its store: {error}", hint) from error
    return "embedded"


async def _blocks(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for block in stream:
        yield block


def _volumes(directory: str) -> str:
    with contextlib.suppress(OSError, PlanError):
        found = read_plan(os.path.join(directory, "node", "plan.json")).volumes
        if os.path.isdir(found):
            return found
    return ""


# The file


class _Writer:
    """Adds to a tar, and notes what it added."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.entries: dict[str, Entry] = {}
        self.changed: list[str] = []

    def bytes(self, name: str, data: bytes, mode: int = _MODE) -> None:
        """Add a file of these bytes."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), mode, int(time.time())
        self._tar.addfile(info, io.BytesIO(data))
        self.entries[name] = Entry(len(data), hashlib.sha256(data).hexdigest())

    def file(self, path: str, name: str) -> None:
        """Add what is at a path: a file, directory or link; sockets and devices are passed over."""
        try:
            info = self._tar.gettarinfo(path, name)
            if info is None or info.isdev():  # type: ignore[redundant-expr]  # a socket is None
                return
            if not info.isreg():
                self._tar.addfile(info)
                return
            with open(path, "rb") as file:
                read = _Exactly(file, info.size)
                self._tar.addfile(info, read)
        except FileNotFoundError:  # its pod has removed it at this moment
            return
        self.entries[name] = Entry(info.size, read.digest.hexdigest())
        if read.is_short:
            self.changed.append(path)


class _Exactly(io.RawIOBase):
    """So many bytes of a file that may shrink meanwhile; zeros stand for those that are gone."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__()
        self._file = file
        self._left = size
        self.digest = hashlib.sha256()
        self.is_short = False

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        if len(data) < wanted:
            self.is_short = True
            data += bytes(wanted - len(data))
        self._left -= len(data)
        self.digest.update(data)
        return data


def _write(directory: str, work: str, target: str, saved: tuple[str, str, dict[str, bytes]], volumes: str) -> Saved:
    how, store, keys = saved
    partial = os.path.join(work, "backup.tar")
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    with os.fdopen(fd, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            writer = _Writer(tar)
            for name, data in keys.items():
                writer.bytes(name, data, 0o644 if name.endswith((".crt", ".pub")) else _MODE)
            if store == "embedded":
                writer.file(os.path.join(work, STORE), STORE)
            count = _add_tree(writer, volumes) if volumes else 0
            manifest = Manifest(
                format=FORMAT,
                program=__version__,
                made=datetime.now(UTC).isoformat(timespec="seconds"),
                data_dir=directory,
                store=store,
                volumes=volumes,
                entries=dict(writer.entries),
            )
            writer.bytes(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(partial, target)  # unlike a rename it does not replace what is there
    except FileExistsError as error:
        raise BackupError(f"{target}: exists", "name a new file, or remove it first") from error
    OsFileSystem().sync_directory(os.path.dirname(target))
    size = os.stat(target).st_size
    return Saved(file=target, bytes=size, how=how, store=store, volumes=count, changed=tuple(writer.changed))


def _add_tree(writer: _Writer, root: str) -> int:
    """Add all volumes; return how many there are."""
    writer.file(root, VOLUMES)
    for place, directories, files in os.walk(root):
        inner = os.path.relpath(place, root)
        prefix = VOLUMES if inner == "." else f"{VOLUMES}/{inner}"
        for name in sorted((*directories, *files)):
            writer.file(os.path.join(place, name), f"{prefix}/{name}")
    return len(os.listdir(root))
