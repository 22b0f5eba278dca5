"""Manifests of many kinds as people write them: what a server makes of them is no drift, now or after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.delivery.gitops.comparing import MANAGER, compare
from pilothouse.delivery.gitops.manifests import read_documents
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.status import Invalid
from pilothouse.testing import ControlPlane
from support.gitopskit import Begin
from support.gitrepo import GitRepo

KINDS = {
    "statefulset": """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}, creationTimestamp: null}
    spec:
      containers:
      - name: db
        image: db:1
        resources: {requests: {cpu: 0.5, memory: 1024Mi}, limits: {cpu: 2000m}}
        env:
        - {name: A, value: ""}
        - name: B
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        volumeMounts: [{name: data, mountPath: /data}]
        readinessProbe: {tcpSocket: {port: 5432}}
      volumes:
      - name: conf
        projected:
          sources:
          - serviceAccountToken: {path: token}
          - configMap: {name: c, items: [{key: a, path: b}]}
      tolerations: [{key: x, operator: Exists}]
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 1
            podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {app: db}}}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1024Mi}}}
""",
    "daemonset": """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {hostNetwork: true, containers: [{name: a, image: a, ports: [{containerPort: 9100}]}]}
""",
    "cronjob": """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: c}]}}}
""",
    "job": """\
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: c}]}}}
""",
    "autoscaler": """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: db}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}
  minReplicas: 1
  maxReplicas: 4
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60}}
""",
    "policy": """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{ports: [{port: 5432}], from: [{podSelector: {matchLabels: {app: web}}}]}]
""",
    "services": """\
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {note: null}}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: u, port: 80, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: a.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
""",
    "secrets": """\
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hunter2, empty: ""}
data: {token: aGk=}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: app}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 0.5Gi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {cpu: "10", requests.memory: 10240Mi}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec: {limits: [{type: Container, default: {cpu: 1000m}}]}
""",
    "rights": """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: shop-reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: shop-reader}
subjects: [{kind: ServiceAccount, name: app, namespace: default}, {kind: User, name: ada}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {minAvailable: 50%, selector: {matchLabels: {app: db}}}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: example.com/disk
""",
    "definition": """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com, creationTimestamp: null}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
status: {acceptedNames: {kind: "", plural: ""}, conditions: [], storedVersions: []}
""",
    "webhook": """\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: checks}
webhooks:
- name: check.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {service: {name: web, namespace: default}}
  rules: [{apiGroups: [example.com], apiVersions: [v1], operations: [CREATE], resources: [boats]}]
""",
    "rollout": """\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "shop:1", ports: [{containerPort: 80}], resources: {limits: {cpu: 1000m}}}]}
  strategy:
    canary:
      steps: [{setWeight: 20}, {pause: {duration: 1m}}, {setWeight: 50}, {pause: {}}]
""",
}


@pytest.mark.slow
async def test_nothing_is_out_of_sync_for_ever(begin: Begin, repo: GitRepo) -> None:
    repo.commit({f"app/{name}.yaml": text for name, text in KINDS.items()})
    async with begin() as world:
        clock = world.harness.clock
        await install_kinds(world.client, [Rollout])
        await world.make()
        await world.settle(3)
        app = await world.app()
        assert app.status.operation_state is not None
        assert app.status.operation_state.phase == "Succeeded", app.status.operation_state.message
        drift = [(str(key), *each) for key, each in world.gitops.drift(app)]
        assert drift == []
        assert app.status.sync.status == "Synced"
        assert len(app.status.history) == 1
    async with begin(clock) as world:
        await world.settle(3)
        assert world.gitops.operator.executor.requests == 0
        assert (await world.app()).status.sync.status == "Synced"


def served(obj: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs by itself."""
    varying = {"managedFields", "resourceVersion", "generation"}
    return {**obj, "metadata": {name: value for name, value in obj["metadata"].items() if name not in varying}}


def changes() -> list[dict[str, Any]]:
    """Return changes that people and controllers make by hand, as merge patches of a StatefulSet."""
    container = {"name": "db", "image": "db:1"}
    return [
        {"spec": {"replicas": 5}},
        {"metadata": {"labels": {"own": "1"}}},
        {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": None}}},
        {"spec": {"template": {"metadata": {"annotations": {"restartedAt": "now"}}}}},
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}},
        {"spec": {"template": {"spec": {"containers": [container]}}}},
        {"spec": {"template": {"spec": {"containers": [{**container, "env": [{"name": "C", "value": "3"}]}]}}}},
        {"spec": {"template": {"spec": {"tolerations": [{"key": "x", "operator": "Exists", "effect": "NoExecute"}]}}}},
        {"spec": {"template": {"spec": {"volumes": None}}}},
        {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}},
        {"spec": {"minReadySeconds": 3}},
        {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}},
    ]


async def test_drift_is_what_a_real_apply_would_change(plane: ControlPlane) -> None:
    """The comparison, which asks nobody, says the same as the server when it is asked."""
    (document,) = [value for _, value in read_documents("f.yaml", KINDS["statefulset"].encode())]
    async with Client.for_transport(plane.transport, plane.user) as client:
        handle = client.dynamic("apps/v1", "StatefulSet")
        changed = 0
        for number, patch in enumerate(changes()):
            name = f"db{number}"
            mark = {"argocd.argoproj.io/tracking-id": f"shop:apps/StatefulSet:default/{name}"}
            wanted = {**document, "metadata": {"name": name, "namespace": "default", "annotations": mark}}
            live = await handle.apply(wanted, force=True, field_manager=MANAGER)
            assert compare(wanted, live) == []
            try:
                live = await handle.patch(name, patch, "default", field_manager="hand")
            except Invalid:
                continue  # what a server does not let anybody change
            after = await handle.apply(wanted, force=True, field_manager=MANAGER, dry_run=True)
            drift = compare(wanted, live)
            assert bool(drift) is (served(after) != served(live)), (patch, drift)
            changed += bool(drift)
        assert changed >= 4
