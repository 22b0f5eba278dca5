"""`pilothouse store`: serve, read, check and back up the store."""

from __future__ import annotations

import click

from pilothouse.foundation.terminal import examples
from pilothouse.store import cli_keys, cli_offline, cli_upkeep
from pilothouse.store.cli_serve import serve

__all__ = ["store"]


@click.group(
    epilog=examples(
        "pilothouse store serve --data-dir ./data",
        "pilothouse store put name value",
        "pilothouse store get name",
        "pilothouse store status",
    )
)
def store() -> None:
    """Serve, read, check and back up the store.

    `serve` speaks etcd's v3 API, and the other commands speak it to any etcd.
    """


for _command in (
    serve,
    cli_upkeep.status,
    cli_keys.get,
    cli_keys.put,
    cli_keys.delete,
    cli_keys.watch,
    cli_keys.compact,
    cli_keys.hash_,
    cli_offline.snapshot,
    cli_offline.check,
    cli_upkeep.defrag,
    cli_upkeep.alarm,
    cli_upkeep.member,
    cli_upkeep.lease,
):
    store.add_command(_command)
