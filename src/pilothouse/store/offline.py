"""What can be done to a data directory that no process holds: check it, or make one from a saved snapshot. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from pilothouse.store import images
from pilothouse.store.checkpoints import Checkpoints
from pilothouse.store.datadir import DataDir, Identity, read_identity
from pilothouse.store.errors import DamagedData, DataDirError
from pilothouse.store.options import StoreOptions
from pilothouse.store.recovery import new_machine, replay
from pilothouse.store.tables import read_table_file
from pilothouse.store.wal_recovery import open_log

__all__ = ["Problem", "Report", "check", "restore_snapshot"]


class Problem(msgspec.Struct, frozen=True):
    """Damage: where it is, what was found, and the last revision that is intact before it."""

    path: str
    offset: int
    message: str
    last_good_revision: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. `unsynced_tail` says what a start would cut, which is no damage."""

    data_dir: str
    ok: bool
    cluster_id: str = ""
    revision: int = 0
    compact_revision: int = 0
    index: int = 0
    keys: int = 0
    leases: int = 0
    tables: int = 0
    segments: int = 0
    unsynced_tail: str = ""
    problems: tuple[Problem, ...] = ()


def check(data_dir: str, options: StoreOptions | None = None) -> Report:
    """Read everything in a data directory as a start would, verify every checksum, and change nothing.

    Raises a `DataDirError` where the directory is not there, in use, not ours, or newer.
    """
    options = replace(options, data_dir=data_dir) if options else StoreOptions(data_dir=data_dir)
    fs = options.filesystem
    if not fs.exists(data_dir):
        raise DataDirError(f"{data_dir} is not there: name the directory that `store serve --data-dir` was given")
    try:
        identity = read_identity(fs, data_dir)
        directory = DataDir.open(fs, data_dir, identity=identity)
    except DamagedData as error:
        return _damaged(data_dir, "", error, 0)
    cluster = f"{identity.cluster_id:x}"
    machine = new_machine(options)
    try:
        checkpoints = Checkpoints.open(fs, directory.snap, identity.cluster_id, identity.member_id, read_only=True)
        log = open_log(fs, directory.wal, identity.cluster_id, checkpoints.index)
        replay(machine, checkpoints, log)
        cut = log.cut
        return Report(
            data_dir=data_dir,
            ok=True,
            cluster_id=cluster,
            revision=machine.keys.revision,
            compact_revision=max(machine.keys.compact_revision, 0),
            index=log.last_index,
            keys=len(machine.keys),
            leases=len(machine.leases),
            tables=len(checkpoints.tables),
            segments=log.segment_count,
            unsynced_tail=""
            if cut is None
            else f"{cut.path}: offset {cut.offset}: record {cut.index} was never synced",
        )
    except DamagedData as error:
        return _damaged(data_dir, cluster, error, machine.keys.revision)
    finally:
        directory.close()


def _damaged(data_dir: str, cluster: str, error: DamagedData, revision: int) -> Report:
    last_good = max(error.last_good_revision, revision)
    problem = Problem(error.path, error.offset, error.message, last_good)
    return Report(data_dir=data_dir, ok=False, cluster_id=cluster, revision=last_good, problems=(problem,))


def restore_snapshot(
    source: str,
    data_dir: str,
    options: StoreOptions | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    size: int | None = None,
) -> Report:
    """Make a new data directory, with a new identity, from a saved snapshot; the directory must not hold a store.

    `progress` is told the bytes read; `size` is that of the snapshot where more follows it in the file.
    Raises `DamagedData` for a truncated or damaged file, `NewerFormat`, and `DataDirError` where the directory is
    taken, `OSError` or `NoSpace`; nothing that opens is left behind then, nor by a crash.
    """
    options = replace(options, data_dir=data_dir) if options else StoreOptions(data_dir=data_dir)
    fs = options.filesystem
    if fs.exists(data_dir) and fs.listdir(data_dir):
        raise DataDirError(f"{data_dir} is not empty: a snapshot is restored to a new directory only")
    # Read it to the end before anything is made, so that a bad file leaves no directory.
    machine = new_machine(options)
    try:
        meta = images.load(machine, read_table_file(fs, source, size=size))
    except (msgspec.DecodeError, ValueError) as error:
        raise DamagedData(f"{source}: not a snapshot of a store ({error})", path=source) from error
    if meta is None:
        raise DamagedData(f"{source}: the snapshot is empty", path=source)
    revision = meta.revision

    def fill(snap: str, identity: Identity) -> None:
        checkpoints = Checkpoints.open(fs, snap, identity.cluster_id, identity.member_id)
        _write_base(checkpoints, read_table_file(fs, source, size=size), revision, progress)

    directory = DataDir.open(fs, data_dir, ids=options.ids, fill=fill)
    directory.close()
    return Report(
        data_dir=data_dir,
        ok=True,
        cluster_id=f"{directory.identity.cluster_id:x}",
        revision=revision,
        compact_revision=max(meta.compact_revision, 0),
        index=meta.index,
        keys=len(machine.keys),
        leases=len(machine.leases),
        tables=1,
    )


def _write_base(
    checkpoints: Checkpoints,
    blocks: Iterable[tuple[int, bytes]],
    revision: int,
    progress: Callable[[int], None] | None,
) -> None:
    table = checkpoints.begin("base")
    try:
        done = 0
        for kind, payload in blocks:
            table.write(kind, payload)
            done += len(payload)
            if progress is not None:
                progress(done)
        table.commit(0, revision)  # a new log begins with record 1
    except BaseException:
        table.abort()
        raise
