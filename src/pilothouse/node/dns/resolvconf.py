"""What stands in a pod's `resolv.conf`, by its `dnsPolicy` and `dnsConfig`, as a kubelet decides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pilothouse.kinds.structs import Pod
from pilothouse.node.config import DNSConfig

__all__ = ["PodDns", "pod_dns", "read_resolv_conf"]

_MOST_SERVERS: Final = 3
_MOST_SEARCHES: Final = 32
_MOST_SEARCH_CHARACTERS: Final = 2_048


class PodDns(NamedTuple):
    """The lines for a pod, and what was left out of them, to be said by an event."""

    config: DNSConfig
    problems: tuple[str, ...] = ()


def read_resolv_conf(text: str) -> DNSConfig:
    """Return what a `resolv.conf` says; lines that nobody understands are passed over, as resolvers do."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if not words:
            continue
        if words[0] == "nameserver" and len(words) > 1 and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in {"search", "domain"}:
            searches = [each if each == "." else each.rstrip(".") for each in words[1:]]
        elif words[0] == "options":
            options += words[1:]
    return DNSConfig(servers=tuple(servers), searches=tuple(searches), options=tuple(options))


def pod_dns(pod: Pod, *, cluster_dns: Sequence[str], cluster_domain: str, host: DNSConfig) -> PodDns:
    """Return the lines of a pod. host: of the machine, see `read_resolv_conf`.

    Without an address of the cluster's DNS the machine's own are used, and the problems say so.
    """
    spec = pod.spec
    policy = spec.dns_policy or "ClusterFirst"
    problems: list[str] = []
    if policy == "ClusterFirst" and spec.host_network:
        policy = "Default"
    if policy in {"ClusterFirst", "ClusterFirstWithHostNet"} and not cluster_dns:
        problems.append(
            f'there is no cluster DNS, so dnsPolicy "{spec.dns_policy or "ClusterFirst"}" falls back to "Default"'
        )
        policy = "Default"
    if policy == "None":
        base = DNSConfig()
    elif policy == "Default":
        base = host
    else:
        domain = cluster_domain.rstrip(".")
        own = (f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain)
        base = DNSConfig(servers=tuple(cluster_dns), searches=(*own, *host.searches), options=("ndots:5",))
    return _bounded(_with_config(pod, base), problems)


def _with_config(pod: Pod, base: DNSConfig) -> DNSConfig:
    config = pod.spec.dns_config
    if config is None:
        return base
    wanted = [each.name if each.value in {None, ""} else f"{each.name}:{each.value}" for each in config.options]
    return DNSConfig(
        servers=_unique((*base.servers, *config.nameservers)),
        searches=_unique((*base.searches, *config.searches)),
        options=_merged(base.options, wanted),
    )


def _merged(base: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return options, of those with one name the last one."""
    found = {each.partition(":")[0]: each for each in base}
    found.update((each.partition(":")[0], each) for each in wanted)
    return tuple(found.values())


def _bounded(config: DNSConfig, problems: list[str]) -> PodDns:
    servers, searches = config.servers, _unique(config.searches)
    if len(servers) > _MOST_SERVERS:
        left_out = ", ".join(servers[_MOST_SERVERS:])
        problems.append(f"nameservers: resolvers use {_MOST_SERVERS} at most; left out: {left_out}")
        servers = servers[:_MOST_SERVERS]
    kept: list[str] = []
    for each in searches:
        if len(kept) == _MOST_SEARCHES or len(" ".join([*kept, each])) > _MOST_SEARCH_CHARACTERS:
            break
        kept.append(each)
    if len(kept) < len(searches):
        problems.append(
            f"searches: at most {_MOST_SEARCHES} paths of {_MOST_SEARCH_CHARACTERS} characters; left out: "
            + ", ".join(searches[len(kept) :])
        )
    return PodDns(DNSConfig(servers=servers, searches=tuple(kept), options=config.options), tuple(problems))


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
