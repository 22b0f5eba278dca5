"""`pilothouse up`: start the platform on this machine and stay."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from pilothouse.apiserver.cli import server_options
from pilothouse.foundation.addresses import own_address
from pilothouse.foundation.rights import owns_network
from pilothouse.foundation.terminal import CommandError, ExitCode, examples, listen_address
from pilothouse.platform import CONTROL, DELIVERY_OBJECTS, GATEWAY_OBJECTS, NODE, PARTS, Part, become_supervisor
from pilothouse.platform.configfile import config_option
from pilothouse.platform.nodeplan import DEFAULT_BRIDGE, NodePlan, dns_address, write_plan
from pilothouse.platform.state import holder
from pilothouse.platform.unit import unit_text

from .home import data_dir_option, default_home, in_use

__all__ = ["up"]

_GIVEN: Final = frozenset({ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP})
"""Where options come from that somebody chose: the command line, or the file of --config."""
_SAID: Final = frozenset({ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT})
_MOST_BITS: Final = 16
"""By which a node's range may be smaller than the cluster's, as Kubernetes has it."""
_SIGNALS: Final = 128
"""Codes from here on are of signals; those below are a program's own."""
_USER_DEFAULTS: Final[dict[str, Any]] = {
    "service_cluster_ip_range": "127.96.0.0/16",
    "cluster_cidr": "127.64.0.0/16",
    "gateway_address": ("127.90.0.0/24",),
}
_ROOT_DEFAULTS: Final[dict[str, Any]] = {
    "listen": "0.0.0.0:6443"
}  # pods and other machines reach it there; TLS and RBAC are on


@click.command(
    epilog=examples(
        "pilothouse up",
        "pilothouse up --data-dir ./try --listen 127.0.0.1:16443",
        "kubectl --kubeconfig ./try/admin.kubeconfig apply -f app.yaml",
        "# only the API server, with garbage collection and what else belongs to it",
        "pilothouse up --without controllers,scheduler,load-balancers,gateway,delivery,dns,agent",
        "# the pods of this machine, in a cluster elsewhere; `pilothouse token create` there prints T",
        "pilothouse up --role agent --join https://192.0.2.7:6443 --token T",
        "# with the dashboard; what to log in with: kubectl create token, or the whole admin.kubeconfig",
        "pilothouse up --dashboard 127.0.0.1:8888",
        "# commits are applied at once: GitHub, GitLab and others post to https://HOST:8889/api/webhook",
        "pilothouse up --webhook 0.0.0.0:8889 --webhook-certificate hook.crt --webhook-key hook.key",
        "# at each start of this machine",
        "pilothouse up --config /etc/pilothouse.yaml --print-unit > /etc/systemd/system/pilothouse.service",
    )
)
@data_dir_option("Where everything is kept; made if missing.")
@click.option(
    "--role",
    type=click.Choice(["all", "server", "agent"]),
    default="all",
    show_default=True,
    help="What this machine is: the control plane, a node, or both.",
)
@click.option("--without", default="", help=f"Parts to leave out, separated by commas: {', '.join(PARTS)}.")
@click.option("--join", default="", metavar="URL", help="The server of the cluster that an agent joins.")
@click.option("--token", default="", envvar="PILOTHOUSE_TOKEN", help="What `pilothouse token create` printed there.")
@click.option("--node-name", default="", help="The node's name; this machine's by default.")
@click.option("--node-ip", multiple=True, help="The node's address; found by routes by default. Repeatable.")
@click.option("--node-label", multiple=True, metavar="NAME=VALUE", help="A label of the node; repeatable.")
@click.option(
    "--cluster-cidr",
    default="10.244.0.0/16",
    show_default="10.244.0.0/16, 127.64.0.0/16 for an ordinary user",
    help="Addresses of pods; of an ordinary user out of 127.0.0.0/8.",
)
@click.option("--max-pods", type=click.IntRange(min=1), default=110, show_default=True, help="Pods of this node.")
@click.option("--bridge", default=DEFAULT_BRIDGE, show_default=True, help="Links pods; another platform needs its own.")
@click.option(
    "--gateway-address",
    multiple=True,
    metavar="CIDR",
    help="Addresses of this machine of which each Gateway gets its own; repeatable. By default all of the machine's, "
    "for all Gateways together; 127.90.0.0/24 for an ordinary user.",
)
@click.option("--gateway-workers", type=click.IntRange(0), default=0, help="Of the gateway; one a core, 4 at most.")
@click.option("--gateway-metrics", default="", metavar="HOST:PORT", help="Where the gateway serves its figures.")
@click.option(
    "--dashboard", default="", metavar="HOST:PORT", help="Where the dashboard is served, over TLS; off by default."
)
@click.option(
    "--webhook",
    default="",
    metavar="HOST:PORT",
    help="Where webhooks of git are taken, at /api/webhook, over TLS; off by default.",
)
@click.option("--webhook-certificate", type=click.Path(path_type=Path), help="PEM; one of the cluster's by default.")
@click.option("--webhook-key", type=click.Path(path_type=Path), help="The certificate's private key, PEM.")
@config_option(left_out=("print-unit",))
@click.option("--print-unit", is_flag=True, help="Print a systemd unit for these options instead, and end.")
@server_options
@click.pass_context
def up(ctx: click.Context, /, **settings: Any) -> None:
    """Start the platform on this machine and stay until SIGTERM or SIGINT.

    That is the API server, the controllers, the scheduler and the agent that runs pods, with services, network
    policies and names, and a gateway as soon as there is a Gateway or an Ingress; what ends unexpectedly is started
    again. It prints a table when it is ready, and writes DIR/admin.kubeconfig. Pods run on when it stops, and the next
    start takes them over; `pilothouse down` ends them.
    """
    directory = (settings["data_dir"] or default_home()).absolute()
    left_out = _left_out(settings["without"])
    if settings["role"] != "agent" and (settings["join"] or settings["token"]):
        raise click.UsageError("--join, --token: they are of --role agent")
    _check_webhook(settings, left_out)
    if settings["print_unit"]:
        click.echo(unit_text(_as_given(ctx), is_root=os.geteuid() == 0), nl=False)
        return
    _take_defaults(ctx)
    _make(directory)
    if settings["role"] == "agent":
        _join(settings, directory)
    else:
        _settle_addresses(ctx, directory)
    become_supervisor(_parts(ctx, directory, left_out), str(directory))


def _check_webhook(settings: dict[str, Any], left_out: set[str]) -> None:
    pair = settings["webhook_certificate"], settings["webhook_key"]
    if (pair[0] is None) != (pair[1] is None):
        raise click.UsageError("--webhook-certificate and --webhook-key: want both or neither")
    if not settings["webhook"]:
        if pair != (None, None):
            raise click.UsageError("--webhook-certificate: nothing takes webhooks without --webhook HOST:PORT")
        return
    listen_address("--webhook", settings["webhook"])
    if settings["role"] == "agent" or "delivery" in left_out:
        raise click.UsageError("--webhook: it is of delivery, which does not run here")


def _join(settings: dict[str, Any], directory: Path) -> None:
    """Make the node's kubeconfig, or keep the one that is there and good."""
    import asyncio

    from pilothouse.platform.joining import JoinError, join

    if not settings["join"]:
        raise click.UsageError("--role agent: which cluster? --join URL --token T, as `pilothouse token create` says")
    try:
        asyncio.run(join(settings["join"], settings["token"], _node_name(settings), str(directory)))
    except JoinError as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE if error.again else ExitCode.USAGE) from error


def _settle_addresses(ctx: click.Context, directory: Path) -> None:
    """Choose ports where 0 was given, as a server that is started again has to be found where it was.

    What an earlier start wrote for the other parts is removed: they wait for what the server writes, at its address.
    """
    for option in ("listen", "webhook"):
        if not ctx.params[option]:
            continue
        host, port = listen_address(f"--{option}", ctx.params[option])
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if port == 0:
            with contextlib.suppress(OSError), socket.create_server((host, 0), family=family) as found:
                shown = f"[{host}]" if ":" in host else host
                ctx.params[option] = f"{shown}:{found.getsockname()[1]}"
    for name in ("controllers", "gateway", "delivery", "agent"):
        (directory / f"{name}.kubeconfig").unlink(missing_ok=True)


def _make(directory: Path) -> None:
    """Make the data directory, for its owner alone, unless another platform is in it."""
    try:
        if (pid := holder(str(directory))) is not None:
            raise in_use(str(directory), pid)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}", code=ExitCode.USAGE) from error


def _parts(ctx: click.Context, directory: Path, left_out: set[str]) -> list[Part]:
    """Return the processes that this machine is to have, in the order in which they start."""
    settings = ctx.params
    dns = "" if "dns" in left_out else dns_address(settings["service_cluster_ip_range"])
    has_agent = settings["role"] != "server" and "agent" not in left_out
    parts = []
    if settings["role"] != "agent":
        parts.append(_server(ctx, directory, has_agent, left_out))
        if working := [each for each in CONTROL if each not in left_out]:
            kubeconfig = directory / "controllers.kubeconfig"
            options = [f"--kubeconfig={kubeconfig}", f"--dns-address={dns}", *(f"--part={each}" for each in working)]
            options += [f"--cluster-cidr={settings['cluster_cidr']}"] if owns_network() else []
            parts.append(Part("controllers", _module("work", settings, *options), {ExitCode.USAGE}))
        if not left_out.issuperset(("gateway", "delivery")):
            parts.append(_gateway(settings, directory, left_out))
        if settings["dashboard"]:
            parts.append(_dashboard(settings, directory))
    if has_agent:
        plan = _node_plan(settings, directory, left_out, dns)
        path = directory / "node" / "plan.json"
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_plan(str(path), plan)
        parts.append(Part("agent", _module("agent", settings, str(path)), {ExitCode.USAGE}))
    return parts


def _gateway(settings: dict[str, Any], directory: Path, left_out: set[str]) -> Part:
    """Return gateway and delivery, which the controllers' process asks for when there is something for them to do.

    They are one process: who judges a new version reads what the gateway has counted out of the same memory.
    """
    delivering = [
        f"--delivery-kubeconfig={directory / 'delivery.kubeconfig'}",
        f"--delivery-dir={directory / 'delivery'}",
    ]
    is_on_demand, hopeless = True, set[int]()
    if settings["webhook"]:  # who posts finds it also before there is an application
        delivering += _webhook(settings, directory)
        is_on_demand, hopeless = False, {int(ExitCode.USAGE), int(ExitCode.CONFLICT)}
    if "gateway" in left_out:
        return Part("delivery", _module("gateway", settings, *delivering), hopeless, on_demand=is_on_demand)
    options = [f"--kubeconfig={directory / 'gateway.kubeconfig'}", f"--workers={settings['gateway_workers']}"]
    options += [] if "delivery" in left_out else delivering
    options += [f"--address={each}" for each in settings["gateway_address"]]
    options += [f"--publish={each}" for each in settings["node_ip"] or (own_address(),)]
    options.append(f"--admin-socket={directory / 'run' / 'gateway.sock'}")
    options.append(f"--session-key={directory / 'gateway' / 'session.key'}")
    options += [f"--metrics={settings['gateway_metrics']}"] if settings["gateway_metrics"] else []
    return Part("gateway", _module("gateway", settings, *options), hopeless, on_demand=is_on_demand)


def _webhook(settings: dict[str, Any], directory: Path) -> list[str]:
    files = {
        "dir": directory / "webhook",
        "certificate": settings["webhook_certificate"],
        "key": settings["webhook_key"],
    }
    options = [f"--webhook-{name}={path.absolute()}" for name, path in files.items() if path is not None]
    return [f"--webhook={settings['webhook']}", f"--pki={directory / 'pki'}", *options]


def _dashboard(settings: dict[str, Any], directory: Path) -> Part:
    """Return the dashboard, which takes nothing but the server's address of the kubeconfig that it is given."""
    listen_address("--dashboard", settings["dashboard"])
    options = [f"--data-dir={directory}", f"--kubeconfig={directory / 'controllers.kubeconfig'}"]
    options += [f"--listen={settings['dashboard']}", f"--log-level={settings['log_level']}"]
    command = (sys.executable, "-m", "pilothouse", "dashboard", *options)
    return Part("dashboard", command, {ExitCode.USAGE, ExitCode.CONFLICT})


def _module(name: str, settings: dict[str, Any], *arguments: str) -> tuple[str, ...]:
    level = f"--log-level={settings['log_level']}"
    return (sys.executable, "-m", f"pilothouse.platform.{name}", level, *arguments)


def _server(ctx: click.Context, directory: Path, has_agent: bool, left_out: set[str]) -> Part:
    options = ["--data-dir", str(directory), "--lifecycle", *_given(ctx)]
    if has_agent:
        options += ["--node-name", _node_name(ctx.params)]
    if "gateway" not in left_out:
        options += ["--gateway", "--bundled", GATEWAY_OBJECTS]
    if "delivery" not in left_out:
        options += ["--delivery", "--bundled", DELIVERY_OBJECTS]
    if not owns_network():
        options.append("--allow-loopback-endpoints")
    return Part("apiserver", (sys.executable, "-m", "pilothouse", "apiserver", *options), range(1, _SIGNALS))


def _node_plan(settings: dict[str, Any], directory: Path, left_out: set[str], dns: str) -> NodePlan:
    first = "" if settings["role"] == "agent" else _first_of(settings["cluster_cidr"])
    return NodePlan(
        name=_node_name(settings),
        directory=str(directory / "node"),
        kubeconfig=str(directory / "agent.kubeconfig"),
        parts=tuple(each for each in NODE if each not in left_out),
        pki="" if settings["role"] == "agent" else str(directory / "pki"),
        addresses=settings["node_ip"],
        labels=_labels(settings["node_label"]),
        cluster_cidr=settings["cluster_cidr"] if owns_network() else "",
        pod_cidr=first if owns_network() else settings["cluster_cidr"],
        bridge=settings["bridge"],
        dns="" if settings["role"] == "agent" else dns,
        max_pods=settings["max_pods"],
        hidden=(str(directory),),
    )


def _take_defaults(ctx: click.Context) -> None:
    """Fill in what depends on who runs this: an ordinary user has neither a bridge nor addresses but loopback."""
    for name, value in (_ROOT_DEFAULTS if owns_network() else _USER_DEFAULTS).items():
        if ctx.get_parameter_source(name) is ParameterSource.DEFAULT:
            ctx.params[name] = value
            ctx.set_parameter_source(name, ParameterSource.COMMANDLINE)


def _node_name(settings: dict[str, Any]) -> str:
    return settings["node_name"] or socket.gethostname().lower()


def _first_of(cidr: str) -> str:
    """Return the range of the first node, as the controller that hands them out has it."""
    import ipaddress

    try:
        network = ipaddress.ip_network(cidr)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--cluster-cidr") from None
    size = max(24 if network.version == 4 else 64, network.prefixlen)
    if size - network.prefixlen > _MOST_BITS:
        raise click.BadParameter(
            f"{cidr}: want /{size - _MOST_BITS} or a smaller range, of which nodes get a /{size} each",
            param_hint="--cluster-cidr",
        )
    return str(next(network.subnets(new_prefix=size)))


def _labels(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise CommandError(f"--node-label {text}: want NAME=VALUE", code=ExitCode.USAGE)
        found[name] = value
    return found


def _left_out(text: str) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(names - set(PARTS)):
        raise CommandError(
            f"--without {','.join(unknown)}: there is no such part",
            hint=f"the parts are {', '.join(PARTS)}",
            code=ExitCode.USAGE,
        )
    return names


def _given(ctx: click.Context) -> Sequence[str]:
    """Return the server's options as they were given to this command."""
    theirs = {option.name for option in _server_parameters()}
    found: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        if name not in theirs or ctx.get_parameter_source(name) not in _GIVEN:
            continue
        values = ctx.params[name]
        for value in values if option.multiple else [values]:
            found += [option.opts[0], str(value)]
    return found


def _as_given(ctx: click.Context) -> list[str]:
    """Return this command again as it was given, with paths that do not depend on where it is run."""
    if ctx.get_parameter_source("token") is ParameterSource.COMMANDLINE:
        raise CommandError(
            "--token: everybody may read a unit",
            hint="put `token: T` into a file of mode 0600 and name that with --config",
            code=ExitCode.USAGE,
        )
    command = [sys.executable, "-m", "pilothouse", "up"]
    for option in ctx.command.params:
        name = option.name or ""
        if name in {"print_unit", "token"} or ctx.get_parameter_source(name) not in _SAID:
            continue
        values = ctx.params[name]
        for value in values if option.multiple else [values]:
            is_path = isinstance(option.type, click.Path)
            command += [option.opts[0], str(Path(value).absolute()) if is_path else str(value)]
    return command


def _server_parameters() -> Sequence[click.Parameter]:
    return click.command()(server_options(lambda: None)).params
