"""This machine's node in one process: `python -m pilothouse.platform.agent PLAN`, which the supervisor starts.

The agent, the process runtime, services, network policies and names share one client and one cache a kind. What they
put into the kernel stays when the process ends, so that pods are served while it is started again; `pilothouse down`
takes it away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import click
from msgspec.structs import replace as replace_fields

from pilothouse.apiserver.access.pki import Pki, PkiError
from pilothouse.client import Client, ClientError, ConfigError
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.foundation import logs, tls
from pilothouse.foundation.addresses import LOOPBACK
from pilothouse.foundation.lifeline import Lifeline
from pilothouse.foundation.terminal import CommandError, ExitCode
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import Pod, Service, replace
from pilothouse.node.agent import Agent, AgentOptions
from pilothouse.node.agent.machine import addresses
from pilothouse.node.agent.podcidr import pod_cidr
from pilothouse.node.config import DNSConfig
from pilothouse.node.dns import ClusterDns, pod_dns, read_resolv_conf
from pilothouse.node.errors import NodeError
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime
from pilothouse.node.services import (
    KernelBackend,
    NetworkPolicies,
    NodeRoutes,
    ProxyNetwork,
    ServiceProxy,
    UserspaceBackend,
)
from pilothouse.node.services.nft import why_not
from pilothouse.node.services.proxying import Backend
from pilothouse.node.serving.equipment import Equipment
from pilothouse.node.told import until_told
from pilothouse.node.volumes.localdirs import ROOT, LocalDirectories
from pilothouse.operator import Manager
from pilothouse.operator.running import until_changed, until_served, until_there

from .dnsservice import NAME, NAMESPACE
from .joining import JoinError, renew
from .nodeplan import NodePlan, PlanError, read_plan

__all__ = ["agent_options", "main", "runtime_options"]

_RESOLV_CONF: Final = "/etc/resolv.conf"
_LOOK_SECONDS: Final = 30.0
_RENEW_SECONDS: Final = 6 * 3600.0
_HTTPS: Final = 443
_log = logs.get_logger("pilothouse.platform.agent")


class _Part(Protocol):
    async def start(self) -> None: ...

    async def wait_synced(self) -> None: ...

    def problems(self) -> list[str]: ...


class _ClusterNames:
    """A pod's resolv.conf: of the cluster's DNS where it answers at the port that resolvers ask."""

    def __init__(self, plan: NodePlan, names: ClusterDns | None) -> None:
        self._domain = plan.domain
        self._servers = (plan.dns,) if plan.dns and not (names is not None and names.problems()) else ()

    def resolver(self, pod: Pod) -> DNSConfig:
        """Return what a pod's resolv.conf says."""
        host = DNSConfig()
        with contextlib.suppress(OSError), open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            host = read_resolv_conf(file.read())
        return pod_dns(pod, cluster_dns=self._servers, cluster_domain=self._domain, host=host).config


def runtime_options(plan: NodePlan) -> Options:
    """Return what the runtime of a node is told."""
    usual = Options(root=os.path.join(plan.directory, "runtime"))
    return Options(
        root=usual.root,
        bridge=plan.bridge,
        pod_cidr=plan.pod_cidr,
        cluster_cidr=plan.cluster_cidr,
        cgroup_prefix=plan.suffix.lstrip("-"),
        hidden=(*usual.hidden, *plan.hidden),
    )


def agent_options(plan: NodePlan) -> AgentOptions:
    """Return what the agent of a node is told."""
    return AgentOptions(
        name=plan.name,
        root=os.path.join(plan.directory, "agent"),
        addresses=plan.addresses,
        labels=plan.labels,
        annotations={ROOT: plan.volumes},
        max_pods=plan.max_pods,
        port=plan.port,
    )


@click.command()
@click.argument("plan_path", metavar="PLAN")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def main(plan_path: str, log_level: Literal["debug", "info", "warning", "error"]) -> None:
    """Run the pods of this machine until told to stop; they run on."""
    import uvloop  # noqa: PLC0415  # only where it is run

    logs.configure(log_level, "console")
    try:
        uvloop.run(_supervised(read_plan(plan_path)))
    except CacheSyncError as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except (ConfigError, PlanError, tls.TlsError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except (NodeError, ClientError, OSError, ValueError) as error:
        raise CommandError(str(error)) from error


async def _supervised(plan: NodePlan) -> None:
    told = asyncio.Event()
    lifeline = Lifeline.from_environment()
    if lifeline is not None:
        lifeline.watch(told.set)
    await until_told(_work(plan, lifeline), told)  # pods and rules stay; the agent lets go of them


async def _work(plan: NodePlan, lifeline: Lifeline | None) -> None:
    os.makedirs(plan.directory, mode=0o711, exist_ok=True)
    os.makedirs(plan.volumes, mode=0o700, exist_ok=True)  # below it anybody may write
    async with contextlib.AsyncExitStack() as stack:
        # With a range of its own the node gets its network while the server starts.
        early = await stack.enter_async_context(_runtime(plan, plan.pod_cidr)) if plan.pod_cidr else None
        client = await stack.enter_async_context(_client(plan))
        given = await pod_cidr(client, plan.name, plan.pod_cidr) if plan.cluster_cidr else plan.pod_cidr
        if early is not None and given == plan.pod_cidr:
            await _serve(plan, client, early, lifeline)
            return
        if early is not None:
            await early.close()
        async with _runtime(plan, given) as runtime:
            await _serve(plan, client, runtime, lifeline)


async def _serve(plan: NodePlan, client: Client, runtime: ProcessRuntime, lifeline: Lifeline | None) -> None:
    if "dns" in plan.parts and not plan.dns:
        plan = replace_fields(plan, dns=await _dns_of(client))
    manager = Manager(client)
    names = ClusterDns(manager, plan.dns, domain=plan.domain) if plan.dns else None
    parts = _parts(plan, manager, names)
    services = _services(plan, manager)
    async with manager:
        for part in parts:
            await part.start()
        ca, authority = _keys(plan)
        equipment = Equipment(client, runtime, agent_options(plan), ca=ca, authority=authority, services=services)
        try:
            await equipment.start()
            ports = equipment.ports(names=_ClusterNames(plan, names))
            agent = Agent(client, runtime, equipment.options, ports=ports)
            await _run(plan, agent, runtime, equipment, parts, lifeline, plan.dns)
        finally:
            await equipment.close()


async def _dns_of(client: Client) -> str:
    """Return where the cluster that was joined has its DNS, empty where it has none."""
    try:
        return (await client.get(Service, NAME, NAMESPACE)).spec.cluster_ip or ""
    except NotFound:
        return ""


async def _renew(plan: NodePlan) -> None:
    """Keep the kubeconfig of a machine that joined good, and wait until it is another: then the agent begins anew."""
    changed = asyncio.create_task(until_changed(plan.kubeconfig), name="kubeconfig")
    while not changed.done():
        if not plan.pki:
            try:
                await renew(plan.kubeconfig)
            except JoinError as error:
                _log.warning("the node's certificate is not renewed", error=str(error))
        await asyncio.wait([changed], timeout=_RENEW_SECONDS)


def _parts(plan: NodePlan, manager: Manager, names: ClusterDns | None) -> list[_Part]:
    """Return what the node has beside its pods, in the order in which it starts."""
    parts: list[_Part] = [LocalDirectories(manager, plan.name, plan.volumes)]
    if names is not None:
        parts.append(names)
    if plan.cluster_cidr:
        parts.append(NodeRoutes(manager, plan.name, cluster_cidr=plan.cluster_cidr))
    if "services" in plan.parts:
        parts.append(ServiceProxy(manager, plan.name, backend=_backend(plan)))
    if "network-policies" in plan.parts:
        parts.append(NetworkPolicies(manager, plan.name, table=plan.policies_table))
    return parts


def _services(plan: NodePlan, manager: Manager) -> Callable[[], Iterable[Service]]:
    """Return what gives the services that pods learn of by their environment."""
    lister = manager.informer(Service).lister()
    if plan.cluster_cidr:
        return lister.list
    server = urlsplit(load_kubeconfig(plan.kubeconfig).server)
    return lambda: [_at(each, server.hostname or "", server.port or _HTTPS) for each in lister.list()]


def _at(found: Service, address: str, port: int) -> Service:
    """Return `kubernetes` as where the server is: an ordinary user may not listen at port 443 for it."""
    if (found.metadata.namespace, found.metadata.name) != ("default", "kubernetes"):
        return found
    ports = tuple(replace(each, port=port) for each in found.spec.ports)
    return replace(found, spec=replace(found.spec, cluster_ip=address, ports=ports))


async def _run(
    plan: NodePlan,
    agent: Agent,
    runtime: ProcessRuntime,
    equipment: Equipment,
    parts: list[_Part],
    lifeline: Lifeline | None,
    dns: str,
) -> None:
    running = asyncio.create_task(agent.run(), name="agent")
    telling = None
    try:
        await equipment.attach(agent)
        for part in parts:
            await part.wait_synced()
        if lifeline is not None:
            lifeline.ready(node=equipment.options.name, dns=dns, missing="\n".join(await _problems(runtime, parts)))
        telling = asyncio.create_task(_tell_problems(agent, runtime, parts), name="problems")
        await asyncio.shield(running)
    finally:
        if telling is not None:
            telling.cancel()
        agent.stop()
        await running


async def _problems(runtime: ProcessRuntime, parts: list[_Part]) -> list[str]:
    missing = [f"pods of this node do without: {each}" for each in (await runtime.status()).missing]
    return list(dict.fromkeys([*missing, *(problem for part in parts for problem in part.problems())]))


async def _tell_problems(agent: Agent, runtime: ProcessRuntime, parts: list[_Part]) -> None:
    """Say once, in the log and by events of the node, what this machine does not allow, and what fails later."""
    before: set[str] = set()
    while True:
        now = await _problems(runtime, parts)
        for problem in now:
            if problem not in before:
                _log.warning("not all is carried out", problem=problem)
                agent.host.recorder.warning(agent.presence.node, "NotCarriedOut", problem)
        before = set(now)
        await asyncio.sleep(_LOOK_SECONDS)


@contextlib.asynccontextmanager
async def _runtime(plan: NodePlan, pod_range: str) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(replace_fields(runtime_options(plan), pod_cidr=pod_range))
    try:
        await runtime.start()
        yield runtime
    finally:
        await runtime.close()


@contextlib.asynccontextmanager
async def _client(plan: NodePlan) -> AsyncIterator[Client]:
    await until_there(plan.kubeconfig)
    async with Client.from_kubeconfig(plan.kubeconfig, managed_fields=False) as client:
        await until_served(client)
        yield client


def _keys(plan: NodePlan) -> tuple[bytes, tls.Credentials | None]:
    """Return the authorities of clients, and the cluster's CA with its key where that is on this machine."""
    if not plan.pki:
        return load_kubeconfig(plan.kubeconfig).ca_data, None
    pki = Pki(plan.pki)
    try:
        return pki.read("ca.crt"), pki.authority()
    except PkiError as error:  # a CA of somebody else: the node asks for its certificate as those elsewhere do
        _log.info("the node's certificate is asked for", reason=str(error))
        return pki.read("ca.crt"), None


def _backend(plan: NodePlan) -> Backend:
    if why := why_not():
        _log.info("services are carried by this program", reason=why)
        return UserspaceBackend(node_addresses=tuple(dict.fromkeys((LOOPBACK, *(plan.addresses or addresses())))))
    cidrs = (plan.cluster_cidr,) if plan.cluster_cidr else ()
    network = ProxyNetwork(pod_cidrs=cidrs, bridge=plan.bridge, is_localhost=True)
    return KernelBackend(table=plan.services_table, network=network)


if __name__ == "__main__":
    main()
