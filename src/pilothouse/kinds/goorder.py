"""The order in which Go writes the fields of Kubernetes' types as JSON, for texts that show whole objects."""

from __future__ import annotations

from functools import cache
from typing import Any

from pilothouse.kinds.protobuf._facts import fields_of, message_of

__all__ = ["as_written"]

_TYPE_META = ("kind", "apiVersion")
_MOVED = {
    "a.admissionregistration.v1.ValidatingWebhook": "failurePolicy>matchPolicy namespaceSelector>objectSelector",
    "a.admissionregistration.v1.MutatingWebhook": "failurePolicy>matchPolicy namespaceSelector>objectSelector",
    "a.admissionregistration.v1.WebhookClientConfig": ">url",
    "a.apps.v1.DeploymentStatus": "updatedReplicas>readyReplicas unavailableReplicas>terminatingReplicas",
    "a.apps.v1.DeploymentCondition": "lastTransitionTime>reason reason>message",
    "a.apps.v1.ReplicaSetSpec": "replicas>minReadySeconds",
    "a.apps.v1.ReplicaSetStatus": "terminatingReplicas>observedGeneration observedGeneration>conditions",
    "a.autoscaling.v2.MetricSpec": "containerResource>external",
    "a.autoscaling.v2.HPAScalingRules": ">stabilizationWindowSeconds",
    "a.autoscaling.v2.MetricStatus": "containerResource>external",
    "a.batch.v1.JobSpec": (
        "activeDeadlineSeconds>podFailurePolicy podFailurePolicy>successPolicy "
        "successPolicy>backoffLimit backoffLimit>backoffLimitPerIndex "
        "backoffLimitPerIndex>maxFailedIndexes maxFailedIndexes>failedPodsLimit"
    ),
    "a.batch.v1.JobStatus": "failed>terminating completedIndexes>failedIndexes",
    "a.batch.v1.CronJobSpec": "schedule>timeZone",
    "a.certificates.v1.CertificateSigningRequestSpec": (
        "request>signerName signerName>expirationSeconds expirationSeconds>usages"
    ),
    "a.certificates.v1.CertificateSigningRequestCondition": "type>status",
    "a.core.v1.VolumeSource": "photonPersistentDisk>projected",
    "a.core.v1.PersistentVolumeClaimSpec": "accessModes>selector",
    "a.core.v1.ISCSIVolumeSource": "chapAuthSession>secretRef",
    "a.core.v1.ISCSIPersistentVolumeSource": "chapAuthSession>secretRef",
    "a.core.v1.ClusterTrustBundleProjection": "optional>path",
    "a.core.v1.VolumeMount": "readOnly>recursiveReadOnly",
    "a.core.v1.Container": (
        "ports>envFrom resources>resizePolicy resizePolicy>restartPolicy "
        "restartPolicy>restartPolicyRules volumeMounts>volumeDevices readinessProbe>startupProbe "
        "terminationMessagePath>terminationMessagePolicy"
    ),
    "a.core.v1.PodCondition": "type>observedGeneration",
    "a.core.v1.PodSpec": (
        "volumes>initContainers containers>ephemeralContainers "
        "serviceAccount>automountServiceAccountToken hostIPC>shareProcessNamespace"
    ),
    "a.core.v1.PodSecurityContext": (
        "seLinuxOptions>windowsOptions runAsUser>runAsGroup supplementalGroups>supplementalGroupsPolicy"
    ),
    "a.core.v1.EphemeralContainerCommon": (
        "ports>envFrom resources>resizePolicy resizePolicy>restartPolicy "
        "restartPolicy>restartPolicyRules volumeMounts>volumeDevices readinessProbe>startupProbe "
        "terminationMessagePath>terminationMessagePolicy"
    ),
    "a.core.v1.PodStatus": (
        ">observedGeneration reason>nominatedNodeName hostIP>hostIPs podIP>podIPs startTime>initContainerStatuses"
    ),
    "a.core.v1.ReplicationControllerSpec": "replicas>minReadySeconds",
    "a.core.v1.ReplicationControllerStatus": "availableReplicas>observedGeneration",
    "a.core.v1.ServiceSpec": "clusterIP>clusterIPs topologyKeys>ipFamily ipFamilies>ipFamilyPolicy",
    "a.core.v1.ServicePort": "protocol>appProtocol",
    "a.core.v1.EndpointAddress": "nodeName>targetRef",
    "a.core.v1.NodeSpec": "podCIDR>podCIDRs configSource>externalID",
    "a.core.v1.Secret": "metadata>immutable stringData>type",
    "a.core.v1.ConfigMap": "metadata>immutable",
    "a.core.v1.SecurityContext": "seLinuxOptions>windowsOptions runAsUser>runAsGroup",
    "a.discovery.v1.EndpointSlice": "metadata>addressType",
    "a.networking.v1.IngressSpec": ">ingressClassName",
    "a.networking.v1.HTTPIngressPath": "pathType>backend",
    "a.networking.v1.IngressBackend": "service>resource",
    "a.resource.v1.AllocatedDeviceStatus": "device>shareID",
    "m.apis.meta.v1.OwnerReference": ">apiVersion",
    "e.apiextensions.v1.WebhookClientConfig": ">url",
    "e.apiextensions.v1.CustomResourceDefinitionVersion": "storage>deprecated deprecated>deprecationWarning",
}
"""Fields that do not stand by their numbers, each behind the one that is named before it; first where none is."""


def as_written(obj: dict[str, Any], group: str, version: str, kind: str) -> dict[str, Any]:
    """Return an object with its fields in the order of their structs; what is no field of them comes last.

    Costly, and reads tables that only messages need otherwise: not for each request.
    """
    message = message_of(group, version, kind)
    if message is None:
        return obj
    made: dict[str, Any] = _written(message, obj)
    return made


def _written(message: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_written(message, item) for item in value]
    if not isinstance(value, dict):
        return value
    known = _order(message)
    names = {name for name, _, _ in known}
    # No message has them, and objects within others (claim templates) may have them too.
    made = {name: value[name] for name in _TYPE_META if name in value and name not in names}
    for name, label, inner in known:
        if name not in value:
            continue
        found = value[name]
        if inner and label == "{}" and isinstance(found, dict):
            made[name] = {key: _written(inner, found[key]) for key in sorted(found)}
        else:
            made[name] = _written(inner, found) if inner else _sorted(found, label)
    return {**made, **{name: found for name, found in value.items() if name not in made}}


def _sorted(value: Any, label: str) -> Any:
    # Maps are written by key.
    return {name: value[name] for name in sorted(value)} if label == "{}" and isinstance(value, dict) else value


@cache
def _order(message: str) -> list[tuple[str, str, str]]:
    """Return name, label and message (where it is one) of the fields of a struct; those embedded in their place."""
    found: list[tuple[str, str, str]] = []
    try:
        fields = fields_of(message)
    except KeyError:
        return found
    for field in fields:
        inner = field.word.removeprefix("@") if field.word.startswith("@") else ""
        if field.inline:
            found += _order(inner)
        else:
            found.append((field.name, field.label, inner))
    for move in _MOVED.get(message, "").split():
        before, _, name = move.partition(">")
        names = [one for one, _, _ in found]
        if name in names and (not before or before in names):
            moved = found.pop(names.index(name))
            names.remove(name)
            found.insert(names.index(before) + 1 if before else 0, moved)
    return found
