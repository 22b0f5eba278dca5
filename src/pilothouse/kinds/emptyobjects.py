"""What a new object of a kind holds before anything is set in it: the parts no client ever owns by creating them.

Kubernetes compares a created object with an empty one of its kind, in which parts that are structures are there and
required scalars and lists are zero or null. A field equal to its zero is owned by nobody, and a part that was there
is owned only through what is in it. Facts of the Kubernetes 1.36 API types; custom resources have no such parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["empty_object"]

_Parts = Mapping[str, Any]

_SPEC: _Parts = {"spec": {}}
_BOTH: _Parts = {"spec": {}, "status": {}}
_POD_TEMPLATE: _Parts = {"metadata": {}, "spec": {"containers": None}}

_PARTS: dict[str, _Parts] = {
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy": _SPEC,
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicyBinding": _SPEC,
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy": _BOTH,
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding": _SPEC,
    "apiextensions.k8s.io/v1/CustomResourceDefinition": {
        "spec": {"group": "", "names": {"plural": "", "kind": ""}, "scope": "", "versions": None},
        "status": {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": None},
    },
    "apiregistration.k8s.io/v1/APIService": {"spec": {"groupPriorityMinimum": 0, "versionPriority": 0}, "status": {}},
    "apps/v1/ControllerRevision": {"data": None, "revision": 0},
    "apps/v1/DaemonSet": {
        "spec": {"selector": None, "template": _POD_TEMPLATE, "updateStrategy": {}},
        "status": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0},
    },
    "apps/v1/Deployment": {"spec": {"selector": None, "template": _POD_TEMPLATE, "strategy": {}}, "status": {}},
    "apps/v1/ReplicaSet": {"spec": {"selector": None, "template": _POD_TEMPLATE}, "status": {"replicas": 0}},
    "apps/v1/StatefulSet": {
        "spec": {"selector": None, "template": _POD_TEMPLATE, "serviceName": "", "updateStrategy": {}},
        "status": {"replicas": 0, "availableReplicas": 0},
    },
    "authentication.k8s.io/v1/SelfSubjectReview": {"status": {"userInfo": {}}},
    "authentication.k8s.io/v1/TokenReview": {"spec": {}, "status": {"user": {}}},
    "authorization.k8s.io/v1/LocalSubjectAccessReview": {"spec": {}, "status": {"allowed": False}},
    "authorization.k8s.io/v1/SelfSubjectAccessReview": {"spec": {}, "status": {"allowed": False}},
    "authorization.k8s.io/v1/SelfSubjectRulesReview": {
        "spec": {},
        "status": {"resourceRules": None, "nonResourceRules": None, "incomplete": False},
    },
    "authorization.k8s.io/v1/SubjectAccessReview": {"spec": {}, "status": {"allowed": False}},
    "autoscaling/v1/HorizontalPodAutoscaler": {
        "spec": {"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0},
        "status": {"currentReplicas": 0, "desiredReplicas": 0},
    },
    "autoscaling/v2/HorizontalPodAutoscaler": {
        "spec": {"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0},
        "status": {"desiredReplicas": 0, "currentMetrics": None},
    },
    "batch/v1/CronJob": {
        "spec": {"schedule": "", "jobTemplate": {"metadata": {}, "spec": {"template": _POD_TEMPLATE}}},
        "status": {},
    },
    "batch/v1/Job": {"spec": {"template": _POD_TEMPLATE}, "status": {}},
    "certificates.k8s.io/v1/CertificateSigningRequest": {"spec": {"request": None, "signerName": ""}, "status": {}},
    "coordination.k8s.io/v1/Lease": _SPEC,
    "discovery.k8s.io/v1/EndpointSlice": {"addressType": "", "endpoints": None, "ports": None},
    "events.k8s.io/v1/Event": {
        "eventTime": None,
        "regarding": {},
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": None,
    },
    "flowcontrol.apiserver.k8s.io/v1/FlowSchema": {
        "spec": {"priorityLevelConfiguration": {"name": ""}, "matchingPrecedence": 0},
        "status": {},
    },
    "flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration": {"spec": {"type": ""}, "status": {}},
    "networking.k8s.io/v1/IPAddress": _SPEC,
    "networking.k8s.io/v1/Ingress": {"spec": {}, "status": {"loadBalancer": {}}},
    "networking.k8s.io/v1/IngressClass": _SPEC,
    "networking.k8s.io/v1/NetworkPolicy": {"spec": {"podSelector": {}}},
    "networking.k8s.io/v1/ServiceCIDR": _BOTH,
    "node.k8s.io/v1/RuntimeClass": {"handler": ""},
    "policy/v1/PodDisruptionBudget": {
        "spec": {},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    },
    "rbac.authorization.k8s.io/v1/ClusterRole": {"rules": None},
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": {"roleRef": {"apiGroup": "", "kind": "", "name": ""}},
    "rbac.authorization.k8s.io/v1/Role": {"rules": None},
    "rbac.authorization.k8s.io/v1/RoleBinding": {"roleRef": {"apiGroup": "", "kind": "", "name": ""}},
    "resource.k8s.io/v1/DeviceClass": _SPEC,
    "resource.k8s.io/v1/ResourceClaim": {"spec": {"devices": {"requests": None}}, "status": {}},
    "resource.k8s.io/v1/ResourceClaimTemplate": {"spec": {"metadata": {}, "spec": {"devices": {"requests": None}}}},
    "resource.k8s.io/v1/ResourceSlice": {
        "spec": {"driver": "", "pool": {"name": "", "generation": 0, "resourceSliceCount": 0}}
    },
    "scheduling.k8s.io/v1/PriorityClass": {"value": 0},
    "storage.k8s.io/v1/CSIDriver": _SPEC,
    "storage.k8s.io/v1/CSINode": {"spec": {"drivers": None}},
    "storage.k8s.io/v1/CSIStorageCapacity": {"storageClassName": ""},
    "storage.k8s.io/v1/StorageClass": {"provisioner": ""},
    "storage.k8s.io/v1/VolumeAttachment": {
        "spec": {"attacher": "", "source": {}, "nodeName": ""},
        "status": {"attached": False},
    },
    "storage.k8s.io/v1/VolumeAttributesClass": {"driverName": ""},
    "v1/Binding": {"target": {}},
    "v1/Event": {
        "involvedObject": {},
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
    "v1/LimitRange": {"spec": {"limits": None}},
    "v1/Namespace": _BOTH,
    "v1/Node": {
        "spec": {},
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": "",
                "osImage": "",
                "containerRuntimeVersion": "",
                "kubeletVersion": "",
                "kubeProxyVersion": "",
                "operatingSystem": "",
                "architecture": "",
            },
        },
    },
    "v1/PersistentVolume": _BOTH,
    "v1/PersistentVolumeClaim": {"spec": {"resources": {}}, "status": {}},
    "v1/Pod": {"spec": {"containers": None}, "status": {}},
    "v1/PodTemplate": {"template": _POD_TEMPLATE},
    "v1/ReplicationController": {"spec": {}, "status": {"replicas": 0}},
    "v1/ResourceQuota": _BOTH,
    "v1/Service": {"spec": {}, "status": {"loadBalancer": {}}},
}


def empty_object(api_version: str, kind: str) -> dict[str, Any]:
    """Return the empty object of a built-in kind, `metadata` alone for those of which nothing else is known."""
    return {"metadata": {}, **_PARTS.get(f"{api_version}/{kind}", {})}
