"""A rollout on a platform, `web`, behind a gateway: its objects, and how it is."""

from __future__ import annotations

from typing import Any, Final

import yaml

from .platformkit import Platform
from .platformload import configured, service

__all__ = ["ARGO", "GATEWAYS", "address", "analysis", "apply", "front", "rollout", "status", "template", "weights"]

Object = dict[str, Any]
ARGO: Final = "/apis/argoproj.io/v1alpha1/namespaces/default"
GATEWAYS: Final = "/apis/gateway.networking.k8s.io/v1/namespaces/default"


def apply(platform: Platform, *objects: Object) -> None:
    """Apply objects by kubectl."""
    platform.kubectl("apply", "-f", "-", data=yaml.safe_dump_all(objects))


def front(port: int) -> list[Object]:
    """Return a gateway that listens at a port, the route `web`, and the services `stable` and `canary` behind it."""
    group = "gateway.networking.k8s.io/v1"
    listeners = [{"name": "http", "port": port, "protocol": "HTTP"}]
    backends = [{"name": name, "port": 8080, "weight": weight} for name, weight in (("stable", 100), ("canary", 0))]
    return [
        *(service(name, selector={"app": "web"}) for name in ("stable", "canary")),
        {
            "apiVersion": group,
            "kind": "Gateway",
            "metadata": {"name": "front"},
            "spec": {"gatewayClassName": "pilothouse", "listeners": listeners},
        },
        {
            "apiVersion": group,
            "kind": "HTTPRoute",
            "metadata": {"name": "web"},
            "spec": {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": backends}]},
        },
    ]


def template(name: str, **config: Any) -> Object:
    """Return an analysis by what the data plane counts."""
    plugin = {"pilothouse.dev/traffic": {"route": "web", "canary": "canary", "stable": "stable", **config}}
    return analysis(name, {"name": "traffic", "provider": {"plugin": plugin}})


def analysis(name: str, *metrics: Object) -> Object:
    """Return an analysis of metrics."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": name},
        "spec": {"metrics": [*metrics]},
    }


def rollout(version: str, *steps: Object, background: str = "judged", watch: str = "1s", **env: str) -> Object:
    """Return the rollout `web` of a version, judged by a background analysis where one is named. env: see `SERVER`."""
    container = configured(version)
    container["env"] = [*container["env"], *({"name": name, "value": value} for name, value in env.items())]
    canary: Object = {
        "canaryService": "canary",
        "stableService": "stable",
        "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "web", "namespace": "default"}}},
        "steps": [*(steps or ({"setWeight": 50}, {"pause": {"duration": 120}}))],
    }
    if background:
        canary["analysis"] = {"templates": [{"templateName": background}]}
    pods = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2},
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "annotations": {"pilothouse.dev/watch-after-promotion": watch}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": pods,
            "strategy": {"canary": canary},
        },
    }


def status(platform: Platform) -> Object:
    """Return the status of the rollout."""
    found: Object = platform.call("GET", f"{ARGO}/rollouts/web").get("status", {})
    return found


def weights(platform: Platform) -> list[int]:
    """Return the shares of the stable version and of the canary."""
    (rule,) = platform.call("GET", f"{GATEWAYS}/httproutes/web")["spec"]["rules"]
    return [each["weight"] for each in rule["backendRefs"]]


def address(platform: Platform) -> str:
    """Return the address of the gateway."""
    found: str = platform.call("GET", f"{GATEWAYS}/gateways/front")["status"]["addresses"][0]["value"]
    return found
