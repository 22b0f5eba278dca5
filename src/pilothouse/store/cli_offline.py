"""`pilothouse store snapshot save|restore` and `check`: copies of a store, and the truth about its files."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Self

import click
import msgspec

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option
from pilothouse.store import offline
from pilothouse.store.cli_client import Connect, client_options, command_error, run
from pilothouse.store.errors import DamagedData, StoreError
from pilothouse.store.etcd import snapshot_file

__all__ = ["check", "snapshot"]

_QUIET_SECONDS = 2.0


class _Progress:
    """Says on a terminal how far long work has come; `with` it around the work."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._done = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __call__(self, done: int) -> None:
        self._done = done

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
            click.echo("\r\x1b[K", nl=False, err=True)

    def _tell(self) -> None:
        start = time.monotonic()
        while not self._over.wait(_QUIET_SECONDS):
            size = f", {self._done / (1 << 20):.0f} MiB" if self._done else ""
            click.echo(f"\r{self._what}{size}, {time.monotonic() - start:.0f} s ", nl=False, err=True)


@click.group(
    epilog=examples(
        "pilothouse store snapshot save backup.db", "pilothouse store snapshot restore backup.db --data-dir ./new"
    )
)
def snapshot() -> None:
    """Save a consistent copy of the store, and make a new store from one."""


@snapshot.command(
    "save",
    epilog=examples("pilothouse store snapshot save backup.db", "pilothouse store snapshot save backup.db -o json"),
)
@click.argument("file")
@client_options
@output_option
def snapshot_save(file: str, connect: Connect, output: str) -> None:
    """Save a copy of the running store to FILE (mode 0600), whole or not at all. FILE must not exist."""
    if os.path.lexists(file):
        raise CommandError(f"{file} exists", hint="name a new file, or remove it first", code=ExitCode.CONFLICT)
    try:
        with _Progress(f"saving to {file}") as progress:
            size = run(connect, lambda store: snapshot_file.save(store.snapshot(), file, progress))
    except OSError as error:
        raise CommandError(f"{error.filename or file}: {error.strerror}") from error
    emit({"file": file, "bytes": size}, output)


@snapshot.command(
    "restore",
    epilog=examples(
        "pilothouse store snapshot restore backup.db --data-dir ./new",
        "pilothouse store serve --data-dir ./new",
    ),
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--data-dir", required=True, type=click.Path(), help="The new directory; it must not hold a store.")
@output_option
def snapshot_restore(file: str, data_dir: str, output: str) -> None:
    """Make a new data directory, with a new identity, from a saved FILE."""
    try:
        size = snapshot_file.snapshot_size(file)
        with _Progress(f"restoring to {data_dir}") as progress:
            report = offline.restore_snapshot(file, data_dir, progress=progress, size=size)
    except DamagedData as error:
        raise command_error(error, "save the snapshot again, or take an older one; nothing was restored") from error
    except StoreError as error:
        raise command_error(error) from error
    except OSError as error:
        raise CommandError(f"{error.filename or file}: {error.strerror}") from error
    _show(report, output)


@click.command(epilog=examples("pilothouse store check ./data", "pilothouse store check /var/lib/store -o json"))
@click.argument("data_dir", type=click.Path(file_okay=False))
@output_option
def check(data_dir: str, output: str) -> None:
    """Verify every file of a data directory that nobody serves; change nothing.

    Exits with 6 where something is damaged.
    """
    try:
        with _Progress(f"checking {data_dir}"):
            report = offline.check(data_dir)
    except StoreError as error:
        raise command_error(error) from error
    except OSError as error:
        raise CommandError(f"{error.filename or data_dir}: {error.strerror}") from error
    _show(report, output)
    if not report.ok:
        raise SystemExit(int(ExitCode.DAMAGED))


def _show(report: offline.Report, output: str) -> None:
    plain: dict[str, object] = msgspec.to_builtins(report)
    if output != "table":
        emit(plain, output)
        return
    emit(plain, output, [name for name in plain if name != "problems"])
    for problem in report.problems:
        click.echo(f"damaged: {problem.path}: offset {problem.offset}: {problem.message}")
        click.echo(f"last good revision: {problem.last_good_revision}")
    if report.problems:
        click.echo(
            "way out: keep a copy of the directory, then restore the newest snapshot to a new one "
            "(`pilothouse store snapshot restore FILE --data-dir NEW`); docs/store-format.md describes the files"
        )
