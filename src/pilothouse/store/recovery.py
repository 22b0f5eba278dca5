"""Starting is recovery: the newest checkpoint, then the log after it, applied again. Blocks; run it in a thread."""

from __future__ import annotations

import gc
from typing import NamedTuple

import msgspec

from pilothouse.store import commands, images
from pilothouse.store.auth_tokens import SimpleTokens
from pilothouse.store.checkpoints import Checkpoints
from pilothouse.store.datadir import DataDir
from pilothouse.store.errors import DamagedData, StoreError
from pilothouse.store.leases import Leases
from pilothouse.store.machine import StateMachine
from pilothouse.store.options import StoreOptions
from pilothouse.store.wal import LogWriter
from pilothouse.store.wal_recovery import LogRecovery, open_log

__all__ = ["Recovered", "new_machine", "recover", "replay"]


class Recovered(NamedTuple):
    """A store's state and files, ready to go on."""

    directory: DataDir
    machine: StateMachine
    checkpoints: Checkpoints
    writer: LogWriter

    def close(self) -> None:
        """Close the files and leave the directory to others."""
        self.writer.close()
        self.directory.close()


def recover(options: StoreOptions) -> Recovered:
    """Open or make the data directory and bring back its state.

    Raises a `DataDirError` where the directory is not usable; it is left as it was then.
    """
    fs = options.filesystem
    directory = DataDir.open(fs, options.data_dir, ids=options.ids)
    cluster_id, member_id = directory.identity.cluster_id, directory.identity.member_id
    try:
        checkpoints = Checkpoints.open(fs, directory.snap, cluster_id, member_id)
        machine = new_machine(options)
        log = open_log(fs, directory.wal, cluster_id, checkpoints.index, segment_bytes=options.segment_bytes)
        replay(machine, checkpoints, log)
        machine.leases.restart()
        return Recovered(directory, machine, checkpoints, log.writer())
    except BaseException:
        directory.close()
        raise


def new_machine(options: StoreOptions) -> StateMachine:
    """Return an empty state machine that lives by the options' clock."""
    monotonic = options.clock.monotonic
    return StateMachine(Leases(monotonic), SimpleTokens(monotonic))


def replay(machine: StateMachine, checkpoints: Checkpoints, log: LogRecovery) -> None:
    """Bring a state machine to where the files end; raise `DamagedData` with the last good revision."""
    try:
        images.load(machine, checkpoints.blocks())
    except (msgspec.DecodeError, ValueError) as error:
        raise DamagedData(
            f"{checkpoints.directory}: the checkpoint's checksums are right, but it does not say a state ({error}); "
            "restore a saved snapshot",
            path=checkpoints.directory,
        ) from error
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index, payload in log:
            try:
                command = commands.decode(payload)
            except msgspec.DecodeError as error:
                raise DamagedData(
                    f"record {index} of the log is not a command ({error})",
                    last_good_revision=machine.keys.revision,
                ) from error
            _apply_again(machine, command)
    except DamagedData as error:
        error.last_good_revision = machine.keys.revision
        raise
    finally:
        if collecting:
            gc.enable()


def _apply_again(machine: StateMachine, command: commands.Command) -> None:
    try:
        machine.apply(command)
    except StoreError:
        return  # it was refused the first time too, for the same reason
