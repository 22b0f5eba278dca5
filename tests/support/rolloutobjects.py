"""Objects of rollouts on a platform: gateway, routes, services, analyses, and what answers with its version."""

from __future__ import annotations

from typing import Any, Final

from .platformload import service
from .rollouttraffic import PORT, container

__all__ = [
    "ARGO",
    "FRONT",
    "ROUTES",
    "analysis",
    "application",
    "blue_green",
    "blue_green_front",
    "canary",
    "canary_front",
    "front",
    "held",
    "judged",
    "rollout",
    "route",
    "template",
]

Object = dict[str, Any]
ROUTES: Final = "gateway.networking.k8s.io/v1"
ARGO: Final = "argoproj.io/v1alpha1"
FRONT: Final = 18110
"""The gateway's port, at an address that a platform of tests has for itself."""


def front() -> list[Object]:
    """Return a gateway that believes what clients say of their region, and the traffic's own judgement."""
    listeners = [{"name": "http", "port": FRONT, "protocol": "HTTP"}]
    own = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
    regions = {"header": "x-client-region", "trusted": ["127.0.0.0/8"]}
    return [
        _object(ROUTES, "Gateway", "front", {"gatewayClassName": "pilothouse", "listeners": listeners}),
        _object("pilothouse.dev/v1alpha1", "TrafficPolicy", "front", {"targetRefs": [own], "regions": regions}),
    ]


def _object(version: str, kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def judged(name: str, seconds: str = "") -> Object:
    """Return a template that judges `canary` beside `stable`, both names of services, for so long or without end."""
    config = {
        "route": "{{args.route}}",
        "canary": "{{args.canary}}",
        "stable": "{{args.stable}}",
        "window": "5s",
        "leastRequests": 5,
    }
    metric = {
        "name": "traffic",
        "provider": {"plugin": {"pilothouse.dev/traffic": config | ({"for": seconds} if seconds else {})}},
    }
    args = [{"name": each} for each in ("route", "canary", "stable")]
    return _object(ARGO, "AnalysisTemplate", name, {"args": args, "metrics": [metric]})


def analysis(name: str, template: str = "judged", *, canary: str = "", stable: str = "") -> Object:
    """Return the analysis of a rollout's services by a template: those of a canary, or others."""
    given = {"route": name, "canary": canary or f"{name}-canary", "stable": stable or f"{name}-stable"}
    args = [{"name": key, "value": value} for key, value in given.items()]
    return {"templates": [{"templateName": template}], "args": args}


def route(name: str, host: str, **weights: int) -> Object:
    """Return a route from a host to services with weights; `_` in a name is a hyphen."""
    refs = [{"name": key.replace("_", "-"), "port": PORT, "weight": weight} for key, weight in weights.items()]
    spec = {"parentRefs": [{"name": "front"}], "hostnames": [host], "rules": [{"backendRefs": refs}]}
    return _object(ROUTES, "HTTPRoute", name, spec)


def template(name: str, version: str, bad: int = 0) -> Object:
    """Return a template of pods of a version."""
    spec = {"containers": [container(version, bad)], "terminationGracePeriodSeconds": 5}
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def rollout(name: str, version: str, strategy: Object, *, bad: int = 0, replicas: int = 1, **spec: Any) -> Object:
    """Return a rollout. bad: which n-th answer of it is an error."""
    given = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, version, bad),
        "strategy": strategy,
    }
    made = _object(ARGO, "Rollout", name, given | spec)
    made["metadata"]["annotations"] = {"pilothouse.dev/watch-after-promotion": "0"}
    return made


def canary(name: str, *steps: Object, **more: Any) -> Object:
    """Return a strategy that splits the traffic of the route of the same name."""
    routing = {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": name}}} | more.pop("trafficRouting", {})
    services = {"canaryService": f"{name}-canary", "stableService": f"{name}-stable"}
    return {"canary": {**services, "trafficRouting": routing, "steps": [*steps], **more}}


def blue_green(name: str, **more: Any) -> Object:
    """Return a strategy that switches at once and keeps the replaced pods for a while."""
    services = {"activeService": f"{name}-active", "previewService": f"{name}-preview"}
    return {"blueGreen": {**services, "scaleDownDelaySeconds": 60, **more}}


def blue_green_front(name: str) -> list[Object]:
    """Return both services, and their routes for the hosts NAME.test and preview.NAME.test."""
    selected = [service(f"{name}-{word}", selector={"app": name}) for word in ("active", "preview")]
    active, preview = ({f"{name}_{word}": 1} for word in ("active", "preview"))
    return [
        *selected,
        route(name, f"{name}.test", **active),
        route(f"{name}-preview", f"preview.{name}.test", **preview),
    ]


def canary_front(name: str) -> list[Object]:
    """Return both services and the route of a canary, for the host NAME.test."""
    selected = [service(f"{name}-{word}", selector={"app": name}) for word in ("stable", "canary")]
    return [*selected, route(name, f"{name}.test", **{f"{name}_stable": 100, f"{name}_canary": 0})]


def application(name: str, url: str) -> list[Object]:
    """Return an application out of a repository in which a bad version is reverted."""
    labels = {"argocd.argoproj.io/secret-type": "repository"}
    spec = {
        "project": "default",
        "source": {"repoURL": url, "targetRevision": "main", "path": name},
        "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"},
        "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "argocd", "labels": labels},
            "stringData": {"url": url, "pilothouseRevert": "commit"},
        },
        {
            "apiVersion": ARGO,
            "kind": "Application",
            "metadata": {"name": name, "namespace": "argocd"},
            "spec": spec,
        },
    ]


def held(name: str) -> list[Object]:
    """Return a policy by which the traffic of a rollout does not go back: a decision is taken and nothing follows."""
    own = {"apiGroups": ["gateway.networking.k8s.io"], "apiVersions": ["v1"], "resources": ["httproutes"]}
    rule = {**own, "operations": ["UPDATE"], "resourceNames": [name]}
    weight = "spec.rules[0].backendRefs[1].weight"
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"object.{weight} >= oldObject.{weight}", "message": "held"}],
    }
    binding = {"policyName": "hold", "validationActions": ["Deny"]}
    group = "admissionregistration.k8s.io/v1"
    return [
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "hold"}, "spec": spec},
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "hold"},
            "spec": binding,
        },
    ]
