"""Warnings about kinds that make no pods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pilothouse.kinds.fielderrors import Path, quote
from pilothouse.kinds.quantity import parse
from pilothouse.kinds.warnings import parts
from pilothouse.kinds.warnings.volumes import OLD_PLUGINS

__all__ = [
    "claim",
    "csi_driver",
    "endpoint_slice",
    "endpoints",
    "ingress",
    "network_policy",
    "node",
    "resource_quota",
    "resource_slice",
    "runtime_class",
    "service",
    "service_account",
    "static_name",
    "storage_capacity",
    "storage_class",
    "volume",
]

Object = dict[str, Any]
_ANNOTATIONS = Path("metadata.annotations")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_BETA_OPTIONS = "volume.beta.kubernetes.io/mount-options"
_INSTEAD = 'deprecated since v1.8; use "storageClassName" attribute instead'
_OLD_VOLUMES = ("cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd")
_RECYCLE = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_INGRESS_CLASS = "kubernetes.io/ingress.class"
_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"
_STATIC = ".static.k8s.io"
_TOKENS = (
    "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible "
    "logging of tokens in volume attributes"
)
_MANAGED_SLICE, _MANAGED = "endpointslice.kubernetes.io/managed-by", "endpoints.kubernetes.io/managed-by"
_CONTROLLERS = frozenset({"endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"})


def _spec(obj: Object) -> Object:
    spec: Object = obj.get("spec") or {}
    return spec


def _meta(obj: Object, field: str) -> Object:
    found: Object = (obj.get("metadata") or {}).get(field) or {}
    return found


def service(new: Object, old: Object | None) -> list[str]:
    """Warn of a Service."""
    spec, warnings = _spec(new), []
    kind, external = spec.get("type"), spec.get("externalIPs") or ()
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    if _HINTS in _meta(new, "annotations"):
        warnings.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    if spec.get("clusterIP") and spec["clusterIP"] != "None":
        warnings += _each_address(Path("spec.clusterIPs"), spec.get("clusterIPs") or ())
    if headless:
        ignored = {
            "loadBalancerIP": spec.get("loadBalancerIP"),
            "externalIPs": external,
            "SessionAffinity": spec.get("sessionAffinity") != "None",
        }
        warnings += [f"spec.{field} is ignored for headless services" for field, given in ignored.items() if given]
    warnings += _each_address(Path("spec.externalIPs"), external)
    if external and not headless and kind != "ExternalName":
        warnings.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("loadBalancerIP"):
        warnings += parts.address(Path("spec.loadBalancerIP"), spec["loadBalancerIP"])
    for position, value in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        warnings += parts.network(Path("spec.loadBalancerSourceRanges").index(position), value)
    if kind == "ExternalName" and external:
        warnings.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        warnings.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        warnings.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return warnings


def _each_address(at: Path, values: Iterable[str]) -> list[str]:
    return [text for position, value in enumerate(values) for text in parts.address(at.index(position), value)]


def endpoints(new: Object, old: Object | None) -> list[str]:
    """Warn of the addresses of Endpoints, unless their controller wrote them."""
    if _meta(new, "labels").get(_MANAGED) == "endpoint-controller":
        return []
    return [
        text
        for position, subset in enumerate(new.get("subsets") or ())
        for field in ("addresses", "notReadyAddresses")
        for place, each in enumerate(subset.get(field) or ())
        for text in parts.address(
            Path("subsets").index(position).child(field).index(place).child("ip"), each.get("ip") or ""
        )
    ]


def endpoint_slice(new: Object, old: Object | None) -> list[str]:
    """Warn of the addresses of an EndpointSlice, unless a controller wrote them."""
    old_type = old is None and new.get("addressType") == "FQDN"
    warnings = ["spec.addressType: FQDN endpoints are deprecated"] if old_type else []
    if new.get("addressType") == "FQDN" or _meta(new, "labels").get(_MANAGED_SLICE) in _CONTROLLERS:
        return warnings
    for position, endpoint in enumerate(new.get("endpoints") or ()):
        at = Path("endpoints").index(position).child("addresses")
        warnings += _each_address(at, endpoint.get("addresses") or ())
    return warnings


def node(new: Object, old: Object | None) -> list[str]:
    """Warn of a Node."""
    spec, warnings = _spec(new), []
    if spec.get("configSource") is not None:
        warnings.append("spec.configSource: the feature is removed")
    if spec.get("externalID"):
        warnings.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    for position, value in enumerate(spec.get("podCIDRs") or ()):
        warnings += parts.network(Path("spec.podCIDRs").index(position), value)
    return warnings


def volume(new: Object, old: Object | None) -> list[str]:
    """Warn of a PersistentVolume."""
    spec, annotations, warnings = _spec(new), _meta(new, "annotations"), []
    if _BETA_CLASS in annotations:
        warnings.append(f"{_ANNOTATIONS.key(_BETA_CLASS)}: {_INSTEAD}")
    if _BETA_OPTIONS in annotations:
        text = 'deprecated since v1.31; use "mountOptions" attribute instead'
        warnings.append(f"{_ANNOTATIONS.key(_BETA_OPTIONS)}: {text}")
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        warnings.append(f"spec.persistentVolumeReclaimPolicy: {_RECYCLE}")
    required: Object = (spec.get("nodeAffinity") or {}).get("required") or {}
    for position, term in enumerate(required.get("nodeSelectorTerms") or ()):
        warnings += parts.node_term(Path("spec.nodeAffinity.required.nodeSelectorTerms").index(position), term)
    shown = {"storageos": "storageOS"}
    warnings += [
        f"spec.{shown.get(field, field)}: {OLD_PLUGINS[field]}" for field in _OLD_VOLUMES if spec.get(field) is not None
    ]
    return warnings


def claim(new: Object, old: Object | None) -> list[str]:
    """Warn of a PersistentVolumeClaim."""
    old_class = _BETA_CLASS in _meta(new, "annotations")
    warnings = [f"{_ANNOTATIONS.key(_BETA_CLASS)}: {_INSTEAD}"] if old_class else []
    return warnings + parts.storage_request(Path("spec"), _spec(new))


def resource_quota(new: Object, old: Object | None) -> list[str]:
    """Warn of a new ResourceQuota by which more may be requested than is the limit."""
    hard: Object = _spec(new).get("hard") or {}
    warnings: list[str] = []
    for resource in ("cpu", "memory", "storage", "ephemeral-storage") if old is None else ():
        request = f"requests.{resource}"
        if request not in hard and resource in {"cpu", "memory"}:
            request = resource
        limit = f"limits.{resource}"
        if request in hard and limit in hard and parse(str(hard[limit])) < parse(str(hard[request])):
            text = f"should be less than {limit} ({parse(str(hard[limit]))})"
            warnings.append(f"ResourceQuota {request} ({parse(str(hard[request]))}) {text}")
    return warnings


def service_account(new: Object, old: Object | None) -> list[str]:
    """Warn of a ServiceAccount that restricts its secrets by an annotation, which is new."""
    if _MOUNTABLE not in _meta(new, "annotations") or (old is not None and _MOUNTABLE in _meta(old, "annotations")):
        return []
    text = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    return [f"{_ANNOTATIONS.key(_MOUNTABLE)}: {text}"]


def static_name(new: Object, old: Object | None) -> list[str]:
    """Warn of a name as those have that come from files."""
    if not (new["metadata"].get("name") or "").endswith(_STATIC):
        return []
    text = "are reserved for static manifest-based configurations and cannot be managed via the API"
    return [f"metadata.name: names ending with {quote(_STATIC)} {text}"]


def ingress(new: Object, old: Object | None) -> list[str]:
    """Warn of a new Ingress with its class in an annotation."""
    if old is not None or _INGRESS_CLASS not in _meta(new, "annotations") or _spec(new).get("ingressClassName"):
        return []
    return [f"annotation {quote(_INGRESS_CLASS)} is deprecated, please use 'spec.ingressClassName' instead"]


def network_policy(new: Object, old: Object | None) -> list[str]:
    """Warn of the networks of a NetworkPolicy."""
    spec, warnings = _spec(new), []
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for position, rule in enumerate(spec.get(field) or ()):
            for place, peer in enumerate(rule.get(peers) or ()):
                if not (block := peer.get("ipBlock")):
                    continue
                at = Path("spec").child(field).index(position).child(peers).index(place).child("ipBlock")
                warnings += parts.network(at.child("cidr"), block.get("cidr") or "")
                for number, value in enumerate(block.get("except") or ()):
                    warnings += parts.network(at.child("except").index(number), value)
    return warnings


def runtime_class(new: Object, old: Object | None) -> list[str]:
    """Warn of a RuntimeClass that selects nodes by old labels."""
    selector: Object = (new.get("scheduling") or {}).get("nodeSelector") or {}
    return [f"scheduling.nodeSelector: {text}" for key in selector if (text := parts.node_label(key))]


def resource_slice(new: Object, old: Object | None) -> list[str]:
    """Warn of a ResourceSlice whose driver has upper case letters."""
    driver = _spec(new).get("driver") or ""
    if driver == driver.lower():
        return []
    return [f"spec.driver: driver names should be lowercase; {quote(driver)} contains uppercase characters"]


def csi_driver(new: Object, old: Object | None) -> list[str]:
    """Warn of a CSIDriver that gets tokens, and not among its secrets."""
    spec = _spec(new)
    wanted = spec.get("tokenRequests") or []
    changed = old is None or wanted != (_spec(old).get("tokenRequests") or [])
    return [_TOKENS] if wanted and changed and spec.get("serviceAccountTokenInSecrets") is None else []


def storage_class(new: Object, old: Object | None) -> list[str]:
    """Warn of a StorageClass for nodes with old labels."""
    return [
        f"{Path('allowedTopologies').index(position).child('matchLabelExpressions').index(place).child('key')}: {text}"
        for position, term in enumerate(new.get("allowedTopologies") or ())
        for place, expression in enumerate(term.get("matchLabelExpressions") or ())
        if (text := parts.node_label(expression.get("key") or ""))
    ]


def storage_capacity(new: Object, old: Object | None) -> list[str]:
    """Warn of a CSIStorageCapacity for nodes with old labels."""
    topology: Object = new.get("nodeTopology") or {}
    at = Path("nodeTopology")
    warnings = parts.node_label_keys(at.child("matchExpressions"), topology.get("matchExpressions") or ())
    labels = topology.get("matchLabels") or ()
    return warnings + [f"{at.child('matchLabels', key)}: {text}" for key in labels if (text := parts.node_label(key))]
