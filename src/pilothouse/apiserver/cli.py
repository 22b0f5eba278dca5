"""`pilothouse apiserver`: a Kubernetes API server in one process."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.lifeline import Lifeline
from pilothouse.foundation.terminal import CommandError, ExitCode, examples, listen_address

if TYPE_CHECKING:
    from pilothouse.apiserver.program import Program, ProgramOptions

__all__ = ["apiserver", "run", "server_options"]

_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--listen", default="127.0.0.1:6443", show_default=True, help="Address for clients (TLS); port 0 chooses one."
    ),
    click.option(
        "--store", default="", help="Keep objects in an etcd cluster: etcd://a:2379,b:2379?ca=FILE&cert=FILE&key=FILE"
    ),
    click.option(
        "--kubeconfig",
        type=click.Path(),
        default="",
        help="Put the administrator's kubeconfig into this file too, beside what it has, as the context pilothouse.",
    ),
    click.option(
        "--token-auth-file",
        type=click.Path(),
        help='Let users in by static tokens: lines of token,user,uid,"group1,group2".',
    ),
    click.option("--advertise-address", default="", help="Where pods and nodes reach it.  [default: found by routes]"),
    click.option("--tls-san", multiple=True, help="A further name or address for the serving certificate; repeatable."),
    click.option(
        "--service-cluster-ip-range", default="10.96.0.0/12", show_default=True, help="Addresses of services."
    ),
    click.option("--service-node-port-range", default="30000-32767", show_default=True, help="Node ports of services."),
    click.option("--enable-admission-plugins", default="", help="Switch on, by name, separated by commas."),
    click.option("--disable-admission-plugins", default="", help="Switch off, by name, separated by commas."),
    click.option("--audit-policy-file", type=click.Path(), help="Which requests the audit log tells of."),
    click.option("--audit-log-path", default="", help="Where the audit log is written; rotated."),
    click.option("--encryption-provider-config", type=click.Path(), default="", help="Keys for secrets at rest."),
    click.option("--service-account-issuer", multiple=True, help="Issuer of service-account tokens; the first signs."),
    click.option("--oidc-issuer-url", default="", help="Let in users of an OpenID Connect issuer."),
    click.option("--oidc-client-id", default="", help="The client that the issuer's tokens are for."),
    click.option("--oidc-username-claim", default="sub", show_default=True, help="The claim that names the user."),
    click.option("--oidc-groups-claim", default="", help="The claim that has the user's groups."),
    click.option(
        "--max-requests-inflight", type=click.IntRange(1), default=400, show_default=True, help="Reads at once."
    ),
    click.option(
        "--max-mutating-requests-inflight",
        type=click.IntRange(1),
        default=200,
        show_default=True,
        help="Writes at once.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="What to log to standard error.",
    ),
    click.option(
        "--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True, help="How to log."
    ),
)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the API server to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(
    epilog=examples(
        "pilothouse apiserver --data-dir ./cluster",
        "kubectl --kubeconfig ./cluster/admin.kubeconfig get namespaces",
        "# users by static tokens, objects in etcd",
        "pilothouse apiserver --data-dir ./cluster --token-auth-file tokens.csv --store etcd://127.0.0.1:2379",
    )
)
@click.option("--data-dir", required=True, type=click.Path(), help="Where everything is kept; made if missing.")
@click.option("--lifecycle", is_flag=True, hidden=True, help="With what `pilothouse up` has: garbage collection, ...")
@click.option("--allow-loopback-endpoints", is_flag=True, hidden=True, help="Endpoints may be at 127.0.0.0/8.")
@click.option("--bundled", multiple=True, type=click.Path(), hidden=True, help="Objects that come with the program.")
@click.option("--gateway", is_flag=True, hidden=True, help="Write DIR/gateway.kubeconfig, of the platform's gateway.")
@click.option("--delivery", is_flag=True, hidden=True, help="Write DIR/delivery.kubeconfig, of who delivers.")
@click.option("--node-name", default="", hidden=True, help="Write DIR/agent.kubeconfig, of the node of this name.")
@server_options
def apiserver(data_dir: str, lifecycle: bool, **settings: Any) -> None:
    """Serve the Kubernetes API from --data-dir until SIGTERM or SIGINT.

    Prints one line when it is ready and writes DIR/admin.kubeconfig. Garbage collection and other controllers are
    not part of it, as with kube-apiserver; `pilothouse up` has them.
    """
    run(data_dir, lifecycle=lifecycle, **settings)


def run(
    data_dir: str,
    *,
    lifecycle: bool,
    log_level: Literal["debug", "info", "warning", "error"],
    log_format: Literal["console", "json"],
    **settings: Any,
) -> None:
    """Run the server until it is told to stop; each failure is one sentence and a hint."""
    import uvloop

    from pilothouse.apiserver.access.pki import PkiError
    from pilothouse.apiserver.encryption import EncryptionError
    from pilothouse.foundation.tls import TlsError
    from pilothouse.store.cli_client import command_error
    from pilothouse.store.errors import DamagedData, DirectoryInUse, StoreError

    logs.configure(log_level, log_format)
    options = _program_options(data_dir, lifecycle, settings)
    try:
        uvloop.run(_serve(options))
    except DamagedData as error:
        raise command_error(
            error, f"`pilothouse store check {data_dir}/store` says more; nothing was changed"
        ) from error
    except DirectoryInUse as error:
        raise command_error(error, "stop that process, or give each its own --data-dir") from error
    except StoreError as error:
        raise command_error(error) from error
    except (PkiError, EncryptionError, TlsError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except OSError as error:
        if error.errno in _DISK:
            hint = "make room, or name another --data-dir; the store wants some 70 MB at once"
            raise CommandError(f"{data_dir}: {error.strerror}", hint=hint) from error
        if error.filename is None:
            raise CommandError(
                f"--listen {settings['listen']}: {error.strerror or error}",
                hint="another program may have it; name another port, or 0 for any",
                code=ExitCode.CONFLICT,
            ) from error
        raise CommandError(f"{error.filename}: {error.strerror or error}", code=ExitCode.USAGE) from error


async def _serve(options: ProgramOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline = Lifeline.from_environment()
    if lifeline is not None:
        lifeline.watch(stop.set)
    program = await _started(options, stop)
    if program is None:
        return
    try:
        if lifeline is None:
            click.echo(f"ready: serving Kubernetes on {program.url}, kubeconfig in {program.kubeconfig}")
        else:
            lifeline.ready(url=program.url, kubeconfig=program.kubeconfig)
        await stop.wait()
    finally:
        await program.close()


async def _started(options: ProgramOptions, stop: asyncio.Event) -> Program | None:
    """Start, or give that up when told to stop: a store that does not answer may be waited for long."""
    from pilothouse.apiserver.program import Program

    starting = asyncio.create_task(Program.start(options), name="start")
    told = asyncio.create_task(stop.wait(), name="told to stop")
    await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return None
    return starting.result()


def _program_options(data_dir: str, lifecycle: bool, settings: dict[str, Any]) -> ProgramOptions:
    from pilothouse.apiserver.access.tokens import TokenFileError, read_token_file
    from pilothouse.apiserver.allocation import AllocationOptions
    from pilothouse.apiserver.audit import AuditPolicy, AuditPolicyError
    from pilothouse.apiserver.flow import Limits
    from pilothouse.apiserver.options import ServerOptions
    from pilothouse.apiserver.program import ProgramOptions as Options

    host, port = listen_address("--listen", settings["listen"])
    policy_file, token_file = settings["audit_policy_file"], settings["token_auth_file"]
    try:
        policy = AuditPolicy.load(policy_file) if policy_file else None
        tokens = read_token_file(token_file) if token_file else {}
    except (AuditPolicyError, TokenFileError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    if (policy is None) != (not settings["audit_log_path"]):
        raise click.UsageError("--audit-policy-file and --audit-log-path belong together")
    server = ServerOptions(
        tokens=tokens,
        oidc=_oidc(settings),
        lifecycle=lifecycle,
        platform=lifecycle,
        bundled=settings["bundled"],
        loopback_endpoints=settings["allow_loopback_endpoints"],
        enable_admission=_names(settings["enable_admission_plugins"]),
        disable_admission=_names(settings["disable_admission_plugins"]),
        allocation=AllocationOptions(
            _network(settings["service_cluster_ip_range"]), _ports(settings["service_node_port_range"])
        ),
        limits=Limits(settings["max_requests_inflight"], settings["max_mutating_requests_inflight"]),
        audit_policy=policy,
        audit_log=settings["audit_log_path"],
        **({"issuers": settings["service_account_issuer"]} if settings["service_account_issuer"] else {}),
    )
    return Options(
        data_dir=data_dir,
        kubeconfig=settings["kubeconfig"],
        host=host,
        port=port,
        store=settings["store"],
        advertise=_advertised(settings["advertise_address"]),
        hosts=settings["tls_san"],
        encryption=settings["encryption_provider_config"],
        node=_node(settings["node_name"]),
        components=lifecycle,
        gateway=settings["gateway"],
        delivery=settings["delivery"],
        server=server,
    )


def _oidc(settings: dict[str, Any]) -> tuple[Any, ...]:
    url, client = settings["oidc_issuer_url"], settings["oidc_client_id"]
    if bool(url) != bool(client):
        raise click.UsageError("--oidc-issuer-url and --oidc-client-id belong together")
    if not url:
        return ()
    from pilothouse.apiserver.access.oidc import OidcSettings

    wanted = OidcSettings(
        issuer=url,
        client_ids=(client,),
        username_claim=settings["oidc_username_claim"],
        groups_claim=settings["oidc_groups_claim"],
    )
    return (wanted,)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _advertised(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--advertise-address") from None


def _node(name: str) -> str:
    from pilothouse.kinds.names import dns1123_subdomain

    if name and (wrong := dns1123_subdomain(name)):
        raise click.BadParameter(f"{name!r}: {wrong[0]}", param_hint="--node-name")
    return name


def _network(text: str) -> str:
    import ipaddress

    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--service-cluster-ip-range") from None
    return text


def _ports(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 65536):
        raise click.BadParameter(f"{text!r}: want FIRST-LAST, e.g. 30000-32767", param_hint="--service-node-port-range")
    return int(first), int(last)
