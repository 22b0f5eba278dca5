"""What the store's client commands share: how to reach the store, and how to show keys and errors."""

from __future__ import annotations

import asyncio
import base64
import math
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click

from pilothouse.foundation.terminal import CommandError, ExitCode
from pilothouse.foundation.tls import TlsError, client_context
from pilothouse.store import errors
from pilothouse.store.etcd.backend import EtcdStore
from pilothouse.store.etcd.settings import EtcdOptions, read_password
from pilothouse.store.model import KeyValue, prefix_end

__all__ = ["Connect", "client_options", "command_error", "key_range", "lease_id", "run", "shown", "text"]

_Result = TypeVar("_Result")
_Command = TypeVar("_Command", bound=Callable[..., Any])

_EXIT_CODES: tuple[tuple[type[errors.StoreError], ExitCode], ...] = (
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.LeaseNotFound, ExitCode.NOT_FOUND),
    (errors.KeyNotFound, ExitCode.NOT_FOUND),
    (errors.LeaseExists, ExitCode.CONFLICT),
    (errors.DirectoryInUse, ExitCode.CONFLICT),
    (errors.CorruptAlarm, ExitCode.DAMAGED),
    (errors.DamagedData, ExitCode.DAMAGED),
)


class Connect(NamedTuple):
    """Where the store is and who asks."""

    endpoints: str
    cacert: str | None
    cert: str | None
    key: str | None
    user: str
    password_file: str | None
    timeout: float
    plaintext: bool

    def settings(self) -> EtcdOptions:
        """Return the client's settings; `CommandError` says what is wrong with an option."""
        secure = bool(self.cacert or self.cert or self.key)
        scheme = "https" if secure else "http"
        names = [name.strip() for name in self.endpoints.split(",") if name.strip()]
        try:
            return EtcdOptions(
                endpoints=tuple(name if "://" in name else f"{scheme}://{name}" for name in names),
                tls=client_context(ca=self.cacert, certificate=self.cert, key=self.key, alpn=("h2",))
                if secure
                else None,
                username=self.user,
                password=self._password(),
                request_timeout=self.timeout,
                dial_timeout=min(self.timeout, 5.0),
                plaintext=self.plaintext,
            )
        except errors.InvalidRequest as error:
            raise CommandError(
                error.message,
                hint="--endpoints HOST:PORT[,...]; --cacert turns TLS on, --plaintext allows it to be off",
                code=ExitCode.USAGE,
            ) from error
        except TlsError as error:
            raise CommandError(str(error), code=ExitCode.USAGE) from error

    def _password(self) -> str:
        if self.password_file is None:
            if not self.user:
                return ""
            if not sys.stdin.isatty():
                raise CommandError(
                    f"--user {self.user}: there is no terminal to ask for the password",
                    hint="give it with --password-file FILE",
                    code=ExitCode.USAGE,
                )
            typed: str = click.prompt("Password", hide_input=True, err=True)
            return typed
        return read_password(self.password_file, "--password-file")


def _seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    del context, parameter
    if not (value > 0 and math.isfinite(value)):
        raise click.BadParameter(f"{value:g}: want seconds, more than 0")
    return value


_OPTIONS = (
    click.option(
        "--endpoints",
        envvar="PILOTHOUSE_STORE_ENDPOINTS",
        default="127.0.0.1:2379",
        show_default=True,
        show_envvar=True,
        help="Where the store is served; several are separated by commas.",
    ),
    click.option("--cacert", type=click.Path(), help="Check the server's certificate with this CA (turns TLS on)."),
    click.option("--cert", type=click.Path(), help="Show this client certificate (with --key)."),
    click.option("--key", "key_file", type=click.Path(), help="The client certificate's key."),
    click.option("--user", default="", help="Log in as this user; the password is asked for or read from a file."),
    click.option("--password-file", type=click.Path(), help="Read the user's password from here."),
    click.option(
        "--timeout", type=float, callback=_seconds, default=10.0, show_default=True, help="Seconds for one operation."
    ),
    click.option("--plaintext", is_flag=True, help="Allow plain text to other machines (others can read along)."),
)


def client_options(command: _Command) -> _Command:
    """Add the options of a client; the command receives them as `connect`."""

    @wraps(command)
    def wrapped(  # noqa: PLR0913  # as many as the options above
        *args: Any,
        endpoints: str,
        cacert: str | None,
        cert: str | None,
        key_file: str | None,
        user: str,
        password_file: str | None,
        timeout: float,
        plaintext: bool,
        **others: Any,
    ) -> Any:
        connect = Connect(endpoints, cacert, cert, key_file, user, password_file, timeout, plaintext)
        return command(*args, connect=connect, **others)

    decorated: Any = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: _Command = decorated
    return result


def run(connect: Connect, work: Callable[[EtcdStore], Awaitable[_Result]]) -> _Result:
    """Run `work` with a store; a store's error becomes a `CommandError` with its exit code."""
    settings = connect.settings()

    async def main() -> _Result:
        store = EtcdStore(settings)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(main())
    except errors.StoreError as error:
        raise command_error(error) from error


def command_error(error: errors.StoreError, hint: str = "") -> CommandError:
    """Return the error as a command ends with it."""
    code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), ExitCode.FAILED)
    if isinstance(error, errors.Unavailable) and not hint:
        hint = "is the store served there? `pilothouse store serve --help`, or name it with --endpoints"
    return CommandError(error.message, hint=hint, code=code)


def key_range(key: str, range_end: str | None, *, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Return key and range end of what a command was told; `UsageError` for contradictions."""
    if sum((range_end is not None, prefix, from_key)) > 1:
        raise click.UsageError("RANGE_END, --prefix and --from-key exclude each other")
    start = key.encode("utf-8", "surrogateescape")
    if prefix:
        return (start or b"\0"), prefix_end(start)
    if from_key:
        return (start or b"\0"), b"\0"
    return start, b"" if range_end is None else range_end.encode("utf-8", "surrogateescape")


def lease_id(value: str) -> int:
    """Read a lease id as etcd shows it: hexadecimal."""
    try:
        number = int(value, 16)
    except ValueError:
        number = 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise click.BadParameter(f"{value!r} is not a lease id; want 16 hexadecimal digits, as `lease list` shows")
    return number


def text(data: bytes, *, as_base64: bool = False) -> str:
    """Return bytes for people: text with bytes that are no UTF-8 escaped, or base64 for exactness."""
    return base64.b64encode(data).decode() if as_base64 else data.decode("utf-8", "backslashreplace")


def shown(kv: KeyValue, *, as_base64: bool = False, keys_only: bool = False) -> dict[str, object]:
    """Return a key as the commands show it."""
    found: dict[str, object] = {"key": text(kv.key, as_base64=as_base64)}
    if not keys_only:
        found["value"] = text(kv.value, as_base64=as_base64)
    found |= {"create_revision": kv.create_revision, "mod_revision": kv.mod_revision, "version": kv.version}
    if kv.lease:
        found["lease"] = f"{kv.lease & 0xFFFFFFFFFFFFFFFF:x}"
    return found
