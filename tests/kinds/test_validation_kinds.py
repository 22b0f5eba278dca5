"""What each kind is refused for: a good object has no errors, and each fault has its own."""

# ruff: noqa: E501  # a table with one fault a line reads best
from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse.kinds.defaults import default
from pilothouse.kinds.validation import validate_create, validate_update

Object = dict[str, Any]
SELECTOR = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
REQUESTED = {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}
CSI = {"driver": "csi.example.com", "volumeHandle": "v"}

GOOD: dict[str, Object] = {
    "v1/Node": {
        "spec": {
            "podCIDRs": ["10.0.0.0/24", "fd00::/64"],
            "taints": [{"key": "a", "effect": "NoSchedule"}],
            "providerID": "x",
        },
        "status": {"capacity": {"cpu": "4", "pods": "110"}},
    },
    "v1/PersistentVolume": {
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": "/d"},
            "nodeAffinity": {"required": SELECTOR},
        }
    },
    "v1/Endpoints": {
        "subsets": [{"addresses": [{"ip": "10.0.0.1", "nodeName": "n"}], "ports": [{"port": 80, "protocol": "TCP"}]}]
    },
    "v1/ServiceAccount": {},
    "v1/Event": {
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started",
        "type": "Normal",
    },
    "events.k8s.io/v1/Event": {
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started",
        "action": "Start",
        "type": "Normal",
        "note": "n",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/kubelet",
        "reportingInstance": "n1",
    },
    "flowcontrol.apiserver.k8s.io/v1/FlowSchema": {
        "spec": {
            "matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": "system"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [
                {
                    "subjects": [
                        {"kind": "ServiceAccount", "serviceAccount": {"namespace": "default", "name": "*"}},
                        {"kind": "User", "user": {"name": "ann"}},
                    ],
                    "resourceRules": [
                        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a", "b"]}
                    ],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/a/*", "/"]}],
                }
            ],
        }
    },
    "flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration": {
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 10,
                "limitResponse": {
                    "type": "Queue",
                    "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50},
                },
            },
        }
    },
    "node.k8s.io/v1/RuntimeClass": {
        "handler": "runc",
        "overhead": {"podFixed": {"memory": "1Mi"}},
        "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a", "operator": "Exists"}]},
    },
    "storage.k8s.io/v1/CSIDriver": {"spec": {"tokenRequests": [{"audience": "a"}, {"audience": "b"}]}},
    "storage.k8s.io/v1/CSINode": {
        "spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n", "topologyKeys": ["example.com/zone"]}]}
    },
    "storage.k8s.io/v1/CSIStorageCapacity": {"storageClassName": "fast", "capacity": "1Gi"},
    "storage.k8s.io/v1/VolumeAttachment": {
        "spec": {"attacher": "csi.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
    },
    "storage.k8s.io/v1/VolumeAttributesClass": {"driverName": "csi.example.com", "parameters": {"iops": "1"}},
    "networking.k8s.io/v1/IngressClass": {
        "spec": {"controller": "example.com/ingress", "parameters": {"kind": "K", "name": "n", "scope": "Cluster"}}
    },
    "networking.k8s.io/v1/ServiceCIDR": {"spec": {"cidrs": ["10.0.0.0/24", "fd00::/112"]}},
    "networking.k8s.io/v1/IPAddress": {
        "metadata": {"name": "10.0.0.1"},
        "spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}},
    },
    "apiregistration.k8s.io/v1/APIService": {
        "metadata": {"name": "v1.example.com"},
        "spec": {
            "group": "example.com",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 10,
            "service": {"name": "s", "namespace": "n", "port": 443},
        },
    },
    "apps/v1/ControllerRevision": {"data": {"a": 1}, "revision": 1},
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding": {
        "spec": {
            "policyName": "p",
            "validationActions": ["Deny", "Audit"],
            "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"},
            "matchResources": {"resourceRules": [RULE]},
        }
    },
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy": {
        "spec": {
            "matchConstraints": {"resourceRules": [RULE]},
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
            "paramKind": {"apiVersion": "example.com/v1", "kind": "Rules"},
        }
    },
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicyBinding": {"spec": {"policyName": "p"}},
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy": {
        "spec": {
            "matchConstraints": {"resourceRules": [RULE]},
            "validations": [{"expression": "true", "message": "m"}],
            "variables": [{"name": "a", "expression": "1"}],
            "matchConditions": [{"name": "a", "expression": "true"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "'v'"}],
        }
    },
    "resource.k8s.io/v1/ResourceClaim": {
        "spec": {
            "devices": {
                **REQUESTED,
                "constraints": [{"requests": ["gpu"], "matchAttribute": "example.com/numa"}],
                "config": [{"requests": ["gpu"], "opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}],
            }
        }
    },
    "resource.k8s.io/v1/ResourceClaimTemplate": {
        "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": REQUESTED}}
    },
    "resource.k8s.io/v1/DeviceClass": {"spec": {"selectors": [{"cel": {"expression": "true"}}]}},
    "resource.k8s.io/v1/ResourceSlice": {
        "spec": {
            "driver": "gpu.example.com",
            "nodeName": "n",
            "pool": {"name": "n", "resourceSliceCount": 1, "generation": 0},
            "devices": [
                {
                    "name": "gpu-0",
                    "attributes": {"model": {"string": "x"}, "driverVersion": {"version": "1.2.3-rc.1"}},
                    "capacity": {"memory": {"value": "8Gi"}},
                    "taints": [{"key": "a", "effect": "NoSchedule"}],
                }
            ],
        }
    },
    "v1/Binding": {"target": {"kind": "Node", "name": "n"}},
    "policy/v1/Eviction": {},
    "autoscaling/v1/Scale": {"spec": {"replicas": 2}},
    "authentication.k8s.io/v1/TokenRequest": {"spec": {"audiences": ["a"], "expirationSeconds": 3600}},
    "v1/Pod": {
        "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": SELECTOR},
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}}
                    ]
                },
            },
        }
    },
}


def split(kind: str) -> tuple[str, str, str]:
    version, _, name = kind.rpartition("/")
    group, _, number = version.rpartition("/")
    return group, number, name


def made(kind: str) -> Object:
    """Give a good object of a kind, with its defaults."""
    group, version, name = split(kind)
    obj = copy.deepcopy(GOOD[kind])
    obj = {"apiVersion": f"{group}/{version}" if group else version, "kind": name, "metadata": {"name": "a.b"}} | obj
    return default(obj, group, version, name)


def put(obj: Object, path: str, value: Any) -> Object:
    """Set (or with `...` remove) a field, given by a path such as `spec.rules.0.verbs`."""
    place: Any = obj
    *way, last = path.split(".")
    for step in way:
        place = place[int(step)] if step.isdecimal() else place.setdefault(step, {})
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdecimal() else last] = value
    return obj


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_have_no_errors(kind: str) -> None:
    assert validate_create(made(kind), split(kind)) == []


@pytest.mark.parametrize("kind", [kind for kind in GOOD if split(kind)[2] not in {"Binding", "Eviction", "Scale"}])
def test_an_update_that_changes_nothing_has_no_errors(kind: str) -> None:
    old = put(made(kind), "metadata.resourceVersion", "1")
    assert validate_update(old, copy.deepcopy(old), split(kind)) == []


FAULTS: list[tuple[str, str, Any, str]] = [
    ("v1/Node", "spec.taints.0.effect", "No", 'metadata.taints[0].effect: Unsupported value: "No": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"'),
    ("v1/Node", "spec.taints", [{"key": "a", "effect": "NoExecute"}] * 2, 'metadata.taints[1]: Duplicate value: {"Key":"a","Value":"","Effect":"NoExecute","TimeAdded":null}: taints must be unique by key and effect pair'),
    ("v1/Node", "spec.podCIDRs", ["10.0.0.0/24", "10.0.1.0/24"], 'spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family'),
    ("v1/Node", "spec.podCIDRs", ["10.0.0.0"], 'spec.podCIDRs[0]: Invalid value: "10.0.0.0": must be a valid CIDR value'),
    ("v1/Node", "status.capacity.pods", "1500m", 'status.capacity.pods: Invalid value: "1500m": must be an integer'),
    ("v1/Node", "status.allocatable", {"cpu": "-1"}, 'status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0'),
    ("v1/PersistentVolume", "spec.accessModes", [], "spec.accessModes: Required value"),
    ("v1/PersistentVolume", "spec.accessModes", ["No"], 'spec.accessModes: Unsupported value: "No": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'),
    ("v1/PersistentVolume", "spec.capacity.storage", "0", 'spec.capacity[storage]: Invalid value: "0": must be greater than zero'),
    ("v1/PersistentVolume", "spec.local", ..., "spec: Required value: must specify a volume type"),
    ("v1/PersistentVolume", "spec.nodeAffinity", ..., "spec.nodeAffinity: Required value: Local volume requires node affinity"),
    ("v1/PersistentVolume", "spec.nodeAffinity.required", ..., "spec.nodeAffinity.required: Required value: must specify required node constraints"),
    ("v1/PersistentVolume", "spec.csi", CSI, "spec.csi: Forbidden: may not specify more than 1 volume type"),
    ("v1/PersistentVolume", "spec.persistentVolumeReclaimPolicy", "Keep", 'spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", "Recycle", "Retain"'),
    ("v1/PersistentVolume", "spec.nodeAffinity.required.nodeSelectorTerms.0.matchExpressions.0.operator", "Is", 'spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator'),
    ("v1/Endpoints", "subsets.0.addresses.0.ip", "127.0.0.1", 'subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'),
    ("v1/Endpoints", "subsets.0.addresses.0.ip", "169.254.1.1", 'subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)'),
    ("v1/Endpoints", "subsets.0.addresses.0.ip", "ff02::1", 'subsets[0].addresses[0].ip: Invalid value: "ff02::1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)'),
    ("v1/Endpoints", "subsets.0.addresses.0.ip", "x", 'subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address'),
    ("v1/Endpoints", "subsets.0.addresses", [], "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
    ("v1/Endpoints", "subsets.0.ports.0.port", 0, "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ("v1/Event", "metadata.namespace", "other", 'involvedObject.namespace: Invalid value: "default": does not match event.namespace'),
    ("v1/Event", "eventTime", "2026-01-01T00:00:00.000000Z", "reportingController: Required value"),
    ("events.k8s.io/v1/Event", "action", "", "action: Required value"),
    ("events.k8s.io/v1/Event", "note", "x" * 1025, 'message: Invalid value: "": can have at most 1024 characters'),
    ("events.k8s.io/v1/Event", "type", "Odd", 'type: Invalid value: "": has invalid value: Odd'),
    ("events.k8s.io/v1/Event", "deprecatedCount", 1, 'count: Invalid value: "": needs to be unset'),
    ("events.k8s.io/v1/Event", "deprecatedSource", {"host": "n"}, 'source: Invalid value: "": needs to be unset'),
    ("events.k8s.io/v1/Event", "series", {"count": 1, "lastObservedTime": "x"}, 'series.count: Invalid value: "": should be at least 2'),
    ("events.k8s.io/v1/Event", "eventTime", ..., "eventTime: Required value"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.matchingPrecedence", 1, "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.matchingPrecedence", 10001, "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.priorityLevelConfiguration.name", "", "spec.priorityLevelConfiguration.name: Required value: must reference a priority level"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.subjects", [], "spec.rules[0].subjects: Required value: subjects must contain at least one value"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.subjects.0.kind", "Robot", 'spec.rules[0].subjects[0].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"'),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.subjects.1.group", {"name": "g"}, "spec.rules[0].subjects[1].group: Forbidden: group is forbidden when subject kind is not 'Group'"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.subjects.0.serviceAccount.namespace", "", "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.resourceRules.0.verbs", ["get", "*"], "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.resourceRules.0.namespaces", [], "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace"),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.nonResourceRules.0.nonResourceURLs", ["a"], 'spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash'),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "spec.rules.0.nonResourceRules.0.nonResourceURLs", ["/a*"], 'spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "/a*": wildcard can only do suffix matching'),
    ("flowcontrol.apiserver.k8s.io/v1/FlowSchema", "status", {"conditions": [{}]}, "status.conditions[0].type: Required value: must not be empty"),
    ("flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration", "spec.type", "Exempt", "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"),
    ("flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration", "spec.limited.limitResponse.queuing.handSize", 65, "spec.limited.limitResponse.queuing.handSize: Invalid value: 65: should not be greater than queues (64)"),
    ("flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration", "spec.limited.limitResponse.queuing.handSize", 12, "spec.limited.limitResponse.queuing.handSize: Invalid value: 12: required entropy bits of deckSize 64 and handSize 12 should not be greater than 60"),
    ("flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration", "spec.limited.limitResponse.type", "Reject", "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited"),
    ("flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration", "spec.limited.lendablePercent", 101, "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"),
    ("flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration", "spec.limited.nominalConcurrencyShares", -1, "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer"),
    ("node.k8s.io/v1/RuntimeClass", "handler", "A", 'handler: Invalid value: "A": a lowercase RFC 1123 label must'),
    ("node.k8s.io/v1/RuntimeClass", "scheduling.tolerations.0.operator", "Is", 'scheduling.tolerations[0].operator: Unsupported value: "Is"'),
    ("storage.k8s.io/v1/CSIDriver", "spec.attachRequired", None, "spec.attachedRequired: Required value"),
    ("storage.k8s.io/v1/CSIDriver", "spec.tokenRequests.1.audience", "a", 'spec.tokenRequests[1].audience: Duplicate value: "a"'),
    ("storage.k8s.io/v1/CSIDriver", "spec.tokenRequests.0.expirationSeconds", 599, "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"),
    ("storage.k8s.io/v1/CSIDriver", "spec.volumeLifecycleModes", ["No"], 'spec.volumeLifecycleModes: Unsupported value: "No": supported values: "Ephemeral", "Persistent"'),
    ("storage.k8s.io/v1/CSINode", "spec.drivers.0.nodeID", "", "spec.drivers[0].nodeID: Required value"),
    ("storage.k8s.io/v1/CSINode", "spec.drivers.0.name", "x" * 64, "spec.drivers[0].name: Too long: may not be more than 63 bytes"),
    ("storage.k8s.io/v1/CSINode", "spec.drivers.0.topologyKeys", ["a", "a"], 'spec.drivers[0].topologyKeys: Duplicate value: "a"'),
    ("storage.k8s.io/v1/CSIStorageCapacity", "capacity", "-1", 'capacity: Invalid value: "-1": must be greater than or equal to 0'),
    ("storage.k8s.io/v1/VolumeAttachment", "spec.source", {}, "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
    ("storage.k8s.io/v1/VolumeAttachment", "spec.attacher", "", "spec.attacher: Required value"),
    ("storage.k8s.io/v1/VolumeAttributesClass", "parameters", {}, "parameters: Required value: must contain at least one key/value pair"),
    ("storage.k8s.io/v1/VolumeAttributesClass", "driverName", "", "driverName: Required value"),
    ("networking.k8s.io/v1/IngressClass", "spec.controller", "plain", 'spec.controller: Invalid value: "plain": must be a domain-prefixed path (such as "acme.io/foo")'),
    ("networking.k8s.io/v1/IngressClass", "spec.controller", "", "spec.controller: Required value"),
    ("networking.k8s.io/v1/IngressClass", "spec.parameters.scope", "Namespace", "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"),
    ("networking.k8s.io/v1/IngressClass", "spec.parameters.namespace", "a", "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"),
    ("networking.k8s.io/v1/ServiceCIDR", "spec.cidrs", [], "spec.cidrs: Required value: at least one CIDR required"),
    ("networking.k8s.io/v1/ServiceCIDR", "spec.cidrs", ["10.0.0.0/24", "10.1.0.0/24"], 'spec.cidrs: Invalid value: ["10.0.0.0/24","10.1.0.0/24"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64'),
    ("networking.k8s.io/v1/ServiceCIDR", "spec.cidrs", ["1", "2", "3"], 'spec.cidrs: Invalid value: {"CIDRs":["1","2","3"]}: may only hold up to 2 values'),
    ("networking.k8s.io/v1/IPAddress", "spec.parentRef", None, "spec.parentRef: Required value"),
    ("networking.k8s.io/v1/IPAddress", "metadata.name", "10.0.0.01", 'metadata.name: Invalid value: "10.0.0.01"'),
    ("apiregistration.k8s.io/v1/APIService", "metadata.name", "v2.example.com", 'metadata.name: Invalid value: "v2.example.com": must be `spec.version+"."+spec.group`: "v1.example.com"'),
    ("apiregistration.k8s.io/v1/APIService", "spec.groupPriorityMinimum", 0, "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"),
    ("apiregistration.k8s.io/v1/APIService", "spec.service.name", "", "spec.service.name: Required value"),
    ("apps/v1/ControllerRevision", "data", None, "data: Required value: data is mandatory"),
    ("apps/v1/ControllerRevision", "revision", -1, "revision: Invalid value: -1: must be greater than or equal to 0"),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding", "spec.policyName", "", "spec.policyName: Required value"),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding", "spec.validationActions", [], "spec.validationActions: Required value: at least one validation action is required"),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding", "spec.validationActions", ["Deny", "Warn"], 'spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn'),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding", "spec.paramRef.selector", {}, "spec.paramRef.name: Forbidden: name and selector are mutually exclusive"),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding", "spec.paramRef.name", "", "spec.paramRef: Required value: one of name or selector must be specified"),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding", "spec.matchResources.resourceRules.0.resources", ["*", "a"], "spec.matchResources.resourceRules[0].resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources"),
    ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "spec.mutations", [], "spec.mutations: Required value: mutations must contain at least one item"),
    ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "spec.mutations.0.patchType", "Other", 'spec.mutations[0].patchType: Unsupported value: "Other": supported values: "ApplyConfiguration", "JSONPatch"'),
    ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "spec.mutations.0.patchType", "ApplyConfiguration", "spec.mutations[0].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration"),
    ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "spec.reinvocationPolicy", "", "spec.reinvocationPolicy: Required value"),
    ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "spec.matchConstraints.resourceRules.0.operations", ["DELETE"], 'spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "CREATE", "UPDATE"'),
    ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "spec.paramKind.kind", "a b", 'spec.paramKind.kind: Invalid value: "a b": may have mixed case, but should otherwise match: a DNS-1035 label must'),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy", "spec.validations.0.message", "a\nb", 'spec.validations[0].message: Invalid value: "a\\nb": must not contain line breaks'),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy", "spec.variables.0.name", "in", 'spec.variables[0].name: Invalid value: "in": must be a valid CEL identifier'),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy", "spec.matchConditions.0.name", "", "spec.matchConditions[0].name: Required value"),
    ("admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy", "spec.auditAnnotations.0.valueExpression", "", "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified"),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.requests.0.exactly", ..., "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.requests.0.exactly.deviceClassName", "", "spec.devices.requests[0].exactly.deviceClassName: Required value"),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.requests.0.exactly.count", -1, "spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.requests", REQUESTED["requests"] * 33, "spec.devices.requests: Too many: 33: must have at most 32 items"),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.constraints.0.matchAttribute", "numa", 'spec.devices.constraints[0].matchAttribute: Invalid value: "numa": must include a domain'),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.config.0.requests", ["x"], 'spec.devices.config[0].requests[0]: Invalid value: "x": must be the name of a request in the claim'),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.config.0.opaque.parameters", [], 'spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": parameters must be a valid JSON object'),
    ("resource.k8s.io/v1/ResourceClaimTemplate", "spec.metadata.name", "x", "spec.metadata.name: Forbidden: cannot be set"),
    ("resource.k8s.io/v1/DeviceClass", "spec.selectors.0", {}, "spec.selectors[0].cel: Required value"),
    ("resource.k8s.io/v1/ResourceSlice", "spec.nodeName", ..., "spec: Required value: exactly one of `nodeName`"),
    ("resource.k8s.io/v1/ResourceSlice", "spec.pool.resourceSliceCount", 0, "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"),
    ("resource.k8s.io/v1/ResourceSlice", "spec.devices.0.attributes.driverVersion.version", "1.2", 'spec.devices[0].attributes[driverVersion].version: Invalid value: "1.2": must be a string compatible with semver.org spec 2.0.0'),
    ("resource.k8s.io/v1/ResourceSlice", "spec.devices.0.attributes.model", {}, "spec.devices[0].attributes[model]: Required value: exactly one value must be specified"),
    ("v1/Binding", "target.kind", "Pod", 'target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"'),
    ("v1/Binding", "target.name", "", "target.name: Required value"),
    ("autoscaling/v1/Scale", "spec.replicas", -1, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ("authentication.k8s.io/v1/TokenRequest", "spec.expirationSeconds", 1, "spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes"),
    ("authentication.k8s.io/v1/TokenRequest", "spec.expirationSeconds", 2**32 + 1, "may not specify a duration larger than 2^32 seconds"),
    ("v1/Pod", "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", [], "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"),
    ("v1/Pod", "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution.0.weight", 101, "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100"),
    ("v1/Pod", "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution.0.podAffinityTerm.topologyKey", "", "podAffinityTerm.topologyKey: Required value: can not be empty"),
]  # fmt: skip  # one fault a line


@pytest.mark.parametrize(("kind", "path", "value", "text"), FAULTS)
def test_each_fault_has_its_error(kind: str, path: str, value: Any, text: str) -> None:
    errors = validate_create(put(made(kind), path, value), split(kind))
    assert any(text in str(error) for error in errors), [str(error) for error in errors]


CHANGES: list[tuple[str, str, Any, str]] = [
    ("v1/Node", "spec.podCIDRs", ["10.0.9.0/24", "fd00::/64"], 'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'),
    ("v1/Node", "spec.providerID", "y", 'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid'),
    ("v1/Node", "status.addresses", [{"type": "InternalIP", "address": "a"}] * 2, 'status.addresses[1]: Duplicate value: {"Type":"InternalIP","Address":"a"}'),
    ("v1/PersistentVolume", "spec.local.path", "/e", "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"),
    ("events.k8s.io/v1/Event", "note", "other", 'message: Invalid value: "other": field is immutable'),
    ("node.k8s.io/v1/RuntimeClass", "handler", "other", 'handler: Invalid value: "other": field is immutable'),
    ("storage.k8s.io/v1/CSIDriver", "spec.attachRequired", False, "spec.attachedRequired: Invalid value: false: field is immutable"),
    ("storage.k8s.io/v1/CSINode", "spec.drivers.0.nodeID", "m", "CSINodeDriver: Invalid value: "),
    ("storage.k8s.io/v1/CSIStorageCapacity", "storageClassName", "slow", 'storageClassName: Invalid value: "slow": field is immutable'),
    ("storage.k8s.io/v1/VolumeAttachment", "spec.nodeName", "m", 'spec: Invalid value: {"Attacher":"csi.example.com","Source":{"PersistentVolumeName":"v","InlineVolumeSpec":null},"NodeName":"m"}: field is immutable'),
    ("storage.k8s.io/v1/VolumeAttributesClass", "parameters.iops", "2", "parameters: Forbidden: updates to parameters are forbidden."),
    ("networking.k8s.io/v1/IngressClass", "spec.controller", "example.com/other", 'spec.controller: Invalid value: "example.com/other": field is immutable'),
    ("networking.k8s.io/v1/ServiceCIDR", "spec.cidrs.0", "10.1.0.0/24", 'spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable'),
    ("networking.k8s.io/v1/ServiceCIDR", "spec.cidrs", ["10.0.0.0/24"], 'spec.cidrs: Invalid value: ["10.0.0.0/24"]: field is immutable'),
    ("networking.k8s.io/v1/IPAddress", "spec.parentRef.name", "t", 'spec.parentRef: Invalid value: {"Group":"","Resource":"services","Namespace":"default","Name":"t"}: field is immutable'),
    ("apps/v1/ControllerRevision", "data.a", 2, 'data: Invalid value: {"a":2}: field is immutable'),
    ("resource.k8s.io/v1/ResourceClaim", "spec.devices.requests.0.name", "cpu", "spec: Invalid value"),
    ("resource.k8s.io/v1/ResourceSlice", "spec.nodeName", "m", 'spec.nodeName: Invalid value: "m": field is immutable'),
]  # fmt: skip  # one change a line


@pytest.mark.parametrize(("kind", "path", "value", "text"), CHANGES)
def test_what_may_not_change_is_told(kind: str, path: str, value: Any, text: str) -> None:
    old = put(made(kind), "metadata.resourceVersion", "1")
    errors = validate_update(old, put(copy.deepcopy(old), path, value), split(kind))
    assert any(text in str(error) for error in errors), [str(error) for error in errors]


def test_a_second_network_may_be_added() -> None:
    kind = "networking.k8s.io/v1/ServiceCIDR"
    new = put(made(kind), "metadata.resourceVersion", "1")
    old = put(copy.deepcopy(new), "spec.cidrs", ["10.0.0.0/24"])
    assert validate_update(old, new, split(kind)) == []


def test_core_events_may_change() -> None:
    old = put(made("v1/Event"), "metadata.resourceVersion", "1")
    new = put(put(copy.deepcopy(old), "count", 2), "message", "again")
    assert validate_update(old, new, split("v1/Event")) == []


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("FlowSchema", {"matchingPrecedence": 10_000, "priorityLevelConfiguration": {"name": "system"}}),
        ("PriorityLevelConfiguration", {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}),
    ],
)
def test_mandatory_objects_stay_as_they_are(kind: str, spec: Object) -> None:
    obj = {"metadata": {"name": "catch-all"}, "spec": spec}
    errors = [str(error) for error in validate_create(obj, ("flowcontrol.apiserver.k8s.io", "v1", kind))]
    assert any(error.endswith("spec of 'catch-all' must equal the fixed value") for error in errors)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}}, ""),
        ({"dataSource": {"kind": "VolumeSnapshot", "name": "a"}}, "spec.dataSource: Invalid value: \"VolumeSnapshot\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"),
        ({"dataSourceRef": {"kind": "PersistentVolumeClaim"}}, "spec.dataSourceRef.name: Required value"),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "b"}}, "spec: Invalid value: spec.dataSource: must match dataSourceRef"),
        ({"volumeAttributesClassName": "A"}, "spec.volumeAttributesClassName: Invalid value"),
    ],
)  # fmt: skip  # one fault a line
def test_where_the_data_of_a_claim_comes_from(parts: Object, text: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **parts}
    errors = validate_create({"metadata": {"name": "a"}, "spec": spec}, ("", "v1", "PersistentVolumeClaim"))
    assert [str(error) for error in errors] == [] if not text else any(text in str(error) for error in errors)


@pytest.mark.parametrize(
    ("name", "spec", "text"),
    [
        ("a", {}, 'spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided'),
        ("a", {"signerName": "example.com/s"}, 'metadata.name: Invalid value: "a": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:'),
        ("a:b", {}, 'must not have ":" in its name'),
    ],
)  # fmt: skip  # one fault a line
def test_trust_bundles_are_named_after_their_signer(name: str, spec: Object, text: str) -> None:
    obj = {"metadata": {"name": name}, "spec": spec}
    errors = validate_create(obj, ("certificates.k8s.io", "v1beta1", "ClusterTrustBundle"))
    assert any(text in str(error) for error in errors), [str(error) for error in errors]


def test_a_mandatory_level_is_exempt() -> None:
    kind = "flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration"
    level: Object = {
        "metadata": {"name": "exempt"},
        "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}},
    }
    assert validate_create(level, split(kind)) == []
    level["spec"]["limited"] = {}
    assert [str(error) for error in validate_create(level, split(kind))] == [
        "spec.limited: Forbidden: must be nil if the type is not Limited"
    ]
