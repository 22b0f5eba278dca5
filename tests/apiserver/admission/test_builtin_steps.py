"""Built-in steps for namespaces, accounts, limits, priorities, tolerations, runtime classes, storage and nodes."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from pilothouse.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
    ClusterTrustBundleAttest,
)
from pilothouse.apiserver.admission.lifecycle import NamespaceLifecycle
from pilothouse.apiserver.admission.limitranger import LimitRanger
from pilothouse.apiserver.admission.nodes import NodeRestriction, TaintNodesByCondition
from pilothouse.apiserver.admission.ownerreferences import OwnerReferencesPermissionEnforcement
from pilothouse.apiserver.admission.pods import (
    AlwaysPullImages,
    DefaultTolerationSeconds,
    ExtendedResourceToleration,
    PodResizeValidator,
    PodTopologyLabels,
    RuntimeClass,
    merged_tolerations,
)
from pilothouse.apiserver.admission.priority import Priority
from pilothouse.apiserver.admission.serviceaccount import ServiceAccount
from pilothouse.apiserver.admission.storage import (
    DefaultIngressClass,
    DefaultStorageClass,
    DenyServiceExternalIPs,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds import status
from support.dictview import DictView, Rules, write


def pod(namespace: str = "n", name: str = "p", **spec: Any) -> Object:
    spec.setdefault("containers", [{"name": "c", "image": "i"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def named(name: str, **more: Any) -> Object:
    return {"metadata": {"name": name, **more.pop("metadata", {})}, **more}


@pytest.fixture
def view() -> DictView:
    found = DictView()
    found.namespace("n")
    return found


class TestNamespaceLifecycle:
    def test_missing(self, view: DictView) -> None:
        with pytest.raises(status.NotFound) as caught:
            NamespaceLifecycle(view).mutate(write("CREATE", "pods", pod("gone")))
        assert caught.value.to_dict() == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'namespaces "gone" not found',
            "reason": "NotFound",
            "details": {"name": "gone", "kind": "namespaces"},
            "code": 404,
        }

    def test_terminating(self, view: DictView) -> None:
        view.namespace("going", phase="Terminating")
        step = NamespaceLifecycle(view)
        with pytest.raises(status.Forbidden) as caught:
            step.mutate(write("CREATE", "configmaps", {"metadata": {"namespace": "going", "generateName": "x-"}}))
        assert caught.value.message == (
            'configmaps "x-" is forbidden: unable to create new content in namespace going because it is being '
            "terminated"
        )
        assert caught.value.causes == [
            {
                "reason": "NamespaceTerminating",
                "message": "namespace going is being terminated",
                "field": "metadata.namespace",
            }
        ]
        assert not step.handles("UPDATE", ("", "v1", "configmaps"), "")

    async def test_other_servers_may_have_made_it_just_now(self, view: DictView) -> None:
        asked: list[str] = []

        async def lookup(name: str) -> Object | None:
            asked.append(name)
            return {"status": {"phase": "Active"}} if name == "fresh" else None

        step = NamespaceLifecycle(view, lookup=lookup)
        assert step.mutate(write("CREATE", "pods", pod("n"))) is None
        pending = step.mutate(write("CREATE", "pods", pod("fresh")))
        assert pending is not None
        await pending
        pending = step.mutate(write("CREATE", "pods", pod("gone")))
        assert pending is not None
        with pytest.raises(status.NotFound):
            await pending
        assert asked == ["fresh", "gone"]

    def test_system_namespaces_stay(self, view: DictView) -> None:
        step = NamespaceLifecycle(view)
        with pytest.raises(status.Forbidden, match="this namespace may not be deleted"):
            step.mutate(write("DELETE", "namespaces", None, old=view.namespace("kube-system")))
        step.mutate(write("DELETE", "namespaces", None, old=view.namespace("mine")))

    def test_reviews_tell_nothing(self, view: DictView) -> None:
        step = NamespaceLifecycle(view)
        assert not step.handles("CREATE", ("authorization.k8s.io", "v1", "localsubjectaccessreviews"), "")
        step.mutate(write("CREATE", "nodes", named("node")))
        step.mutate(write("CREATE", "namespaces", named("fresh")))


class TestServiceAccount:
    def step(self, view: DictView, clock: FakeClock | None = None) -> ServiceAccount:
        return ServiceAccount(view, SeededIds(1), clock or FakeClock(), patience=0 if clock is None else 1.5)

    def account(self, view: DictView, name: str = "default", **more: Any) -> None:
        view.put("serviceaccounts", {**named(name, metadata={"namespace": "n"}), **more})

    def test_completes_a_pod(self, view: DictView) -> None:
        self.account(view, imagePullSecrets=[{"name": "pull"}])
        mounted = {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        item = pod(
            initContainers=[{"name": "i"}], containers=[{"name": "c"}, {"name": "d", "volumeMounts": [dict(mounted)]}]
        )
        step = self.step(view)
        assert step.mutate(write("CREATE", "pods", item)) is None
        spec = item["spec"]
        assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
        assert spec["imagePullSecrets"] == [{"name": "pull"}]
        (volume,) = spec["volumes"]
        assert volume["name"] == f"kube-api-access-{SeededIds(1).name_suffix(5)}"
        assert [next(iter(one)) for one in volume["projected"]["sources"]] == [
            "serviceAccountToken",
            "configMap",
            "downwardAPI",
        ]
        assert volume["projected"]["defaultMode"] == 420
        mount = {"name": volume["name"], "readOnly": True, "mountPath": mounted["mountPath"]}
        assert spec["initContainers"][0]["volumeMounts"] == [mount]
        assert spec["containers"][0]["volumeMounts"] == [mount]
        assert spec["containers"][1]["volumeMounts"] == [mounted]
        step.validate(write("CREATE", "pods", item))
        before = repr(item)
        step.mutate(write("CREATE", "pods", item))
        assert repr(item) == before

    def test_missing_account(self, view: DictView) -> None:
        with pytest.raises(status.Forbidden) as caught:
            self.step(view).mutate(write("CREATE", "pods", pod(serviceAccountName="nobody")))
        assert caught.value.message == (
            'pods "p" is forbidden: error looking up service account n/nobody: serviceaccount "nobody" not found'
        )

    @pytest.mark.parametrize(("account", "told", "mounts"), [(False, None, 0), (False, True, 1), (None, False, 0)])
    def test_automount(self, view: DictView, account: bool | None, told: bool | None, mounts: int) -> None:
        self.account(view, automountServiceAccountToken=account)
        item = pod(automountServiceAccountToken=told)
        self.step(view).mutate(write("CREATE", "pods", item))
        assert len(item["spec"].get("volumes", ())) == mounts

    async def test_waits_for_the_default_account(self, view: DictView) -> None:
        clock = FakeClock()
        item = pod()
        pending = self.step(view, clock).mutate(write("CREATE", "pods", item))
        assert pending is not None
        waiting = asyncio.ensure_future(pending)
        await clock.run(1)
        assert not waiting.done()
        self.account(view)
        await waiting
        assert item["spec"]["serviceAccountName"] == "default"
        assert clock.waiting == 0

    async def test_gives_up_waiting(self, view: DictView) -> None:
        clock = FakeClock()
        pending = self.step(view, clock).mutate(write("CREATE", "pods", pod()))
        assert pending is not None
        waiting = asyncio.ensure_future(pending)
        await clock.run(2)
        with pytest.raises(status.Forbidden, match='serviceaccount "default" not found'):
            await waiting

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"serviceAccountName": "x"}, "a mirror pod may not reference service accounts"),
            ({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "a mirror pod may not reference secrets"),
            (
                {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {}}]}}]},
                "a mirror pod may not use ServiceAccountToken volume projections",
            ),
        ],
    )
    def test_mirror_pods(self, view: DictView, spec: Object, why: str) -> None:
        item = pod(**spec)
        item["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        with pytest.raises(status.Forbidden, match=why):
            self.step(view).mutate(write("CREATE", "pods", item))

    def test_mountable_secrets(self, view: DictView) -> None:
        noted = {"kubernetes.io/enforce-mountable-secrets": "true"}
        view.put("serviceaccounts", {**named("strict", metadata={"namespace": "n", "annotations": noted})})
        item = pod(serviceAccountName="strict", volumes=[{"name": "v", "secret": {"secretName": "s"}}])
        with pytest.raises(status.Forbidden) as caught:
            self.step(view).validate(write("CREATE", "pods", item))
        assert caught.value.message == (
            'pods "p" is forbidden: volume with secret.secretName="s" is not allowed because service account strict '
            "does not reference that secret"
        )


class TestLimitRanger:
    def limits(self, view: DictView, *limits: Object) -> LimitRanger:
        view.put("limitranges", {**named("l", metadata={"namespace": "n"}), "spec": {"limits": list(limits)}})
        return LimitRanger(view)

    def test_defaults(self, view: DictView) -> None:
        step = self.limits(
            view,
            {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}},
        )
        item = pod(
            initContainers=[{"name": "i", "resources": {"limits": {"cpu": "2"}}}],
            containers=[{"name": "c", "resources": {"requests": {"cpu": "5m"}}}],
        )
        step.mutate(write("CREATE", "pods", item))
        assert item["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "5m"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        }
        assert item["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
            "LimitRanger plugin set: cpu, memory limit for container c; cpu request for init container i; "
            "memory limit for init container i"
        )

    @pytest.mark.parametrize(
        ("limit", "resources", "why"),
        [
            ({"min": {"cpu": "1"}}, {}, "minimum cpu usage per Container is 1.  No request is specified"),
            (
                {"min": {"memory": "100Mi"}},
                {"requests": {"memory": "50Mi"}},
                "minimum memory usage per Container is 100Mi, but request is 50Mi",
            ),
            ({"max": {"cpu": "1"}}, {}, "maximum cpu usage per Container is 1.  No limit is specified"),
            (
                {"max": {"cpu": "1"}},
                {"limits": {"cpu": "1500m"}},
                "maximum cpu usage per Container is 1, but limit is 1500m",
            ),
            (
                {"maxLimitRequestRatio": {"cpu": "2"}},
                {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                {"maxLimitRequestRatio": {"cpu": "2"}},
                {"limits": {"cpu": "3"}},
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
        ],
    )
    def test_bounds(self, view: DictView, limit: Object, resources: Object, why: str) -> None:
        step = self.limits(view, {"type": "Container", **limit})
        with pytest.raises(status.Forbidden) as caught:
            step.validate(write("CREATE", "pods", pod(containers=[{"name": "c", "resources": resources}])))
        assert caught.value.message == f'pods "p" is forbidden: {why}'

    def test_several_errors_and_whole_pods(self, view: DictView) -> None:
        step = self.limits(view, {"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}})
        asked = {"limits": {"cpu": "600m", "memory": "600Mi"}}
        item = pod(containers=[{"name": "a", "resources": asked}, {"name": "b", "resources": asked}])
        with pytest.raises(status.Forbidden) as caught:
            step.validate(write("CREATE", "pods", item))
        assert caught.value.message == (
            'pods "p" is forbidden: [maximum cpu usage per Pod is 1, but limit is 1200m, '
            "maximum memory usage per Pod is 1Gi, but limit is 1200Mi]"
        )

    def test_claims(self, view: DictView) -> None:
        step = self.limits(view, {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}})
        claim = named("c", metadata={"namespace": "n"}, spec={"resources": {"requests": {"storage": "2Gi"}}})
        with pytest.raises(status.Forbidden, match="maximum storage usage per PersistentVolumeClaim is 1Gi, but requ"):
            step.validate(write("CREATE", "persistentvolumeclaims", claim))
        going = {**claim, "metadata": {**claim["metadata"], "deletionTimestamp": "2025-01-01T00:00:00Z"}}
        step.validate(write("UPDATE", "persistentvolumeclaims", claim, old=going))
        assert not step.handles("UPDATE", ("", "v1", "pods"), "")
        assert step.handles("UPDATE", ("", "v1", "pods"), "resize")


class TestPriority:
    CLASSES = "priorityclasses.scheduling.k8s.io"

    def test_no_class(self, view: DictView) -> None:
        item = pod()
        Priority(view).mutate(write("CREATE", "pods", item))
        assert item["spec"]["priority"] == 0
        assert item["spec"]["preemptionPolicy"] == "PreemptLowerPriority"

    def test_classes(self, view: DictView) -> None:
        view.put(self.CLASSES, named("high", value=1000, preemptionPolicy="Never"))
        view.put(self.CLASSES, named("usual", value=10, globalDefault=True, preemptionPolicy="PreemptLowerPriority"))
        step = Priority(view)
        item = pod(priorityClassName="high")
        step.mutate(write("CREATE", "pods", item))
        assert (item["spec"]["priority"], item["spec"]["preemptionPolicy"]) == (1000, "Never")
        item = pod()
        step.mutate(write("CREATE", "pods", item))
        assert (item["spec"]["priority"], item["spec"]["priorityClassName"]) == (10, "usual")
        item = pod(priorityClassName="system-node-critical")
        step.mutate(write("CREATE", "pods", item))
        assert item["spec"]["priority"] == 2000001000

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"priorityClassName": "none"}, "no PriorityClass with name none was found"),
            ({"priority": 5}, r"the integer value of priority \(5\) must not be provided in pod spec; priority admi"),
            ({"preemptionPolicy": "Never"}, r"the string value of PreemptionPolicy \(Never\) must not be provided"),
        ],
    )
    def test_refusals(self, view: DictView, spec: Object, why: str) -> None:
        with pytest.raises(status.Forbidden, match=why):
            Priority(view).mutate(write("CREATE", "pods", pod(**spec)))

    def test_update_keeps(self, view: DictView) -> None:
        item = pod()
        Priority(view).mutate(write("UPDATE", "pods", item, old=pod(priority=7, preemptionPolicy="Never")))
        assert (item["spec"]["priority"], item["spec"]["preemptionPolicy"]) == (7, "Never")

    def test_one_default(self, view: DictView) -> None:
        first = view.put(self.CLASSES, named("first", value=1, globalDefault=True))
        step = Priority(view)
        step.validate(write("UPDATE", self.CLASSES, first, old=first))
        with pytest.raises(status.Forbidden, match=r"PriorityClass first is already marked as default. Only one def"):
            step.validate(write("CREATE", self.CLASSES, named("second", value=1, globalDefault=True)))


def test_tolerations() -> None:
    step = DefaultTolerationSeconds()
    item = pod(tolerations=[{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 5}])
    step.mutate(write("CREATE", "pods", item))
    assert item["spec"]["tolerations"][1:] == [
        {
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
    ]
    everything = pod(tolerations=[{"operator": "Exists"}])
    step.mutate(write("CREATE", "pods", everything))
    assert len(everything["spec"]["tolerations"]) == 1


def test_merged_tolerations() -> None:
    wide = {"operator": "Exists"}
    narrow = {"key": "a", "operator": "Exists", "effect": "NoSchedule"}
    valued = {"key": "b", "operator": "Equal", "value": "x"}
    assert merged_tolerations([narrow], [narrow, valued]) == [narrow, valued]
    assert merged_tolerations([narrow, valued], [wide]) == [wide]
    brief = {"key": "c", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    longer = {**brief, "tolerationSeconds": 50}
    assert merged_tolerations([brief], [longer]) == [longer]


class TestRuntimeClass:
    def step(self, view: DictView) -> RuntimeClass:
        view.put(
            "runtimeclasses.node.k8s.io",
            named(
                "vm",
                overhead={"podFixed": {"cpu": "250m"}},
                scheduling={"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
            ),
        )
        return RuntimeClass(view)

    def test_overhead_and_scheduling(self, view: DictView) -> None:
        item = pod(runtimeClassName="vm", nodeSelector={"a": "b"})
        step = self.step(view)
        step.mutate(write("CREATE", "pods", item))
        assert item["spec"]["overhead"] == {"cpu": "250m"}
        assert item["spec"]["nodeSelector"] == {"a": "b", "vm": "yes"}
        assert item["spec"]["tolerations"] == [{"key": "vm", "operator": "Exists"}]
        step.validate(write("CREATE", "pods", item))

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"runtimeClassName": "no"}, 'pod rejected: RuntimeClass "no" not found'),
            (
                {"runtimeClassName": "vm", "overhead": {"cpu": "1"}},
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            ),
            (
                {"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}},
                r"conflict: runtimeClass.scheduling.nodeSelector\[vm\] = yes; pod.spec.nodeSelector\[vm\] = no",
            ),
        ],
    )
    def test_refusals(self, view: DictView, spec: Object, why: str) -> None:
        with pytest.raises(status.Forbidden, match=why):
            self.step(view).mutate(write("CREATE", "pods", pod(**spec)))

    def test_overhead_alone(self, view: DictView) -> None:
        with pytest.raises(status.Forbidden, match="Pod Overhead set without corresponding RuntimeClass defined"):
            self.step(view).validate(write("CREATE", "pods", pod(overhead={"cpu": "1"})))


def test_resizing(view: DictView) -> None:
    step = PodResizeValidator(view)

    def resize(cpu: str, node: str = "node") -> AdmissionRequest:
        container = {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}
        item = pod(nodeName=node, containers=[container])
        return write("UPDATE", "pods", item, old=pod(nodeName=node), subresource="resize")

    with pytest.raises(status.Forbidden, match='node "node" not found'):
        step.validate(resize("1"))
    node = {**named("node"), "status": {"allocatable": {"cpu": "2", "memory": "512Mi"}}}
    view.put("nodes", node)
    with pytest.raises(status.Forbidden) as caught:
        step.validate(resize("2500m"))
    assert caught.value.message == (
        'pods "p" is forbidden: Node didn\'t have enough allocatable resources: cpu, requested: 2500, allocatable: '
        "2000; memory, requested: 1073741824, allocatable: 536870912"
    )
    assert caught.value.causes == [{"reason": "NodeCapacity"}]
    node["status"]["allocatable"]["memory"] = "2Gi"
    with pytest.raises(status.Forbidden, match='pod resize is only supported on linux nodes, node "node" is ""'):
        step.validate(resize("1"))
    node["metadata"]["labels"] = {"kubernetes.io/os": "linux"}
    step.validate(resize("1"))
    step.validate(resize("99", node=""))


def test_topology_labels(view: DictView) -> None:
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"}
    view.put("nodes", named("node", metadata={"labels": labels}))
    step = PodTopologyLabels(view)
    item = pod(nodeName="node")
    item["metadata"]["labels"] = {"topology.kubernetes.io/zone": "mine"}
    step.mutate(write("CREATE", "pods", item))
    assert item["metadata"]["labels"] == {
        "topology.kubernetes.io/zone": "mine",
        "topology.kubernetes.io/region": "r",
    }
    binding: Object = {"metadata": {"name": "p", "namespace": "n"}, "target": {"kind": "Node", "name": "node"}}
    step.mutate(write("CREATE", "pods", binding, subresource="binding"))
    assert binding["metadata"]["labels"] == {key: labels[key] for key in step.LABELS}


def test_pulls_and_extended_resources() -> None:
    item = pod(containers=[{"name": "c", "resources": {"requests": {"vendor.com/gpu": "1", "cpu": "1"}}}])
    AlwaysPullImages().mutate(write("CREATE", "pods", item))
    ExtendedResourceToleration().mutate(write("CREATE", "pods", item))
    assert item["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert item["spec"]["tolerations"] == [{"key": "vendor.com/gpu", "operator": "Exists"}]


class TestStorage:
    def put(self, view: DictView, name: str, created: str, default: bool = True) -> None:
        noted = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
        meta = {"annotations": noted, "creationTimestamp": created}
        view.put("storageclasses.storage.k8s.io", named(name, metadata=meta, allowVolumeExpansion=name == "grows"))

    def claim(self, size: str = "1Gi", **more: Any) -> Object:
        spec = {"resources": {"requests": {"storage": size}}, **more}
        return named("c", metadata={"namespace": "n"}, spec=spec, status={"phase": "Bound"})

    def test_default_class_is_the_newest(self, view: DictView) -> None:
        step = DefaultStorageClass(view)
        item = self.claim()
        step.mutate(write("CREATE", "persistentvolumeclaims", item))
        assert "storageClassName" not in item["spec"]
        self.put(view, "a", "2025-01-02T00:00:00Z")
        self.put(view, "b", "2025-01-02T00:00:00Z")
        self.put(view, "c", "2025-01-01T00:00:00Z")
        self.put(view, "d", "2025-01-03T00:00:00Z", default=False)
        step.mutate(write("CREATE", "persistentvolumeclaims", item))
        assert item["spec"]["storageClassName"] == "a"
        told = self.claim(storageClassName="")
        step.mutate(write("CREATE", "persistentvolumeclaims", told))
        assert told["spec"]["storageClassName"] == ""

    def test_ingress_class(self, view: DictView) -> None:
        noted = {"ingressclass.kubernetes.io/is-default-class": "true"}
        view.put("ingressclasses.networking.k8s.io", named("web", metadata={"annotations": noted}))
        step = DefaultIngressClass(view)
        item = named("i", metadata={"namespace": "n"}, spec={})
        step.mutate(write("CREATE", "ingresses.networking.k8s.io", item))
        assert item["spec"] == {"ingressClassName": "web"}
        old = named("i", metadata={"namespace": "n", "annotations": {"kubernetes.io/ingress.class": "x"}}, spec={})
        step.mutate(write("CREATE", "ingresses.networking.k8s.io", old))
        assert old["spec"] == {}

    def test_external_addresses(self) -> None:
        service = named("s", metadata={"namespace": "n"}, spec={"externalIPs": ["192.0.2.1"]})
        step = DenyServiceExternalIPs()
        step.validate(write("UPDATE", "services", service, old=service))
        with pytest.raises(status.Forbidden, match="Use of external IPs is denied by admission control"):
            step.validate(write("CREATE", "services", service))

    def test_finalizers(self) -> None:
        step = StorageObjectInUseProtection()
        item = self.claim()
        for _ in range(2):
            step.mutate(write("CREATE", "persistentvolumeclaims", item))
        assert item["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        volume = named("v")
        step.mutate(write("CREATE", "persistentvolumes", volume))
        assert volume["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]

    def test_growth(self, view: DictView) -> None:
        self.put(view, "grows", "2025-01-01T00:00:00Z")
        self.put(view, "stays", "2025-01-01T00:00:00Z")
        step = PersistentVolumeClaimResize(view)

        def grow(name: str, size: str, **old: Any) -> AdmissionRequest:
            before = {**self.claim(storageClassName=name), **old}
            return write("UPDATE", "persistentvolumeclaims", self.claim(size, storageClassName=name), old=before)

        step.validate(grow("grows", "2Gi"))
        step.validate(grow("stays", "1Gi"))
        with pytest.raises(status.Forbidden, match="only dynamically provisioned pvc can be resized and the storagecl"):
            step.validate(grow("stays", "2Gi"))
        with pytest.raises(status.Forbidden, match="Only bound persistent volume claims can be expanded"):
            step.validate(grow("grows", "2Gi", status={"phase": "Pending"}))


def certificate_request(**subject: str) -> str:
    """Make a certificate request, as base64 of its PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    name = x509.Name.from_rfc4514_string(",".join(f"{key}={value}" for key, value in subject.items()))
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


NODE = User("system:node:one", groups=("system:nodes", "system:authenticated"))


class TestNodes:
    def test_new_nodes_are_tainted(self) -> None:
        item = named("one", spec={})
        for _ in range(2):
            TaintNodesByCondition().mutate(write("CREATE", "nodes", item))
        assert item["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]

    def mirror(self, **owner: Any) -> Object:
        item = pod(nodeName="one")
        item["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        reference = {"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "u", "controller": True, **owner}
        item["metadata"]["ownerReferences"] = [reference]
        return item

    def refused(self, view: DictView, request: AdmissionRequest) -> str:
        with pytest.raises(status.Forbidden) as caught:
            NodeRestriction(view).mutate(request)
        return caught.value.message.partition("is forbidden: ")[2]

    def test_mirror_pods(self, view: DictView) -> None:
        view.put("nodes", named("one", metadata={"uid": "u"}))
        step = NodeRestriction(view)
        step.mutate(write("CREATE", "pods", self.mirror(), user=NODE))
        step.mutate(write("CREATE", "pods", pod()))
        assert "can only create mirror pods" in self.refused(view, write("CREATE", "pods", pod(), user=NODE))
        stranger = self.mirror(uid="v")
        assert self.refused(view, write("CREATE", "pods", stranger, user=NODE)) == (
            "node one UID mismatch: expected v got u"
        )
        curious = self.mirror()
        curious["spec"]["volumes"] = [{"name": "v", "configMap": {"name": "x"}}]
        assert self.refused(view, write("CREATE", "pods", curious, user=NODE)) == (
            'node "one" can not create pods that reference configmaps'
        )

    def test_pods_of_others(self, view: DictView) -> None:
        item = view.put("pods", pod(nodeName="two"))
        said = self.refused(view, write("DELETE", "pods", None, old=item, user=NODE))
        assert said == 'node "one" can only delete pods with spec.nodeName set to itself'
        said = self.refused(view, write("UPDATE", "pods", item, old=item, subresource="status", user=NODE))
        assert said == 'node "one" can only update pod status for pods with spec.nodeName set to itself'

    def test_labels(self, view: DictView) -> None:
        good = {"kubernetes.io/hostname": "one", "x.kubelet.kubernetes.io/a": "b", "free": "x"}
        NodeRestriction(view).mutate(write("CREATE", "nodes", named("one", metadata={"labels": good}), user=NODE))
        bad = {"node-restriction.kubernetes.io/a": "b", "x.k8s.io/y": "z"}
        said = self.refused(view, write("CREATE", "nodes", named("one", metadata={"labels": bad}), user=NODE))
        assert said == (
            'node "one" is not allowed to set the following labels: node-restriction.kubernetes.io/a, x.k8s.io/y'
        )
        said = self.refused(view, write("UPDATE", "nodes", named("two"), old=named("two"), user=NODE))
        assert said == 'node "one" is not allowed to modify node "two"'

    def test_leases_and_tokens(self, view: DictView) -> None:
        lease = named("one", metadata={"namespace": "kube-node-lease"})
        NodeRestriction(view).mutate(write("CREATE", "leases.coordination.k8s.io", lease, user=NODE))
        other = named("two", metadata={"namespace": "kube-node-lease"})
        said = self.refused(view, write("CREATE", "leases.coordination.k8s.io", other, user=NODE))
        assert said == "can only access node lease with the same name as the requesting node"
        token: Object = {"metadata": {"name": "default", "namespace": "n"}, "spec": {"audiences": ["a"]}}
        said = self.refused(view, write("CREATE", "serviceaccounts", token, subresource="token", user=NODE))
        assert said == "node requested token not bound to a pod"
        view.put("pods", pod(nodeName="one"))
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-pods-n-p"}
        token["spec"]["boundObjectRef"] = bound
        said = self.refused(view, write("CREATE", "serviceaccounts", token, subresource="token", user=NODE))
        assert said == (
            'audience "a" not found in pod spec volume, system:node:one is not authorized to request tokens for this '
            "audience"
        )
        token["spec"]["audiences"] = ["a", "b"]
        said = self.refused(view, write("CREATE", "serviceaccounts", token, subresource="token", user=NODE))
        assert said == "node may only request 0 or 1 audiences"
        token["spec"]["audiences"] = ["a"]
        rules = Rules(("system:node:one", "request-serviceaccounts-token-audience", "a", "default"))
        NodeRestriction(view, rules).mutate(write("CREATE", "serviceaccounts", token, subresource="token", user=NODE))

    def test_certificates(self, view: DictView) -> None:
        def csr(common: str) -> Object:
            spec = {"signerName": "kubernetes.io/kubelet-serving", "request": certificate_request(CN=common)}
            return named("r", spec=spec)

        resource = TestCertificates.CSRS
        NodeRestriction(view).mutate(write("CREATE", resource, csr("system:node:one"), user=NODE))
        said = self.refused(view, write("CREATE", resource, csr("system:node:two"), user=NODE))
        assert said == "can only create a node CSR with CN=system:node:one"


class TestCertificates:
    CSRS = "certificatesigningrequests.certificates.k8s.io"

    def item(self, **spec: Any) -> Object:
        return named("r", spec={"signerName": "example.com/x", **spec})

    def test_approval_and_signing(self) -> None:
        user = User("eve")
        rules = Rules(("eve", "approve", "signers", "example.com/*"))
        old = self.item()
        request = write("UPDATE", self.CSRS, self.item(), old=old, subresource="approval", user=user)
        CertificateApproval(rules).validate(request)
        with pytest.raises(status.Forbidden, match='not permitted to approve requests with signerName "exa'):
            CertificateApproval(Rules()).validate(request)
        signed = {**self.item(), "status": {"certificate": "x"}}
        request = write("UPDATE", self.CSRS, signed, old=old, subresource="status", user=user)
        with pytest.raises(status.Forbidden, match="user not permitted to sign requests with signerName"):
            CertificateSigning(rules).validate(request)
        CertificateSigning(rules).validate(
            write("UPDATE", self.CSRS, self.item(), old=old, subresource="status", user=user)
        )

    def test_attest(self) -> None:
        bundle = self.item()
        step = ClusterTrustBundleAttest(Rules())
        with pytest.raises(status.Forbidden, match="user not permitted to attest for signerName"):
            step.validate(write("CREATE", "certificatesigningrequests.certificates.k8s.io", bundle))

    def test_subjects(self) -> None:
        def csr(organization: str) -> str:
            return certificate_request(O=organization)

        step = CertificateSubjectRestriction()
        signer = "kubernetes.io/kube-apiserver-client"
        step.validate(write("CREATE", self.CSRS, self.item(signerName=signer, request=csr("devs"))))
        with pytest.raises(status.Forbidden, match=r"use of kubernetes\.io/kube-apiserver-client signer"):
            step.validate(write("CREATE", self.CSRS, self.item(signerName=signer, request=csr("system:masters"))))
        with pytest.raises(status.Forbidden, match="failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"):
            step.validate(write("CREATE", self.CSRS, self.item(signerName=signer, request="###")))


def test_owner_references() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "blockOwnerDeletion": True}
    item = pod()
    item["metadata"]["ownerReferences"] = [owner]
    user = User("eve")
    request = write("CREATE", "pods", item, user=user)

    def resources(version: str, kind: str) -> tuple[str, bool] | None:
        return ("replicasets", True) if kind == "ReplicaSet" else None

    with pytest.raises(status.Forbidden, match="cannot set an ownerRef on a resource you can't delete: no rule, <nil>"):
        OwnerReferencesPermissionEnforcement(Rules(), resources).validate(request)
    rules = Rules(("eve", "delete", "pods", "p"))
    with pytest.raises(status.Forbidden, match="resource you can't set finalizers on"):
        OwnerReferencesPermissionEnforcement(rules, resources).validate(request)
    rules.allowed.add(("eve", "update", "replicasets", "rs"))
    OwnerReferencesPermissionEnforcement(rules, resources).validate(request)
    with pytest.raises(status.Forbidden, match="cannot find RESTMapping for APIVersion apps/v1 Kind ReplicaSet"):
        OwnerReferencesPermissionEnforcement(rules, lambda version, kind: None).validate(request)
