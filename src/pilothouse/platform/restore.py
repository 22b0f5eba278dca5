"""A new data directory from a backup: all is verified before anything is made, and it appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
from typing import Final

import msgspec

from pilothouse.foundation.files import OsFileSystem
from pilothouse.store import offline
from pilothouse.store.errors import StoreError
from pilothouse.store.etcd.snapshot_file import snapshot_size

from .backupfile import MANIFEST, STORE, VOLUMES, BackupError, Manifest, read_manifest
from .state import holder

__all__ = ["Restored", "restore"]

_NODE: Final = "node"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was restored. made, program: of the backup. moved: where volumes are now, and where pods look for them."""

    data_dir: str
    made: str
    program: str
    store: str
    revision: int = 0
    keys: int = 0
    volumes: int = 0
    moved: tuple[str, str] | None = None


def restore(file: str, directory: str) -> Restored:
    """Make a data directory from a backup. Blocks. Raises BackupError, with nothing changed, and OSError.

    The directory must not be there, or be empty. A store gets a new identity; its objects are as they were.
    """
    directory = os.path.abspath(directory)
    _check_target(directory)
    manifest = read_manifest(file)
    parent = os.path.dirname(directory)
    os.makedirs(parent, exist_ok=True)
    work = tempfile.mkdtemp(prefix=f".{os.path.basename(directory)}.", dir=parent)
    try:
        made = os.path.join(work, "data")
        os.mkdir(made, 0o700)
        _extract(file, made)
        report = _restore_store(file, made) if manifest.store == "embedded" else None
        volumes = _place_volumes(made) if manifest.volumes else 0
        os.sync()
        _put(made, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _restored(manifest, directory, report, volumes)


def _check_target(directory: str) -> None:
    with contextlib.suppress(NotADirectoryError):
        if holder(directory) is not None:
            raise BackupError(f"{directory}: a platform runs here", "name a new directory")
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise BackupError(f"{directory}: is not empty", "a backup is restored to a new directory only; name one")


def _extract(file: str, made: str) -> None:
    with tarfile.open(file, "r:") as tar:
        # `read_manifest` looked at each name; volumes keep owners and modes, which the library's own filters change.
        tar.extraction_filter = staticmethod(lambda member, _path: member)
        members = [member for member in tar if member.name != MANIFEST]
        os.mkdir(os.path.join(made, "pki"), 0o700)
        tar.extractall(made, members, numeric_owner=True)  # noqa: S202  # see above


def _restore_store(file: str, made: str) -> offline.Report:
    copy = os.path.join(made, STORE)
    try:
        report = offline.restore_snapshot(copy, os.path.join(made, "store"), size=snapshot_size(copy))
    except StoreError as error:
        hint = "take another backup; nothing was changed"
        raise BackupError(f"{file}: {STORE}: {error.message}", hint, is_damaged=True) from error
    os.unlink(copy)
    return report


def _place_volumes(made: str) -> int:
    node = os.path.join(made, _NODE)
    os.mkdir(node, 0o711)
    os.rename(os.path.join(made, VOLUMES), os.path.join(node, VOLUMES))
    return len(os.listdir(os.path.join(node, VOLUMES)))


def _put(made: str, directory: str) -> None:
    """Put a directory in the place of an empty or missing one."""
    try:
        os.rename(made, directory)
    except OSError:
        if not os.path.ismount(directory):
            raise
        for name in sorted(os.listdir(made)):  # an empty file system of its own
            shutil.move(os.path.join(made, name), os.path.join(directory, name))
        os.chmod(directory, 0o700)
    OsFileSystem().sync_directory(os.path.dirname(directory))


def _restored(manifest: Manifest, directory: str, report: offline.Report | None, volumes: int) -> Restored:
    now = os.path.join(directory, _NODE, VOLUMES)
    return Restored(
        data_dir=directory,
        made=manifest.made,
        program=manifest.program,
        store=manifest.store,
        revision=0 if report is None else report.revision,
        keys=0 if report is None else report.keys,
        volumes=volumes,
        moved=(now, manifest.volumes) if volumes and now != manifest.volumes else None,
    )
