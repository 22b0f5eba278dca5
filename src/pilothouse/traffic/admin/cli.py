"""Commands that show what a running gateway does: its routes, its backends, and what is busiest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pilothouse.foundation.home import data_dir_option
from pilothouse.foundation.terminal import CommandError, emit, examples, outputs_option, table_lines

if TYPE_CHECKING:
    from .tables import Table

__all__ = ["backends", "routes", "top"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_EVERY_SECONDS: Final = 1.0
_NAMES: Final = ("route", "rule", "backend", "version", "region")
_ROWS: Final = 20


def _shared(command: _Command) -> _Command:
    """Add what all of them take: where the gateway is, the window, and the output."""
    for option in (
        outputs_option("table", "wide", "json", "yaml"),
        click.option(
            "--seconds", type=click.IntRange(1, 300), default=10, show_default=True, help="How far back it looks."
        ),
        data_dir_option("Of the gateway; its socket is DIR/run/gateway.sock."),
        click.option(
            "--admin-socket",
            type=click.Path(path_type=Path),
            help="Of the gateway, as `gateway run` prints it.  [default: in --data-dir]",
        ),
    ):
        command = option(command)
    return command


_WATCH = click.option("-w", "--watch", is_flag=True, help="Show it again each second, in place on a terminal.")


class _View:
    """One page of a gateway, shown once or again and again."""

    def __init__(
        self,
        page: str,
        kind: type[Any],
        tabled: Callable[..., Table],
        head: Callable[[Any], list[str]] | None = None,
        **query: str | int,
    ) -> None:
        self._page, self._kind, self._tabled, self._head = page, kind, tabled, head
        self._query = query

    def show(self, path: Path, output: str, *, again: bool) -> None:
        """Print it. again: each second, until the user ends it; what goes wrong then is shown in its place."""
        answer = self._ask(path)
        if not again:
            self._print(answer, output)
            return
        from pilothouse.foundation.refreshing import refresh

        first = [answer]

        def frame() -> list[str]:
            try:
                return self._lines(first.pop() if first else self._ask(path), output)
            except CommandError as error:
                return [f"error: {error.message}", "trying again each second; Ctrl-C ends it"]

        refresh(frame, _EVERY_SECONDS)

    def _ask(self, path: Path) -> Any:
        from .asking import ask

        return ask(path, self._page, self._kind, self._query)

    def _print(self, answer: Any, output: str) -> None:
        if output in {"json", "yaml"}:
            emit(answer, output)
            return
        for line in self._head(answer) if self._head is not None else ():
            click.echo(line)
        rows, columns = self._tabled(answer, wide=output == "wide")
        emit(rows, columns=columns)
        if answer.left_out:
            click.echo(f"… {answer.left_out} more", err=True)

    def _lines(self, answer: Any, output: str) -> list[str]:
        rows, columns = self._tabled(answer, wide=output == "wide")
        head = [*self._head(answer), ""] if self._head is not None else []
        more = [f"… {answer.left_out} more"] if answer.left_out else []
        return [*head, *table_lines(rows, columns), *more]


def _socket(admin_socket: Path | None, data_dir: Path | None) -> Path:
    from .sockets import default_socket

    try:
        return admin_socket.absolute() if admin_socket is not None else default_socket(data_dir)
    except RuntimeError as error:  # a user without a home
        raise CommandError(str(error), hint="name the gateway's socket with --admin-socket") from error


def _check(output: str, *, again: bool) -> None:
    if again and output in {"json", "yaml"}:
        raise click.UsageError(f"--watch is for tables; run it again and again for {output}")


@click.command(
    epilog=examples(
        "pilothouse gateway routes",
        "# with listeners, ports and shares, in place each second",
        "pilothouse gateway routes -o wide --watch",
        "# what the canary got in the last minute",
        "pilothouse gateway routes --seconds 60 -o json | jq '.rows[] | select(.version == \"canary\") | .measured'",
    )
)
@_shared
@_WATCH
def routes(admin_socket: Path | None, data_dir: Path | None, seconds: int, output: str, watch: bool) -> None:
    """Show routes: matches, backends with their weights as they are now, and what came to each of them."""
    from .answers import Routes
    from .tables import route_rows

    _check(output, again=watch)
    view = _View("routes", Routes, route_rows, seconds=seconds)
    view.show(_socket(admin_socket, data_dir), output, again=watch)


@click.command(
    epilog=examples(
        "pilothouse gateway backends",
        "pilothouse gateway backends --watch --seconds 5",
        "pilothouse gateway backends --admin-socket /run/gateway.sock -o json",
    )
)
@_shared
@_WATCH
def backends(admin_socket: Path | None, data_dir: Path | None, seconds: int, output: str, watch: bool) -> None:
    """Show backends: which addresses are up or left out, their connections, requests and failures.

    A state such as `ejected 1/2` is that of 1 of 2 workers; each sees for itself how an address answers.
    """
    from .answers import Backends
    from .tables import backend_rows

    _check(output, again=watch)
    view = _View("backends", Backends, backend_rows, seconds=seconds)
    view.show(_socket(admin_socket, data_dir), output, again=watch)


@click.command(
    epilog=examples(
        "pilothouse gateway top",
        "# which version of which route is slow, over the last minute",
        "pilothouse gateway top --by route --by version --seconds 60",
        "pilothouse gateway top --once -o json | jq .counters",
    )
)
@_shared
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(_NAMES),
    help="What is told apart; repeatable.  [default: route, version, region]",
)
@click.option("--rows", type=click.IntRange(1, 1000), default=_ROWS, show_default=True, help="How many at most.")
@click.option("--once", is_flag=True, help="Show it once, also on a terminal.")
def top(
    admin_socket: Path | None,
    data_dir: Path | None,
    seconds: int,
    output: str,
    by: tuple[str, ...],
    rows: int,
    once: bool,
) -> None:
    """Show the busiest routes, versions and regions, and how bytes moved; each second anew on a terminal."""
    from .answers import Top
    from .tables import headline, top_rows

    query: dict[str, str | int] = {"seconds": seconds, "most": rows} | ({"by": ",".join(by)} if by else {})
    again = not once and output in {"table", "wide"} and sys.stdout.isatty()
    view = _View("top", Top, top_rows, headline, **query)
    view.show(_socket(admin_socket, data_dir), output, again=again)
