"""`pilothouse store get|put|del|watch|compact|hash`: keys and their history."""

from __future__ import annotations

import sys

import click
import msgspec

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option
from pilothouse.store.cli_client import Connect, client_options, key_range, lease_id, run, shown, text
from pilothouse.store.errors import Compacted
from pilothouse.store.etcd.backend import EtcdStore
from pilothouse.store.model import DeleteRangeRequest, Event, PutRequest, RangeRequest, WatchRequest

__all__ = ["compact", "delete", "get", "hash_", "put", "watch"]

_base64_option = click.option("--base64", "as_base64", is_flag=True, help="Show keys and values as base64, exactly.")


@click.command(
    epilog=examples(
        "pilothouse store get name",
        "pilothouse store get --prefix /registry/ --limit 10 --keys-only",
        "pilothouse store get name --rev 42 -o json",
    )
)
@click.argument("key")
@click.argument("range_end", required=False)
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many keys; 0 for all.")
@click.option("--rev", type=click.IntRange(0), default=0, help="As of this revision; 0 for now.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--count-only", is_flag=True, help="Only say how many there are.")
@_base64_option
@client_options
@output_option
def get(  # noqa: PLR0913  # one parameter an option
    key: str,
    range_end: str | None,
    prefix: bool,
    from_key: bool,
    limit: int,
    rev: int,
    keys_only: bool,
    count_only: bool,
    as_base64: bool,
    connect: Connect,
    output: str,
) -> None:
    """Read KEY, or the keys from KEY up to RANGE_END.

    Exits with 4 where a single key does not exist.
    """
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    request = RangeRequest(start, end, limit, rev, keys_only=keys_only, count_only=count_only)
    response = run(connect, lambda store: store.range(request))
    kvs = [shown(kv, as_base64=as_base64, keys_only=keys_only) for kv in response.kvs]
    if not end and not response.count:
        raise CommandError(f"key {text(start)!r} does not exist", code=ExitCode.NOT_FOUND)
    if output == "table" and not count_only:
        emit(kvs, output, ["key"] if keys_only else ["key", "value", "mod_revision", "version"])
        if response.more:
            click.echo(f"{len(kvs)} of {response.count} keys; more with a higher --limit", err=True)
        return
    emit({"revision": response.revision, "count": response.count, "more": response.more, "kvs": kvs}, output)


@click.command(
    epilog=examples(
        "pilothouse store put name value",
        "pilothouse store put config - < config.yaml",
        "pilothouse store put member/1 alive --lease 694d81417acd4754",
    )
)
@click.argument("key")
@click.argument("value")
@click.option("--lease", default="0", help="Bind the key to this lease.")
@click.option("--prev-kv", is_flag=True, help="Show what was there before.")
@client_options
@output_option
def put(key: str, value: str, lease: str, prev_kv: bool, connect: Connect, output: str) -> None:
    """Write VALUE (`-`: what comes from standard input) to KEY."""
    data = sys.stdin.buffer.read() if value == "-" else value.encode("utf-8", "surrogateescape")
    request = PutRequest(key.encode("utf-8", "surrogateescape"), data, lease_id(lease), prev_kv=prev_kv)
    response = run(connect, lambda store: store.put(request))
    done: dict[str, object] = {"revision": response.revision}
    if prev_kv:
        done["previous"] = None if response.prev_kv is None else shown(response.prev_kv)
    emit(done, output)


@click.command("del", epilog=examples("pilothouse store del name", "pilothouse store del --prefix cache/ -o json"))
@click.argument("key")
@click.argument("range_end", required=False)
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@client_options
@output_option
def delete(  # one parameter an option
    key: str, range_end: str | None, prefix: bool, from_key: bool, connect: Connect, output: str
) -> None:
    """Delete KEY, or the keys from KEY up to RANGE_END."""
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    response = run(connect, lambda store: store.delete_range(DeleteRangeRequest(start, end)))
    emit({"deleted": response.deleted, "revision": response.revision}, output)


@click.command(
    epilog=examples(
        "pilothouse store watch name",
        "pilothouse store watch --prefix /registry/pods/ -o json",
        "# everything since revision 100",
        "pilothouse store watch --prefix '' --rev 100",
    )
)
@click.argument("key")
@click.argument("range_end", required=False)
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--rev", type=click.IntRange(0), default=0, help="From this revision on; 0 for from now.")
@click.option("--prev-kv", is_flag=True, help="Show what was there before.")
@click.option("--count", type=click.IntRange(0), default=0, help="Stop after so many events; 0 for never.")
@_base64_option
@client_options
@output_option
def watch(  # noqa: PLR0913  # one parameter an option
    key: str,
    range_end: str | None,
    prefix: bool,
    from_key: bool,
    rev: int,
    prev_kv: bool,
    count: int,
    as_base64: bool,
    connect: Connect,
    output: str,
) -> None:
    """Show changes of KEY, or of the keys from KEY up to RANGE_END, as they happen.

    JSON has one object a line, YAML one document an event.
    """
    start, end = key_range(key, range_end, prefix=prefix, from_key=from_key)
    request = WatchRequest(start, end, rev, prev_kv)

    async def follow(store: EtcdStore) -> None:
        left = count
        async with store.watch(request) as running:
            async for response in running:
                if response.canceled:
                    _explain(response.cancel_reason, response.compact_revision)
                for event in response.events:
                    _print_event(event, output, as_base64)
                    left -= 1
                    if left == 0:
                        return

    run(connect, follow)


def _explain(reason: str, compact_revision: int) -> None:
    hint = f"start from --rev {compact_revision} or later" if compact_revision else ""
    raise CommandError(reason or Compacted.text, hint=hint)


def _print_event(event: Event, output: str, as_base64: bool) -> None:
    kind = "DELETE" if event.is_delete else "PUT"
    found: dict[str, object] = {"type": kind, **shown(event.kv, as_base64=as_base64, keys_only=event.is_delete)}
    if event.prev_kv is not None:
        found["previous"] = shown(event.prev_kv, as_base64=as_base64)
    if output == "json":
        click.echo(msgspec.json.encode(found))
    elif output == "yaml":
        click.echo("---")
        emit(found, output)
    else:
        value = "" if event.is_delete else f" {text(event.kv.value, as_base64=as_base64)}"
        line = f"{kind} {event.kv.mod_revision} {text(event.kv.key, as_base64=as_base64)}{value}"
        click.echo(line if line.isprintable() else line.encode("unicode_escape").decode())
    sys.stdout.flush()


@click.command(epilog=examples("pilothouse store compact 1000", "pilothouse store compact 1000 --physical"))
@click.argument("revision", type=click.IntRange(1))
@click.option("--physical", is_flag=True, help="Wait until the space is free.")
@client_options
@output_option
def compact(revision: int, physical: bool, connect: Connect, output: str) -> None:
    """Forget the history before REVISION; the newest value of every key stays."""
    current = run(connect, lambda store: store.compact(revision, physical=physical))
    emit({"compacted": revision, "revision": current}, output)


@click.command("hash", epilog=examples("pilothouse store hash", "pilothouse store hash --rev 1000 -o json"))
@click.option("--rev", type=click.IntRange(0), default=0, help="As of this revision; 0 for now.")
@client_options
@output_option
def hash_(rev: int, connect: Connect, output: str) -> None:
    """Hash the key space as etcd does, to compare two stores."""
    found = run(connect, lambda store: store.hash_kv(rev))
    emit(
        {
            "hash": f"{found.hash:08x}",
            "hash_revision": found.hash_revision,
            "compact_revision": found.compact_revision,
            "revision": found.revision,
        },
        output,
    )
