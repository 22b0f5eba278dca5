"""How commands reach a server, and what they say where it refuses: near names, missing kinds, rights, conflicts."""

from __future__ import annotations

import asyncio
import difflib
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from pilothouse.foundation.terminal import CommandError, ExitCode

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.kinds.status import ApiStatus, NotFound
    from pilothouse.kinds.structs import Resource

__all__ = ["ALL", "Reach", "asked", "client_of", "name_of", "named", "reaching", "refusals_told", "sorted_by_name"]

R = TypeVar("R")
K = TypeVar("K", bound="Resource")
ALL: Final = "*"
_SHOWN: Final = 5
_NAMES: Final = 500


class Reach(NamedTuple):
    """Where a command works; None is what the kubeconfig says."""

    namespace: str | None = None
    kubeconfig: str | None = None
    context: str | None = None


def reaching(command: Callable[..., Any], default: str = "") -> Callable[..., Any]:
    """Add `-n`, `--kubeconfig` and `--context`; the command receives them as `reach`.

    default: the namespace where none is named, instead of the context's.
    """

    @functools.wraps(command)
    def reached(
        *args: Any, namespace: str | None, kubeconfig: str | None, context: str | None, **options: Any
    ) -> object:
        return command(*args, reach=Reach(namespace or default or None, kubeconfig, context), **options)

    where = f"{default} by default." if default else "Instead of the context's namespace."
    for option in (
        click.option("--context", help="The context of the kubeconfig, instead of its current one."),
        click.option(
            "--kubeconfig", type=click.Path(), help="How the server is reached; as kubectl finds it by default."
        ),
        click.option("-n", "--namespace", help=where),
    ):
        option(reached)
    return reached


def name_of(kind: str, text: str) -> str:
    """Return a name that may be written as kind/name. Raises CommandError for another kind."""
    before, slash, name = text.partition("/")
    if not slash:
        return text
    short = {
        "rollout": ("rollouts", "ro"),
        "application": ("applications", "app", "apps"),
        "servicelevel": ("servicelevels", "sl"),
    }.get(kind, ())
    if before.partition(".")[0] not in (kind, *short) or not name:
        raise CommandError(f"{text!r}: want a {kind}, as NAME or {kind}/NAME", code=ExitCode.USAGE)
    return name


def client_of(reach: Reach) -> Client:
    """Make a client, as kubectl would choose the server. Raises ConfigError."""
    from pilothouse.client import Client

    if reach.kubeconfig or reach.context:
        return Client.from_kubeconfig(reach.kubeconfig, context=reach.context, namespace=reach.namespace)
    return Client.from_environment(namespace=reach.namespace)


def asked(reach: Reach, work: Callable[[Client], Awaitable[R]]) -> R:
    """Do something with a client, and return what comes of it. Raises CommandError."""

    async def within() -> R:
        async with client_of(reach) as client:
            return await work(client)

    return refusals_told(lambda: asyncio.run(within()))


async def named(client: Client, kind: type[K], name: str) -> K:
    """Return an object. Raises CommandError where it is not there, with names that are near, and ApiStatus."""
    from pilothouse.kinds.status import NotFound

    try:
        return await client.get(kind, name)
    except NotFound as error:
        if is_unserved(error):
            raise
        raise await _missing(client, kind, name) from None


async def _missing(client: Client, kind: type[Resource], name: str) -> CommandError:
    word = kind.__name__.lower()
    there: list[str] = []
    async for each in client.list(kind):
        there.append(each.metadata.name)
        if len(there) >= _NAMES:
            break
    near = difflib.get_close_matches(name, there, _SHOWN) or sorted(there)[:_SHOWN]
    hint = f"there is {', '.join(near)}" if near else "-n names another namespace, and -A shows those of all"
    return CommandError(
        f"namespace {client.namespace}: there is no {word} '{name}'", hint=hint, code=ExitCode.NOT_FOUND
    )


def is_unserved(error: NotFound) -> bool:
    """Whether the server does not have the kind at all."""
    return error.details is None or not (error.details.name or error.details.kind)


def refusals_told(work: Callable[[], R]) -> R:
    """Do something; raise what a server refuses, or why it cannot be reached, as CommandError."""
    from pilothouse.client.errors import ClientError, ConfigError
    from pilothouse.delivery.errors import DeliveryError
    from pilothouse.kinds.status import ApiStatus

    try:
        return work()
    except ApiStatus as error:
        raise _refused(error) from error
    except DeliveryError as error:
        raise CommandError(str(error)) from error
    except ConfigError as error:
        raise CommandError(
            str(error), hint="--kubeconfig FILE says how the server is reached", code=ExitCode.USAGE
        ) from error
    except (ClientError, OSError) as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error


def _refused(error: ApiStatus) -> CommandError:
    from pilothouse.kinds.status import Conflict, Forbidden, NotFound, Unauthorized

    if isinstance(error, NotFound):
        if not is_unserved(error):
            return CommandError(error.message, code=ExitCode.NOT_FOUND)
        return CommandError(
            "the server does not have the kinds of delivery",
            hint="`pilothouse rollout install` puts them in; `pilothouse up` has their controllers",
            code=ExitCode.UNAVAILABLE,
        )
    if isinstance(error, Conflict):
        return CommandError(
            error.message, hint="somebody changed it meanwhile; look at it, and try again", code=ExitCode.CONFLICT
        )
    if isinstance(error, Forbidden):
        return CommandError(error.message, hint="ask for a Role that grants this, or use another --context")
    if isinstance(error, Unauthorized):
        return CommandError(
            f"the server does not know who asks: {error.message}", hint="renew the kubeconfig's credentials"
        )
    return CommandError(error.message)


def sorted_by_name(found: Sequence[K]) -> list[K]:
    """Return objects by namespace and name."""
    return sorted(found, key=lambda one: (one.metadata.namespace, one.metadata.name))
