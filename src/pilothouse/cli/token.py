"""`pilothouse token`: what machines need to join the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option

from .home import data_dir_option, default_home, seconds

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["token"]

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _server_options(command: _Command) -> _Command:
    kubeconfig = click.option("--kubeconfig", type=click.Path(), help="Of a server elsewhere, instead of --data-dir.")
    return data_dir_option()(kubeconfig(command))


@click.group(
    epilog=examples(
        "pilothouse token create",
        "# what the machine that is to join runs, for an hour",
        "pilothouse token create --ttl 1h --print-join-command",
        "pilothouse token list",
        "pilothouse token delete abcdef",
    )
)
def token() -> None:
    """Let machines join the platform: make, list and delete tokens.

    One token is enough for any number of machines while it holds. It also says by which authority they know the
    server. Those who have joined stay when it is over or deleted.
    """


@token.command(epilog=examples("pilothouse token create --ttl 30m --description 'the new rack'"))
@_server_options
@click.option("--ttl", type=seconds, default="24h", show_default=True, help="How long it holds; 0 for ever.")
@click.option("--description", default="", help="What it is for; shown by `list`.")
@click.option("--print-join-command", is_flag=True, help="Print what the machine that joins runs, token and all.")
@output_option
def create(
    data_dir: Path | None, kubeconfig: str | None, ttl: float, description: str, print_join_command: bool, output: str
) -> None:
    """Make a token and print it, which nothing does again: keep it as a password."""
    from pilothouse.platform.tokens import create_token

    made = _ask(data_dir, kubeconfig, lambda client: create_token(client, ttl_seconds=ttl, description=description))
    if output != "table":
        emit(msgspec.to_builtins(made) | {"command": made.command}, output)
    else:
        click.echo(made.command if print_join_command else made.token)
    if made.is_local:
        click.echo(f"note: only this machine reaches {made.url}; start the server with --listen 0.0.0.0:6443", err=True)


@token.command("list", epilog=examples("pilothouse token list", "pilothouse token list -o json"))
@_server_options
@output_option
def list_(data_dir: Path | None, kubeconfig: str | None, output: str) -> None:
    """List tokens by their ids, without their secrets."""
    from pilothouse.platform.tokens import list_tokens

    found = _ask(data_dir, kubeconfig, list_tokens)
    if output != "table":
        emit(found, output)
        return
    rows = [{"id": each.id, "expires": _end(each.expires, each.expired), "for": each.description} for each in found]
    emit(rows, output, ["id", "expires", "for"])


@token.command(epilog=examples("pilothouse token delete abcdef"))
@click.argument("identities", metavar="ID...", nargs=-1, required=True)
@_server_options
def delete(identities: tuple[str, ...], data_dir: Path | None, kubeconfig: str | None) -> None:
    """Delete tokens, by id or whole."""
    from pilothouse.platform.tokens import delete_token

    names = [each.partition(".")[0] for each in identities]

    async def each(client: Client) -> list[str]:
        return [name for name in names if not await delete_token(client, name)]

    missing = _ask(data_dir, kubeconfig, each)
    if missing:
        raise CommandError(
            f"token {', '.join(missing)}: there is none of this id",
            hint="pilothouse token list",
            code=ExitCode.NOT_FOUND,
        )
    click.echo(f"deleted: {', '.join(names)}")


def _end(expires: str, expired: bool) -> str:
    return f"{expires} (over)" if expired else expires or "never"


def _ask(data_dir: Path | None, kubeconfig: str | None, ask: Callable[[Client], Awaitable[_T]]) -> _T:
    from pilothouse.client import ClientError, ConfigError
    from pilothouse.kinds.status import ApiStatus
    from pilothouse.platform.tokens import NoClusterInfoError

    if data_dir is not None and kubeconfig:
        raise click.UsageError("--data-dir and --kubeconfig say the same in two ways; pass one")
    path = kubeconfig or str((data_dir or default_home()).absolute() / "admin.kubeconfig")
    try:
        return asyncio.run(_asked(path, ask))
    except ConfigError as error:
        hint = "start the platform there (pilothouse up), or name another by --data-dir or --kubeconfig"
        raise CommandError(str(error), hint=hint, code=ExitCode.USAGE) from error
    except NoClusterInfoError as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except ApiStatus as error:
        raise CommandError(error.message) from error
    except (ClientError, OSError) as error:
        raise CommandError(str(error), hint="is the platform running?", code=ExitCode.UNAVAILABLE) from error


async def _asked(path: str, ask: Callable[[Client], Awaitable[_T]]) -> _T:
    from pilothouse.client import Client

    async with Client.from_kubeconfig(path) as client:
        return await ask(client)
