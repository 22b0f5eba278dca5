"""What may be changed through subresources: statuses, finalizers, approvals, debug containers, resources of pods."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse.kinds.defaults import default
from pilothouse.kinds.validation import (
    validate_create,
    validate_status_update,
    validate_subresource_update,
    validate_update,
)

Object = dict[str, Any]
Kind = tuple[str, str, str]
POD: Kind = ("", "v1", "Pod")
CSR: Kind = ("certificates.k8s.io", "v1", "CertificateSigningRequest")


def made(gvk: Kind, **parts: Any) -> Object:
    meta = {"name": "a", "resourceVersion": "1", **parts.pop("metadata", {})}
    return {"metadata": meta, **parts}


def status_errors(gvk: Kind, new: Object, old: Object | None = None) -> list[str]:
    before = copy.deepcopy(new) if old is None else old
    return [str(error) for error in validate_status_update(before, new, gvk)]


COUNTS = "cannot be greater than status.replicas"


@pytest.mark.parametrize(
    ("gvk", "parts", "expected"),
    [
        (("apps", "v1", "Deployment"), {"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}}, []),
        (
            ("apps", "v1", "Deployment"),
            {"status": {"replicas": 1, "updatedReplicas": 2}},
            [f"status.updatedReplicas: Invalid value: 2: {COUNTS}"],
        ),
        (
            ("apps", "v1", "ReplicaSet"),
            {"status": {"replicas": 3, "readyReplicas": 1, "availableReplicas": 2}},
            ["status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"],
        ),
        (
            ("apps", "v1", "StatefulSet"),
            {"status": {"replicas": 1, "currentReplicas": 2}},
            [f"status.currentReplicas: Invalid value: 2: {COUNTS}"],
        ),
        (
            ("apps", "v1", "DaemonSet"),
            {"status": {"numberReady": -1}},
            ["status.numberReady: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            {"status": {"desiredReplicas": -1}},
            ["status.desiredReplicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            ("policy", "v1", "PodDisruptionBudget"),
            {"status": {"expectedPods": -1, "conditions": [{"type": "A", "status": "True", "reason": "R"}]}},
            [
                "status.conditions[0].lastTransitionTime: Required value: must be set",
                "status.expectedPods: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (("", "v1", "Namespace"), {"status": {"phase": "Active"}}, []),
        (
            ("", "v1", "Namespace"),
            {"status": {"phase": "Terminating"}},
            ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"],
        ),
        (
            ("", "v1", "Namespace"),
            {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Active"}},
            ["status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty"],
        ),
        (
            ("", "v1", "Service"),
            {"spec": {"type": "ClusterIP"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}},
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
        ),
        (
            ("", "v1", "Service"),
            {"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}},
            ["status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set"],
        ),
        (
            ("networking.k8s.io", "v1", "Ingress"),
            {"status": {"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}]}}},
            [
                (
                    'status.loadBalancer.ingress[0].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP '
                    "address"
                )
            ],
        ),
        (
            ("", "v1", "ResourceQuota"),
            {"status": {"used": {"pods": "-1"}}},
            ['status.used[pods]: Invalid value: "-1": must be greater than or equal to 0'],
        ),
        (("", "v1", "PersistentVolumeClaim"), {"status": {}}, ["Spec.accessModes: Required value"]),
        (
            ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema"),
            {"status": {"conditions": [{"type": "Dangling"}, {"type": "Dangling"}]}},
            ['status.conditions[1].type: Duplicate value: "Dangling"'],
        ),
        (
            ("apiregistration.k8s.io", "v1", "APIService"),
            {"status": {"conditions": [{"type": "Available", "status": "Maybe"}]}},
            [
                'status.conditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"',
            ],
        ),
        (("example.com", "v1", "Whatever"), {"status": {"anything": -1}}, []),
    ],
)
def test_statuses_are_checked(gvk: Kind, parts: Object, expected: list[str]) -> None:
    assert status_errors(gvk, made(gvk, **copy.deepcopy(parts))) == expected


def test_collisions_are_not_taken_back() -> None:
    gvk = ("apps", "v1", "Deployment")
    old, new = (made(gvk, status={"collisionCount": count}) for count in (2, 1))
    assert status_errors(gvk, new, old) == ["status.collisionCount: Invalid value: 1: cannot be decremented"]
    del new["status"]["collisionCount"]
    assert status_errors(gvk, new, old) == ["status.collisionCount: Invalid value: 0: cannot be decremented"]


def test_metadata_is_checked_with_a_status() -> None:
    gvk = ("apps", "v1", "Deployment")
    old = made(gvk)
    new = made(gvk, metadata={"uid": "x"})
    assert set(status_errors(gvk, new, old)) == {'metadata.uid: Invalid value: "x": field is immutable'}


def pod(**spec: Any) -> Object:
    containers = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]
    obj = made(POD, spec={"containers": containers, **spec}, status={"qosClass": "Burstable"})
    return default(obj, *POD)


def changed(obj: Object, **status: Any) -> Object:
    new = copy.deepcopy(obj)
    new["status"].update(status)
    return new


def ended(code: int) -> Object:
    return {"name": "c", "state": {"terminated": {"exitCode": code}}}


@pytest.mark.parametrize(
    ("policy", "code", "refused"),
    [
        ("Never", 0, True),
        ("Never", 1, True),
        ("OnFailure", 0, True),
        ("OnFailure", 1, False),
        ("Always", 0, False),
    ],
)
def test_what_ended_stays_so(policy: str, code: int, refused: bool) -> None:
    old = changed(pod(restartPolicy=policy), containerStatuses=[ended(code)])
    new = changed(old, containerStatuses=[{"name": "c", "state": {"running": {}}}])
    text = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    assert status_errors(POD, new, old) == ([text] if refused else [])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, []),
        (
            {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
            [
                (
                    'status.podIPs: Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: may specify no more than one '
                    "IP for each IP family"
                )
            ],
        ),
        ({"qosClass": "Guaranteed"}, ['status.qosClass: Invalid value: "Guaranteed": field is immutable']),
        (
            {"hostIP": "1.2.3.4", "hostIPs": [{"ip": "1.2.3.5"}]},
            ['status.hostIPs[0].ip: Invalid value: "1.2.3.5": must be equal to `hostIP`'],
        ),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, []),
        (
            {"resourceClaimStatuses": [{"name": "x"}]},
            [
                (
                    'status.resourceClaimStatuses[0].name: Invalid value: "x": must match the name of an entry in '
                    "`spec.resourceClaims`"
                )
            ],
        ),
    ],
)
def test_pod_statuses_are_checked(status: Object, expected: list[str]) -> None:
    old = pod()
    assert status_errors(POD, changed(old, **status), old) == expected


def debug(obj: Object, *containers: Object) -> Object:
    new = copy.deepcopy(obj)
    filled = {"terminationMessagePolicy": "File", "imagePullPolicy": "Always", "image": "i"}
    new["spec"]["ephemeralContainers"] = [{**filled, **container} for container in containers]
    return new


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [{"name": "d", "targetContainerName": "c"}], []),
        ([], [{"name": "c"}], ['spec.ephemeralContainers[0].name: Duplicate value: "c"']),
        (
            [],
            [{"name": "d", "targetContainerName": "x"}],
            ['spec.ephemeralContainers[0].targetContainerName: Not found: "x"'],
        ),
        (
            [],
            [{"name": "d", "ports": [{"containerPort": 1}]}],
            ["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"],
        ),
        (
            [{"name": "d"}],
            [],
            ['spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed\n'],
        ),
        (
            [{"name": "d"}],
            [{"name": "d", "image": "j"}],
            ['spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be changed\n'],
        ),
        ([{"name": "d"}], [{"name": "e"}, {"name": "d"}], []),
    ],
)
def test_debug_containers_are_added_only(before: list[Object], after: list[Object], expected: list[str]) -> None:
    old, new = debug(pod(), *before), debug(pod(), *after)
    errors = validate_subresource_update(old, new, POD, "ephemeralcontainers")
    assert [str(error) for error in errors] == expected


def test_static_pods_have_no_debug_containers() -> None:
    old = pod()
    old["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    errors = validate_subresource_update(old, debug(old, {"name": "d"}), POD, "ephemeralcontainers")
    assert [error.body for error in errors] == ["Forbidden: static pods do not support ephemeral containers"]


def resized(resources: Object, **spec: Any) -> list[str]:
    old, new = pod(), pod(**spec)
    new["spec"]["containers"][0]["resources"] = resources
    return [str(error) for error in validate_subresource_update(old, new, POD, "resize")]


def test_a_pod_gets_other_processors_and_memory() -> None:
    assert resized({"requests": {"cpu": "500m"}, "limits": {"cpu": "3"}}) == []
    assert resized({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}) == []
    assert resized({"requests": {"cpu": "1"}, "limits": {}}) == [
        "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"
    ]
    assert resized({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2"}}) == [
        "spec: Forbidden: only cpu and memory resources are mutable"
    ]
    both = {"cpu": "2", "memory": "1Gi"}
    assert resized({"requests": both, "limits": both}) == [
        'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'
    ]
    assert resized({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}, nodeName="n") == [
        "spec: Forbidden: only cpu and memory resources are mutable"
    ]


def test_finalizers_of_a_namespace_are_named_well() -> None:
    gvk = ("", "v1", "Namespace")
    old = made(gvk, spec={"finalizers": ["kubernetes"]})
    assert validate_subresource_update(old, made(gvk, spec={"finalizers": []}), gvk, "finalize") == []
    errors = validate_subresource_update(old, made(gvk, spec={"finalizers": ["own"]}), gvk, "finalize")
    assert [str(error) for error in errors] == [
        'spec.finalizers[0]: Invalid value: "own": name is neither a standard finalizer name nor is it fully qualified'
    ]


def signing_request(**spec: Any) -> Object:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    found = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = base64.b64encode(found.public_bytes(serialization.Encoding.PEM)).decode()
    fields = {"request": pem, "usages": ["client auth"], "signerName": "kubernetes.io/kube-apiserver-client", **spec}
    return made(CSR, spec=fields, status={})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ""),
        ({"request": "YQ=="}, 'spec.request: Invalid value: "YQ==": PEM block type must be CERTIFICATE REQUEST'),
        ({"usages": []}, "spec.usages: Required value"),
        ({"usages": ["magic"]}, 'spec.usages[0]: Unsupported value: "magic": supported values: "any", "cert sign"'),
        ({"usages": ["signing", "signing"]}, 'spec.usages[1]: Duplicate value: "signing"'),
        ({"signerName": ""}, "spec.signerName: Required value"),
        ({"signerName": "plain"}, 'spec.signerName: Invalid value: "plain": must be a fully qualified domain and path'),
        ({"signerName": "a/b"}, 'spec.signerName: Invalid value: "a": should be a domain with at least two segments'),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "the legacy signerName is not allowed via this API version"),
        ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds (10 minutes)"),
    ],
)
def test_signing_requests_are_checked(spec: Object, expected: str) -> None:
    errors = [str(error) for error in validate_create(signing_request(**spec), CSR)]
    assert errors == [] if not expected else any(expected in error for error in errors)


def test_a_request_with_a_foreign_signature_is_refused() -> None:
    obj = signing_request()
    der = bytearray(base64.b64decode("".join(base64.b64decode(obj["spec"]["request"]).decode().split("\n")[1:-2])))
    der[-1] ^= 1
    text = base64.encodebytes(bytes(der)).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    obj["spec"]["request"] = base64.b64encode(pem.encode()).decode()
    assert any("signature verification failure" in str(error) for error in validate_create(obj, CSR))


def with_condition(obj: Object, *kinds: str, status: str = "True") -> Object:
    new = copy.deepcopy(obj)
    new["status"]["conditions"] = [{"type": kind, "status": status} for kind in kinds]
    return new


def test_only_the_approval_decides() -> None:
    old = signing_request()
    approved = with_condition(old, "Approved")
    assert validate_subresource_update(old, approved, CSR, "approval") == []
    added = 'status.conditions: Forbidden: updates may not add a condition of type "Approved"'
    assert [str(error) for error in validate_status_update(old, approved, CSR)] == [added]
    assert [str(error) for error in validate_update(old, approved, CSR)] == [added]
    removed = validate_subresource_update(approved, old, CSR, "approval")
    assert [str(error) for error in removed] == [
        'status.conditions: Forbidden: updates may not remove a condition of type "Approved"'
    ]
    both = validate_subresource_update(old, with_condition(old, "Approved", "Denied"), CSR, "approval")
    assert "Approved and Denied conditions are mutually exclusive" in str(both[0])
    doubtful = validate_subresource_update(old, with_condition(old, "Denied", status="False"), CSR, "approval")
    assert [str(error) for error in doubtful] == [
        'status.conditions[0].status: Unsupported value: "False": supported values: "True"'
    ]


def test_only_the_status_has_the_certificate_and_once() -> None:
    old = signing_request()
    pem = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
    issued = changed(old, certificate=base64.b64encode(pem).decode())
    assert validate_status_update(old, issued, CSR) == []
    assert [str(error) for error in validate_update(old, issued, CSR)] == [
        "status.certificate: Forbidden: updates may not set certificate content"
    ]
    other = changed(issued, certificate=base64.b64encode(pem + pem).decode())
    assert [str(error) for error in validate_status_update(issued, other, CSR)] == [
        "status.certificate: Forbidden: updates may not modify existing certificate content"
    ]
    assert "must contain at least one CERTIFICATE PEM block" in str(
        validate_status_update(old, changed(old, certificate="YQ=="), CSR)[0]
    )


def test_an_allocation_stays_until_it_is_taken_away() -> None:
    gvk = ("resource.k8s.io", "v1", "ResourceClaim")
    device = {"request": "gpu", "driver": "d.example.com", "pool": "p", "device": "g"}
    spec = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "g"}}]}}
    old = made(gvk, spec=spec, status={})
    new = changed(old, allocation={"devices": {"results": [device]}})
    assert status_errors(gvk, new, old) == []
    other = changed(old, allocation={"devices": {"results": [{**device, "device": "h"}]}})
    assert "status.allocation: Invalid value" in status_errors(gvk, other, new)[0]
    wrong = changed(old, allocation={"devices": {"results": [{**device, "request": "x"}]}})
    assert "must be the name of a request in the claim" in status_errors(gvk, wrong, old)[0]
    reserved = changed(old, reservedFor=[{"resource": "pods", "name": "p", "uid": "u"}])
    assert status_errors(gvk, reserved, old) == [
        "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
    ]


JOB: Kind = ("batch", "v1", "Job")
STARTED, ENDED = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
DONE: Object = {
    "startTime": STARTED,
    "completionTime": ENDED,
    "succeeded": 1,
    "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}],
}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"startTime": STARTED, "active": 1}, DONE, []),
        (
            {},
            {**DONE, "conditions": DONE["conditions"][1:]},
            [
                (
                    "status.conditions: Invalid value: cannot set Complete=True condition without the "
                    "SuccessCriteriaMet=true condition"
                )
            ],
        ),
        ({}, {**DONE, "active": 1}, ["status.active: Invalid value: 1: active>0 is invalid for finished job"]),
        (
            {},
            {**DONE, "completionTime": None},
            ["status.completionTime: Required value: completionTime is required for Complete jobs"],
        ),
        (
            {},
            {"completionTime": ENDED, "startTime": STARTED},
            [
                (
                    f'status.completionTime: Invalid value: "{ENDED}": cannot set completionTime when there is no '
                    "Complete=True condition"
                )
            ],
        ),
        ({"failed": 2}, {"failed": 1}, ["status.failed: Invalid value: 1: cannot decrease the failed counter"]),
        (
            {"startTime": STARTED},
            {},
            ["status.startTime: Required value: startTime cannot be removed for unsuspended job"],
        ),
        ({}, {"active": 1, "ready": 2}, ["status.ready: Invalid value: 2: cannot set more ready pods than active"]),
        (
            {},
            {"completedIndexes": "1"},
            [
                (
                    'status.completedIndexes: Invalid value: "1": cannot set non-empty completedIndexes when '
                    "non-indexed completion mode"
                )
            ],
        ),
        (
            {},
            {"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}},
            ['status.uncountedTerminatedPods.failed[0]: Duplicate value: "a"'],
        ),
        ({"active": 1, "ready": 2}, {"active": 1, "ready": 2, "failed": 1}, []),
    ],
)
def test_job_statuses_fit_together(before: Object, after: Object, expected: list[str]) -> None:
    old, new = (made(JOB, spec={}, status=status) for status in (before, after))
    assert status_errors(JOB, new, old) == expected


def test_what_a_job_was_it_stays() -> None:
    old = made(JOB, spec={}, status=DONE)
    errors = status_errors(JOB, made(JOB, spec={}, status={"startTime": STARTED, "succeeded": 1}), old)
    assert errors == [
        "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
        "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
    ]


def test_storage_classes_make_the_same_volumes() -> None:
    gvk = ("storage.k8s.io", "v1", "StorageClass")
    old = made(gvk, provisioner="a", parameters={"a": "b"}, reclaimPolicy="Delete", volumeBindingMode="Immediate")
    new = copy.deepcopy(old) | {"parameters": {"a": "c"}, "reclaimPolicy": "Retain"}
    assert [str(error) for error in validate_update(old, new, gvk)] == [
        "parameters: Forbidden: updates to parameters are forbidden.",
        "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
    ]
    many = old | {"parameters": {f"{number}": "" for number in range(513)}}
    assert [str(error) for error in validate_create(many, gvk)] == [
        "parameters: Too long: may not be more than 512 bytes"
    ]
