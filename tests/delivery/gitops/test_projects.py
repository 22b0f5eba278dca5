"""What projects allow."""

from __future__ import annotations

from typing import Any

from pilothouse.delivery.gitops.projects import default_project, problems_of, refused
from pilothouse.delivery.gitops.targets import Key
from pilothouse.delivery.resources.applications import Application, AppProject, Destination, Source
from pilothouse.kinds.structs import from_dict


def project(**spec: Any) -> AppProject:
    base = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}]}
    return from_dict({"metadata": {"name": "p", "namespace": "argocd"}, "spec": {**base, **spec}}, AppProject)


def app(namespace: str = "shop", where: str = "argocd") -> Application:
    destination = {"name": "in-cluster", "namespace": namespace}
    return from_dict({"metadata": {"name": "a", "namespace": where}, "spec": {"destination": destination}}, Application)


def wrong(found: AppProject, url: str = "https://github.com/a/b.git", **of: str) -> str:
    return "; ".join(problems_of(app(**of), found, [Source(repo_url=url)], "argocd"))


def test_repositories() -> None:
    only = project(sourceRepos=["https://github.com/a/*", "!https://github.com/a/secret"])
    assert not wrong(only)
    assert "sourceRepos" in wrong(only, "https://github.com/b/b.git")
    assert "sourceRepos" in wrong(only, "https://github.com/a/secret.git")
    assert not wrong(project(sourceRepos=["git@github.com:a/b.git"]), "ssh://git@github.com/a/b")


def test_destinations() -> None:
    only = project(
        destinations=[{"name": "in-cluster", "namespace": "shop-*"}, {"server": "*", "namespace": "!shop-secret"}]
    )
    assert not wrong(only, namespace="shop-a")
    assert "destinations" in wrong(only, namespace="other")
    assert "destinations" in wrong(only, namespace="shop-secret")


def test_applications_in_other_namespaces_want_to_be_allowed() -> None:
    assert "sourceNamespaces" in wrong(project(), where="team")
    assert not wrong(project(sourceNamespaces=["team*"]), where="team")
    assert not wrong(default_project("argocd"), where="team")


def test_kinds() -> None:
    where = Destination(name="in-cluster", namespace="shop")
    role, deployment = Key("rbac.authorization.k8s.io", "ClusterRole", "", "r"), Key("apps", "Deployment", "shop", "d")
    assert refused(project(), where, role, namespaced=False)
    allowed = project(clusterResourceWhitelist=[{"group": "rbac*", "kind": "ClusterRole", "name": "r*"}])
    assert not refused(allowed, where, role, namespaced=False)
    assert refused(allowed, where, role._replace(name="x"), namespaced=False)
    assert not refused(project(), where, deployment, namespaced=True)
    assert refused(
        project(namespaceResourceBlacklist=[{"group": "apps", "kind": "*"}]), where, deployment, namespaced=True
    )
    core = project(namespaceResourceWhitelist=[{"group": "", "kind": "*"}])
    assert refused(core, where, deployment, namespaced=True)
    elsewhere = project(destinations=[{"server": "*", "namespace": "shop"}])
    assert refused(elsewhere, where, deployment._replace(namespace="kube-system"), namespaced=True)
