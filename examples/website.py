"""An operator for websites: a Deployment, a Service and a ConfigMap stand behind each Website.

It runs here against a control plane in this process. `Client.from_environment()` instead makes it run against any
Kubernetes, from a laptop or within a pod.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilothouse.client import Client
from pilothouse.kinds.structs import ConfigMap, Deployment, Resource, Service, Struct, from_dict
from pilothouse.kinds.structs.meta import Condition, ObjectMeta
from pilothouse.operator import GenericReconciler, Manager, controller, install
from pilothouse.operator.crds import definition
from pilothouse.testing import ControlPlane


class WebsiteSpec(Struct):
    """What a website shall be."""

    html: str
    replicas: int = 1
    image: str = "nginx:1.29"


class WebsiteStatus(Struct):
    """What a website is."""

    ready_replicas: int = 0
    observed_generation: int = 0
    conditions: Sequence[Condition] = ()


class Website(Resource, group="example.com", version="v1", plural="websites"):
    """A page that is served."""

    spec: WebsiteSpec
    status: WebsiteStatus = WebsiteStatus()


Child = ConfigMap | Deployment | Service


class WebsiteReconciler(GenericReconciler[Website, Child]):
    """Says what stands behind a website; the rest is the same for all such operators."""

    owned = (ConfigMap, Deployment, Service)

    def children(self, parent: Website) -> Iterable[Child]:
        name, labels = parent.metadata.name, {"app": parent.metadata.name}
        meta = ObjectMeta(name=name, labels=labels)
        yield ConfigMap(metadata=meta, data={"index.html": parent.spec.html})
        pages = {"name": "pages", "mountPath": "/usr/share/nginx/html"}
        container = {
            "name": "web",
            "image": parent.spec.image,
            "volumeMounts": [pages],
            "ports": [{"containerPort": 80}],
        }
        pod = {"containers": [container], "volumes": [{"name": "pages", "configMap": {"name": name}}]}
        template = {"metadata": {"labels": labels}, "spec": pod}
        spec = {"replicas": parent.spec.replicas, "selector": {"matchLabels": labels}, "template": template}
        yield from_dict({"metadata": {"name": name, "labels": labels}, "spec": spec}, Deployment)
        ports = {"selector": labels, "ports": [{"port": 80}]}
        yield from_dict({"metadata": {"name": name, "labels": labels}, "spec": ports}, Service)

    def status(self, parent: Website, children: Sequence[Child]) -> Mapping[str, Any]:
        ready = sum(child.status.ready_replicas for child in children if isinstance(child, Deployment))
        return {"readyReplicas": ready}


def build(manager: Manager) -> None:
    """Describe the operator."""
    manager.scheme.register(Website)
    controller(manager, "website").for_(Website).with_options(concurrency=4).build(WebsiteReconciler())


async def main() -> None:
    """Run the operator, make a website, and wait until it is ready."""
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install(client, definition(Website))
        manager = Manager(client)
        build(manager)
        async with manager:
            page = WebsiteSpec(html="<h1>Ahoy</h1>", replicas=2)
            await client.create(Website(metadata=ObjectMeta(name="ahoy"), spec=page))
            await plane.wait_for("/apis/apps/v1/namespaces/default/deployments/ahoy")
            # No controller runs pods here, so this says what it would say.
            there = {
                "observedGeneration": 1,
                "replicas": 2,
                "updatedReplicas": 2,
                "readyReplicas": 2,
                "availableReplicas": 2,
            }
            await client.patch(Deployment, "ahoy", {"status": there}, subresource="status")
            async for event in client.watch(Website):
                for condition in event.object.status.conditions:
                    print(f"{event.object.metadata.name}: {condition.type} {condition.status}: {condition.message}")
                if any(condition.status == "True" for condition in event.object.status.conditions):
                    break


if __name__ == "__main__":
    asyncio.run(main())
