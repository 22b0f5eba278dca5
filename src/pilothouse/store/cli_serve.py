"""`pilothouse store serve`: the embedded store as an etcd v3 server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import re
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import click
import uvloop

from pilothouse.foundation import logs
from pilothouse.foundation.terminal import CommandError, ExitCode, examples, listen_address
from pilothouse.foundation.tls import ReloadingContext, TlsError
from pilothouse.store.cli_client import command_error
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.errors import DamagedData, DirectoryInUse, StoreError
from pilothouse.store.etcd.metrics_endpoint import MetricsEndpoint
from pilothouse.store.etcd.service import EtcdService

__all__ = ["serve"]

_log = logs.get_logger(__name__)

_MIB = 1024 * 1024
_RELOAD_SECONDS = 30.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


@dataclass(frozen=True)
class _Setup:
    store: StoreOptions
    host: str
    port: int
    tls: ReloadingContext | None
    client_ca: bool
    advertise: str
    unix: str | None
    metrics: tuple[str, int] | None


@click.command(
    epilog=examples(
        "pilothouse store serve --data-dir ./data --listen 127.0.0.1:2379",
        "pilothouse store serve --data-dir /var/lib/store --listen 0.0.0.0:2379 --tls-cert s.crt --tls-key s.key",
        "# keep one hour of history, and let Prometheus look",
        "pilothouse store serve --data-dir ./data --auto-compaction-retention 1h --metrics-listen 127.0.0.1:9379",
    )
)
@click.option("--data-dir", required=True, type=click.Path(), help="Where everything is kept; made if missing.")
@click.option("--listen", default="127.0.0.1:2379", show_default=True, help="Address for clients; port 0 chooses one.")
@click.option("--unix", type=click.Path(), help="Listen at this Unix socket too.")
@click.option("--tls-cert", type=click.Path(), help="The server's certificate; needed except on loopback.")
@click.option("--tls-key", type=click.Path(), help="The key of --tls-cert.")
@click.option("--client-ca", type=click.Path(), help="Let in only clients with a certificate of this CA.")
@click.option("--advertise-url", default="", help="What `member list` tells clients; follows from --listen.")
@click.option("--name", default="pilothouse", show_default=True, help="The member's name.")
@click.option(
    "--snapshot-entries",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Writes between two checkpoints.",
)
@click.option(
    "--commit-queue",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Durable writes that may wait to be applied.",
)
@click.option(
    "--quota-bytes",
    type=click.IntRange(_MIB),
    default=2048 * _MIB,
    show_default=True,
    help="Keys, values and history that may be held.",
)
@click.option(
    "--auto-compaction-mode",
    type=click.Choice(["periodic", "revision"]),
    default="periodic",
    show_default=True,
    help="Keep history by age or by number of revisions.",
)
@click.option(
    "--auto-compaction-retention",
    default="0",
    show_default=True,
    help="How much: 30m, 12h (a bare number: hours), or revisions; 0 keeps all.",
)
@click.option("--metrics-listen", default="", help="Serve /metrics and /health over HTTP here (loopback).")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log to standard error.",
)
@click.option(
    "--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True, help="How to log."
)
def serve(  # noqa: PLR0913  # one parameter an option
    data_dir: str,
    listen: str,
    unix: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    client_ca: str | None,
    advertise_url: str,
    name: str,
    snapshot_entries: int,
    commit_queue: int,
    quota_bytes: int,
    auto_compaction_mode: str,
    auto_compaction_retention: str,
    metrics_listen: str,
    log_level: Literal["debug", "info", "warning", "error"],
    log_format: Literal["console", "json"],
) -> None:
    """Serve the store in --data-dir to etcd's clients until SIGTERM or SIGINT.

    Prints one line when it is ready. Plain text is served on loopback only.
    """
    logs.configure(log_level, log_format)
    host, port = listen_address("--listen", listen)
    tls = _tls(host, tls_cert, tls_key, client_ca)
    revisions, seconds = _retention(auto_compaction_mode, auto_compaction_retention)
    options = StoreOptions(
        data_dir=data_dir,
        name=name,
        snapshot_entries=snapshot_entries,
        commit_queue=commit_queue,
        quota_bytes=quota_bytes,
        auto_compaction_revisions=revisions,
        auto_compaction_seconds=seconds,
    )
    metrics = _loopback_address("--metrics-listen", metrics_listen) if metrics_listen else None
    setup = _Setup(options, host, port, tls, client_ca is not None, advertise_url, unix, metrics)
    try:
        uvloop.run(_serve(setup))
    except DamagedData as error:
        raise command_error(error, f"`pilothouse store check {data_dir}` says more; nothing was changed") from error
    except DirectoryInUse as error:
        raise command_error(error, "stop that process, or give each its own --data-dir") from error
    except StoreError as error:
        raise command_error(error) from error
    except OSError as error:
        raise CommandError(f"data directory {data_dir}: {error.strerror or error}") from error


async def _serve(setup: _Setup) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with await EmbeddedStore.open(setup.store) as store:
        # A request leaves no cycles behind, yet its objects set the collector off, which then walks all that is held:
        # rare runs that pass over what was loaded save a sixth of a put's processor time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        service = EtcdService(store, certificate_users=setup.client_ca)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(service.close)
            url = await _listen(setup, store, service)
            extra = ""
            if setup.metrics is not None:
                with _named("--metrics-listen", setup.metrics):
                    extra = f", metrics on {await stack.enter_async_context(MetricsEndpoint(store, *setup.metrics))}"
            if setup.tls is not None:
                watching = asyncio.create_task(_renew(setup.tls))
                stack.callback(watching.cancel)
            click.echo(f"ready: serving etcd v3 on {url}, data in {setup.store.data_dir}{extra}")
            await stop.wait()
            _log.info("stopping")


async def _listen(setup: _Setup, store: EmbeddedStore, service: EtcdService) -> str:
    context: ssl.SSLContext | None = None if setup.tls is None else setup.tls.context
    with _named("--listen", (setup.host, setup.port)):
        host, port = await service.listen_tcp(setup.host, setup.port, tls=context)
    if setup.unix is not None:
        try:
            await service.listen_unix(setup.unix)
        except OSError as error:
            raise CommandError(f"--unix {setup.unix}: {error.strerror or error}", code=ExitCode.CONFLICT) from error
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if context else 'http'}://{shown}:{port}"
    store.client_urls = (setup.advertise or url,)
    return url


@contextlib.contextmanager
def _named(option: str, address: tuple[str, int]) -> Iterator[None]:
    """Say of which option the address is that cannot be had."""
    try:
        yield
    except OSError as error:
        raise CommandError(
            f"{option} {address[0]}:{address[1]}: {error.strerror or error}",
            hint="another program may have it; name another port, or 0 for any",
            code=ExitCode.CONFLICT,
        ) from error


async def _renew(tls: ReloadingContext) -> None:
    while True:
        await asyncio.sleep(_RELOAD_SECONDS)
        try:
            if tls.reload_if_changed():
                _log.info("the certificate was loaded anew")
        except TlsError as error:
            _log.warning("the renewed certificate cannot be used; the old one stays", reason=str(error))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loopback_address(option: str, value: str) -> tuple[str, int]:
    host, port = listen_address(option, value)
    if not _is_loopback(host):
        raise click.BadParameter(f"{value!r} is not on loopback, and this is plain text", param_hint=option)
    return host, port


def _tls(host: str, certificate: str | None, key: str | None, client_ca: str | None) -> ReloadingContext | None:
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    if certificate is None or key is None:
        if client_ca is not None:
            raise click.UsageError("--client-ca needs --tls-cert and --tls-key")
        if not _is_loopback(host):
            raise CommandError(
                f"--listen {host}: plain text is served on loopback only",
                hint="listen on 127.0.0.1, or give --tls-cert and --tls-key to `pilothouse store serve`",
                code=ExitCode.USAGE,
            )
        return None
    try:
        return ReloadingContext(certificate, key, client_ca=client_ca, alpn=("h2",))
    except TlsError as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error


def _retention(mode: str, value: str) -> tuple[int, float]:
    """Return revisions and seconds of history to keep; one of them is 0."""
    found = _DURATION.fullmatch(value)
    if found is None or (mode == "revision" and not value.isdigit()):
        want = "a number of revisions" if mode == "revision" else "a duration as 30m or 12h, or a number of hours"
        raise click.BadParameter(f"{value!r}: want {want}", param_hint="--auto-compaction-retention")
    if mode == "revision":
        return int(value), 0.0
    return 0, float(found[1]) * _UNITS[found[2] or "h"]
