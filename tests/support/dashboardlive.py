"""A shop on `pilothouse up --dashboard`: an application out of git, a rollout, and clients in two regions.

    with shop() as found:
        found.commit("2")
        with found.clients():
            ...

It runs as an ordinary user where it can: no interfaces come and go then, which browsers mind.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from pilothouse.platform.state import read_state
from support.platformkit import Platform, eventually, platform_of
from support.platformload import SERVER, Load, configured, service

__all__ = ["PORT", "REGIONS", "Shop", "shop"]

Object = dict[str, Any]
PORT: Final = 18_097
REGIONS: Final = ("cn-east", "eu-west")
HEADER: Final = "X-Client-Region"
_GATEWAY: Final = "gateway.networking.k8s.io/v1"
_ARGO: Final = "argoproj.io/v1alpha1"
_OWN: Final = "pilothouse.dev/v1alpha1"


class Shop:
    """What a test has. url: of the dashboard. repository: the work tree that the application follows."""

    def __init__(self, platform: Platform, url: str, repository: Path) -> None:
        self.platform = platform
        self.url = url
        self.repository = repository

    def commit(self, version: str, *, bad: float = 0.0) -> None:
        """Commit a version of the shop. bad: the share of requests that it fails."""
        (self.repository / "shop.yaml").write_text(yaml.safe_dump_all([*_front(), _rollout(version, bad)]))
        _git(self.repository, "add", ".")
        _git(self.repository, "commit", "-q", "-m", f"version {version}")
        for path in (self.repository, *self.repository.rglob("*")):  # an ordinary user's platform reads it too
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))

    def head(self) -> str:
        """Return the newest commit."""
        return _git(self.repository, "rev-parse", "HEAD").strip()

    def rollout(self) -> Object:
        """Return the rollout as it is now."""
        found: Object = self.platform.call("GET", f"/apis/{_ARGO}/namespaces/shop/rollouts/front")
        return found

    def application(self) -> Object:
        """Return the application as it is now."""
        found: Object = self.platform.call("GET", f"/apis/{_ARGO}/namespaces/argocd/applications/shop")
        return found

    @contextmanager
    def clients(self) -> Iterator[list[Load]]:
        """Send requests from both regions meanwhile."""
        path = f"/apis/{_GATEWAY}/namespaces/shop/gateways/front"
        address = eventually(lambda: self.platform.call("GET", path).get("status", {}).get("addresses"))[0]["value"]
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(Load(address, PORT, kept=2, new=0, pause=0.025, head=f"{HEADER}: {region}\r\n"))
                for region in REGIONS
            ]

    def token(self, account: str, *roles: tuple[str, str]) -> str:
        """Return a token of a new service account in shop. roles: namespace and cluster role that it has."""
        accounts = "/api/v1/namespaces/shop/serviceaccounts"
        self.platform.call("POST", accounts, {"metadata": {"name": account}})
        for namespace, role in roles:
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
            subject = {"kind": "ServiceAccount", "name": account, "namespace": "shop"}
            binding = {"metadata": {"name": f"{account}-{role}"}, "roleRef": reference, "subjects": [subject]}
            where = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
            self.platform.call("POST", where, binding)
        found: str = self.platform.call("POST", f"{accounts}/{account}/token", {"spec": {}})["status"]["token"]
        return found


@contextmanager
def shop() -> Iterator[Shop]:
    """Run all of it; the application is there, and nothing is synced yet."""
    with platform_of("user", "--dashboard", "127.0.0.1:0") as platform:
        state = read_state(str(platform.data))
        assert state is not None
        repository = platform.data.parent / "repository"
        subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True, timeout=60)
        made = Shop(platform, state.parts["dashboard"].told["dashboard"], repository)
        made.commit("1")
        for name in ("argocd", "shop"):
            platform.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        platform.call("POST", f"/apis/{_ARGO}/namespaces/argocd/applications", _application(repository))
        yield made


def _application(repository: Path) -> Object:
    source = {"repoURL": f"file://{repository}", "targetRevision": "main", "path": "."}
    destination = {"server": "https://kubernetes.default.svc", "namespace": "shop"}
    spec = {"project": "default", "source": source, "destination": destination}
    return {"apiVersion": _ARGO, "kind": "Application", "metadata": {"name": "shop"}, "spec": spec}


def _front() -> list[Object]:
    listeners = [{"name": "http", "port": PORT, "protocol": "HTTP"}]
    backends = [{"name": name, "port": 8080, "weight": weight} for name, weight in (("front", 100), ("canary", 0))]
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
    # a machine that is busy with other tests is no reason to take a version back
    judged = {
        "route": "front",
        "canary": "canary",
        "stable": "front",
        "leastRequests": 20,
        "errors": "20%",
        "p95": "30s",
    }
    metric = {"name": "traffic", "provider": {"plugin": {"pilothouse.dev/traffic": judged}}}
    rules = [{"backendRefs": backends}]
    return [
        *(service(name, selector={"app": "front"}) for name in ("front", "canary")),
        _object(_GATEWAY, "Gateway", "front", {"gatewayClassName": "pilothouse", "listeners": listeners}),
        _object(_GATEWAY, "HTTPRoute", "front", {"parentRefs": [{"name": "front"}], "rules": rules}),
        _object(
            _OWN,
            "TrafficPolicy",
            "front",
            {"targetRefs": [target], "regions": {"header": HEADER, "trusted": ["127.0.0.0/8"], "default": "elsewhere"}},
        ),
        _object(_ARGO, "AnalysisTemplate", "judged", {"metrics": [metric]}),
        _object(_OWN, "ServiceLevel", "front", {"rollout": "front", "routes": ["front"], "objective": "99.9%"}),
    ]


def _object(version: str, kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _rollout(version: str, bad: float) -> Object:
    container = configured(version)
    container["env"] = [*container["env"], {"name": "BAD", "value": str(bad)}]
    container["command"] = ["python3", "-c", f"print('version {version} serves', flush=True)\n{SERVER}"]
    plugin = {"argoproj-labs/gatewayAPI": {"httpRoute": "front", "namespace": "shop"}}
    canary = {
        "canaryService": "canary",
        "stableService": "front",
        "trafficRouting": {"plugins": plugin},
        "analysis": {"templates": [{"templateName": "judged"}]},
        "steps": [
            {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 50}}},
            {"pause": {}},
            {"setWeight": 100},
        ],
    }
    template = {
        "metadata": {"labels": {"app": "front"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "front"}}, "template": template}
    made = _object(_ARGO, "Rollout", "front", {**spec, "strategy": {"canary": canary}})
    made["metadata"]["annotations"] = {"pilothouse.dev/watch-after-promotion": "1s"}
    return made


def _git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
