"""The operator of `website.py` once more, with kopf: the same kind, the same objects behind it, the same status.

It is here to be compared with; docs/operator-examples.md says what differs. `kopf run website_kopf.py` runs it against
the cluster of a kubeconfig. Objects are written by Pilothouse's client, since kopf brings none of its own.
"""

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import kopf

from pilothouse.client import Client, ignore_not_found
from pilothouse.operator import install
from pilothouse.testing import ControlPlane

Object = Mapping[str, Any]
GROUP, VERSION = "example.com", "v1"

TEXT, NUMBER = {"type": "string"}, {"type": "integer", "format": "int64"}
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"websites.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Website", "listKind": "WebsiteList", "plural": "websites", "singular": "website"},
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A page that is served.",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What a website shall be.",
                                "required": ["html"],
                                "properties": {
                                    "html": TEXT,
                                    "replicas": {**NUMBER, "default": 1},
                                    "image": {**TEXT, "default": "nginx:1.29"},
                                },
                            },
                            "status": {
                                "type": "object",
                                "description": "What a website is.",
                                "properties": {
                                    "readyReplicas": {**NUMBER, "default": 0},
                                    "observedGeneration": {**NUMBER, "default": 0},
                                    "conditions": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["type"],
                                        "items": {
                                            "type": "object",
                                            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
                                            "properties": {
                                                **dict.fromkeys(("type", "status", "reason", "message"), TEXT),
                                                "lastTransitionTime": {**TEXT, "format": "date-time"},
                                                "observedGeneration": NUMBER,
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


def children(name: str, spec: Object) -> list[dict[str, Any]]:
    """Return what stands behind a website."""
    labels = {"app": name}
    meta = {"name": name, "labels": labels}
    pages = {"name": "pages", "mountPath": "/usr/share/nginx/html"}
    container = {"name": "web", "image": spec["image"], "volumeMounts": [pages], "ports": [{"containerPort": 80}]}
    pod = {"containers": [container], "volumes": [{"name": "pages", "configMap": {"name": name}}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    deployment = {"replicas": spec["replicas"], "selector": {"matchLabels": labels}, "template": template}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"index.html": spec["html"]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        },
    ]


def status_of(body: Object, deployment: Object) -> dict[str, Any]:
    """Return the status of a website, where the condition keeps its time while its status is the same."""
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
    ready = seen and counts == [wanted] * 3
    condition = {
        "type": "Ready",
        "status": str(ready),
        "reason": "ChildrenReady" if ready else "ChildrenNotReady",
        "message": "3 objects are ready" if ready else f"Deployment: {counts[2]} of {wanted} replicas are available",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": body["metadata"]["generation"],
    }
    for before in body.get("status", {}).get("conditions", ()):
        if (before["type"], before["status"]) == ("Ready", condition["status"]):
            condition["lastTransitionTime"] = before["lastTransitionTime"]
    return {
        "readyReplicas": status.get("readyReplicas", 0),
        "observedGeneration": body["metadata"]["generation"],
        "conditions": [condition],
    }


async def bring_about(body: Object, client: Client, kind: str = "") -> None:
    """Make what stands behind a website what it says, or its object of one kind; and the status what became of it."""
    name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
    for child in children(name, body["spec"]):
        if kind not in ("", child["kind"]):
            continue
        kopf.append_owner_reference(child, body)
        handle = client.dynamic(child["apiVersion"], child["kind"])
        made = await handle.apply(child, namespace, force=True, field_manager="website-kopf")
        if child["kind"] != "Deployment":
            continue
        status = status_of(body, made)
        if body.get("status", {}) != status:
            websites = client.dynamic(f"{GROUP}/{VERSION}", "Website")
            await ignore_not_found(websites.patch(name, {"status": status}, namespace, subresource="status"))


@kopf.on.login()
def login(**kwargs: Any) -> Any:
    """Log in as the pod's account or by the kubeconfig; without this kopf wants a client library that does."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def begin(settings: kopf.OperatorSettings, memo: Any, **_: Any) -> None:
    """Keep a client as long as the operator runs."""
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    memo.client = Client.from_environment()


@kopf.on.cleanup()
async def end(memo: Any, **_: Any) -> None:
    """Close the client."""
    await memo.client.aclose()


@kopf.index("websites")
async def sites(name: str, namespace: str, body: kopf.Body, **_: Any) -> Mapping[tuple[str, str], Object]:
    """Remember all websites, to find the one behind which an object stands."""
    return {(namespace, name): dict(body)}


@kopf.on.create("websites", backoff=1)
@kopf.on.update("websites", field="spec", backoff=1)
@kopf.on.resume("websites", backoff=1)
async def website_changed(body: kopf.Body, memo: Any, **_: Any) -> None:
    """Act on websites that are new, have another specification, or were there before the operator."""
    await bring_about(body, memo.client)


def owner_of(meta: Object) -> str:
    """Return the website that controls an object, empty if none does."""
    owners = meta.get("ownerReferences", ())
    return next((one["name"] for one in owners if one["kind"] == "Website" and one.get("controller")), "")


@kopf.on.event("v1", "configmaps", when=lambda meta, **_: bool(owner_of(meta)))
@kopf.on.event("apps", "v1", "deployments", when=lambda meta, **_: bool(owner_of(meta)))
@kopf.on.event("v1", "services", when=lambda meta, **_: bool(owner_of(meta)))
async def child_changed(
    resource: kopf.Resource, meta: Object, namespace: str, sites: kopf.Index[Any, Any], memo: Any, **_: Any
) -> None:
    """Repair what others change or delete, and follow how the deployment gets on."""
    for body in [*sites.get((namespace, owner_of(meta)), ())]:  # the index changes while this waits
        if not body["metadata"].get("deletionTimestamp"):
            await bring_about(body, memo.client, str(resource.kind))


async def main() -> None:
    """Run the operator on a control plane over HTTPS, and make a website."""
    async with ControlPlane() as plane:
        os.environ["KUBECONFIG"] = plane.kubeconfig
        async with Client.for_transport(plane.transport, plane.user) as client:
            await install(client, DEFINITION)
        ready, stop = asyncio.Event(), asyncio.Event()
        operator = asyncio.create_task(
            kopf.operator(standalone=True, namespaces=["default"], ready_flag=ready, stop_flag=stop)
        )
        await ready.wait()
        website = {"metadata": {"name": "ahoy"}, "spec": {"html": "<h1>Ahoy</h1>", "replicas": 2}}
        await plane.call("POST", f"/apis/{GROUP}/{VERSION}/namespaces/default/websites", website)
        await plane.wait_for("/apis/apps/v1/namespaces/default/deployments/ahoy")
        done = await plane.wait_for(
            f"/apis/{GROUP}/{VERSION}/namespaces/default/websites/ahoy", lambda found: bool(found.get("status"))
        )
        print(done["status"]["conditions"])
        stop.set()
        await operator


if __name__ == "__main__":
    asyncio.run(main())
