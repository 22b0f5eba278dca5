"""What a project allows its applications: repositories, destinations, kinds, and where applications may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pilothouse.delivery.resources.applications import (
    Application,
    AppProject,
    AppProjectSpec,
    Destination,
    GroupKind,
    Source,
)
from pilothouse.kinds.structs import ObjectMeta

from .addresses import normalised
from .globs import matches
from .targets import Key

__all__ = [
    "DEFAULT_PROJECT",
    "IN_CLUSTER",
    "IN_CLUSTER_URL",
    "allows_repository",
    "default_project",
    "is_here",
    "problems_of",
    "refused",
]

DEFAULT_PROJECT: Final = "default"
IN_CLUSTER: Final = "in-cluster"
IN_CLUSTER_URL: Final = "https://kubernetes.default.svc"


def default_project(namespace: str) -> AppProject:
    """Return the project that is there without being made: it allows everything."""
    return AppProject(
        metadata=ObjectMeta(name=DEFAULT_PROJECT, namespace=namespace),
        spec=AppProjectSpec(
            source_repos=["*"],
            destinations=[Destination(server="*", namespace="*")],
            cluster_resource_whitelist=[GroupKind(group="*", kind="*")],
            source_namespaces=["*"],
        ),
    )


def is_here(destination: Destination) -> bool:
    """Whether a destination is the cluster that the controller works on."""
    server = destination.server.rstrip("/").removesuffix(":443")
    return server in {"", IN_CLUSTER_URL} and destination.name in {"", IN_CLUSTER}


def problems_of(app: Application, project: AppProject, sources: Sequence[Source], control_namespace: str) -> list[str]:
    """Return what a project does not allow of an application's specification."""
    spec = project.spec
    name = project.metadata.name
    found = []
    if app.metadata.namespace != control_namespace and not _any(spec.source_namespaces, app.metadata.namespace):
        found.append(f"project {name} allows no applications in namespace {app.metadata.namespace}: sourceNamespaces")
    found += [
        f"project {name} does not allow the repository {source.repo_url}: sourceRepos"
        for source in sources
        if not _repository_allowed(spec, source.repo_url)
    ]
    if not _destination_allowed(spec, app.spec.destination, app.spec.destination.namespace):
        where = f"{app.spec.destination.server or app.spec.destination.name}, {app.spec.destination.namespace}"
        found.append(f"project {name} does not allow the destination {where}: destinations")
    return found


def refused(project: AppProject, destination: Destination, key: Key, *, namespaced: bool) -> str:
    """Return why a project does not allow an object, an empty text where it does."""
    spec = project.spec
    what = f"{key} is not permitted in project {project.metadata.name}"
    if not namespaced:
        if _listed(spec.cluster_resource_blacklist, key) or not _listed(spec.cluster_resource_whitelist, key):
            return f"{what}: clusterResourceWhitelist, clusterResourceBlacklist"
        return ""
    if _listed(spec.namespace_resource_blacklist, key):
        return f"{what}: namespaceResourceBlacklist"
    if spec.namespace_resource_whitelist and not _listed(spec.namespace_resource_whitelist, key):
        return f"{what}: namespaceResourceWhitelist"
    if not _destination_allowed(spec, destination, key.namespace):
        return f"{what}: destinations do not have namespace {key.namespace}"
    return ""


def _any(patterns: Iterable[str], text: str) -> bool:
    listed = [*patterns]
    if any(each.startswith("!") and matches(each[1:], text) for each in listed):
        return False
    return any(matches(each, text) for each in listed if not each.startswith("!"))


def allows_repository(project: AppProject, url: str) -> bool:
    """Whether a project allows a repository."""
    return _repository_allowed(project.spec, url)


def _repository_allowed(spec: AppProjectSpec, url: str) -> bool:
    patterns = [f"!{normalised(each[1:])}" if each.startswith("!") else normalised(each) for each in spec.source_repos]
    return _any(patterns, normalised(url))


def _destination_allowed(spec: AppProjectSpec, destination: Destination, namespace: str) -> bool:
    here = is_here(destination)
    server = IN_CLUSTER_URL if here else destination.server
    name = IN_CLUSTER if here else destination.name
    allowed = False
    for each in spec.destinations:
        denied = each.namespace.startswith("!") or each.server.startswith("!") or each.name.startswith("!")
        one_server, one_name = each.server.removeprefix("!"), each.name.removeprefix("!")
        cluster = (bool(one_server) and matches(one_server, server)) or (bool(one_name) and matches(one_name, name))
        meets = cluster and matches(each.namespace.removeprefix("!"), namespace)
        if denied and meets:
            return False
        allowed = allowed or (meets and not denied)
    return allowed


def _listed(kinds: Iterable[GroupKind], key: Key) -> bool:
    return any(
        matches(each.group, key.group)
        and matches(each.kind, key.kind)
        and (not each.name or matches(each.name, key.name))
        for each in kinds
    )
