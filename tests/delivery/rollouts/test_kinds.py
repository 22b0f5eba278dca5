"""The kinds take manifests in the shapes that Argo's users write, and keep every field of them."""

from __future__ import annotations

from typing import Any

import yaml

from pilothouse.client import Client
from pilothouse.delivery.resources.installing import definitions, install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import from_dict, to_dict
from pilothouse.testing import ControlPlane

ROLLOUT = """
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: shop}
spec:
  replicas: 5
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: shop
        image: registry.example/shop:1
        ports: [{name: http, containerPort: 8080, protocol: TCP}]
        resources: {requests: {memory: 32Mi, cpu: 5m}}
  strategy:
    canary:
      canaryService: shop-canary
      stableService: shop-stable
      maxSurge: 25%
      maxUnavailable: 0
      analysis:
        startingStep: 2
        templates: [{templateName: errors}, {templateName: all, clusterScope: true}]
        args:
        - {name: service, value: shop-canary}
        - {name: hash, valueFrom: {podTemplateHashValue: Latest}}
        - {name: region, valueFrom: {fieldRef: {fieldPath: "metadata.labels['region']"}}}
      trafficRouting:
        managedRoutes: [{name: insiders}, {name: copies}]
        istio: {virtualService: {name: shop, routes: [primary]}}
        plugins: {argoproj-labs/gatewayAPI: {httpRoute: shop, namespace: default}}
      steps:
      - setWeight: 20
      - pause: {}
      - pause: {duration: 10}
      - pause: {duration: "10"}
      - pause: {duration: 1h}
      - setCanaryScale: {matchTrafficWeight: true}
      - setHeaderRoute: {name: insiders, match: [{headerName: x-who, headerValue: {exact: insider}}]}
      - setMirrorRoute: {name: copies, percentage: 35, match: [{method: {exact: GET}, path: {prefix: /}}]}
      - experiment:
          duration: 5m
          templates: [{name: baseline, specRef: stable, weight: 5}, {name: canary, specRef: canary}]
          analyses: [{name: compare, templateName: compare, requiredForCompletion: true}]
      - analysis: {templates: [{templateName: errors}]}
      - plugin: {name: pilothouse.dev/regions, config: {regions: [cn-east], weight: 20}}
"""


def kept(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Return what of a manifest is not in an object any more."""
    if isinstance(wanted, dict):
        missing = [f"{path}.{name}" for name in wanted if name not in found]
        return missing + [line for name in wanted if name in found for line in kept(wanted[name], found[name], path)]
    if isinstance(wanted, list):
        return [line for one, other in zip(wanted, found, strict=True) for line in kept(one, other, path)]
    return [] if wanted == found else [f"{path}: {wanted!r} became {found!r}"]


async def test_a_manifest_is_stored_as_it_is_and_read_without_loss() -> None:
    manifest = yaml.safe_load(ROLLOUT)
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        assert await install_kinds(client) == []
        made = await client.dynamic("argoproj.io/v1alpha1", "Rollout").create(manifest)
        assert kept(manifest["spec"], made["spec"]) == []
        assert made["spec"].keys() == manifest["spec"].keys()
        read = await client.get(Rollout, "shop")
        assert to_dict(read)["spec"] == made["spec"]
        assert read.spec.strategy.canary is not None
        assert not read.spec.strategy.canary.carried


async def test_a_manifest_that_leaves_out_a_port_s_protocol_is_applied_again_and_again() -> None:
    manifest = yaml.safe_load(ROLLOUT)
    del manifest["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"]
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        handle = client.dynamic("argoproj.io/v1alpha1", "Rollout")
        for replicas in (5, 6):
            manifest["spec"]["replicas"] = replicas
            made = await handle.apply(manifest, force=True)
            (port,) = made["spec"]["template"]["spec"]["containers"][0]["ports"]
            assert port == {"name": "http", "containerPort": 8080, "protocol": "TCP"}


async def test_definitions_of_argo_are_used_as_they_are() -> None:
    theirs = next(one for one in definitions() if one["metadata"]["name"] == "rollouts.argoproj.io")
    theirs["metadata"].pop("labels")
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition").create(theirs)
        assert await install_kinds(client) == ["rollouts.argoproj.io"]
        assert await install_kinds(client) == ["rollouts.argoproj.io"]


def test_every_text_of_the_manifest_is_a_field_of_the_kind() -> None:
    read = from_dict(yaml.safe_load(ROLLOUT), Rollout)
    canary = read.spec.strategy.canary
    assert canary is not None
    assert [step.pause.duration for step in canary.steps if step.pause is not None] == [None, 10, "10", "1h"]
    assert canary.steps[-1].plugin is not None
    assert canary.steps[-1].plugin.config == {"regions": ["cn-east"], "weight": 20}
