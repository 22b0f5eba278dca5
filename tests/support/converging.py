"""Plays recorded scenarios of the real kube-controller-manager against ours and compares where they settle.

A scenario creates, changes and deletes objects; the player is scheduler and node agent of one made-up node. At each
settle point the objects are reduced to what a user can rely on, with placeholders for what is random.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pilothouse.kinds.status import ApiStatus
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane

__all__ = ["NODE", "Player", "differences"]

NODE: Final = "golden-node"
_PATHS: Final = {
    "Deployment": "/apis/apps/v1/{ns}/deployments",
    "ReplicaSet": "/apis/apps/v1/{ns}/replicasets",
    "StatefulSet": "/apis/apps/v1/{ns}/statefulsets",
    "DaemonSet": "/apis/apps/v1/{ns}/daemonsets",
    "ControllerRevision": "/apis/apps/v1/{ns}/controllerrevisions",
    "Job": "/apis/batch/v1/{ns}/jobs",
    "CronJob": "/apis/batch/v1/{ns}/cronjobs",
    "Pod": "/api/v1/{ns}/pods",
    "Service": "/api/v1/{ns}/services",
    "Endpoints": "/api/v1/{ns}/endpoints",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/{ns}/endpointslices",
    "PodDisruptionBudget": "/apis/policy/v1/{ns}/poddisruptionbudgets",
    "ResourceQuota": "/api/v1/{ns}/resourcequotas",
    "ConfigMap": "/api/v1/{ns}/configmaps",
    "ServiceAccount": "/api/v1/{ns}/serviceaccounts",
    "PersistentVolumeClaim": "/api/v1/{ns}/persistentvolumeclaims",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/{ns}/horizontalpodautoscalers",
    "ReplicationController": "/api/v1/{ns}/replicationcontrollers",
    "Event": "/api/v1/{ns}/events",
}
_TYPES: Final = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json",
}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASH: Final = re.compile(r"\b[0-9a-f]{8,10}\b|\b[bcdfghjklmnpqrstvwxz2456789]{8,10}\b")
_SUFFIX: Final = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b")
_STEPS: Final = re.compile(r"\.(ReplicaSet|EndpointSlice)\[\d+\]\.(generation|status\.observedGeneration): ")
"""How many steps it took: that depends on which pods got ready or went together, for the real controllers as well."""
_PAUSE: Final = 0.02
_ROUNDS: Final = 3


class Player:
    """Plays scenarios on one control plane, for which a manager runs the controllers."""

    def __init__(self, plane: ControlPlane, manager: Manager) -> None:
        self._plane = plane
        self._manager = manager
        self._namespace = ""

    async def play(self, scenario: Mapping[str, Any], *, limit: float = 20.0) -> list[str]:
        """Play a scenario; return how it differs from the recording. limit: seconds for each settle point."""
        self._namespace = scenario["namespace"]
        await self._prepare()
        rules: Mapping[str, Any] = {}
        found: list[str] = []
        for step in scenario["steps"]:
            rules = step.get("node", rules)
            if "method" in step:
                await self._be_newer(step)
                await self._call(step["method"], step["path"], step.get("body"), step.get("type", "json"))
            if "wait" in step:
                await asyncio.sleep(step["wait"])
            if "settle" in step:
                gap = await self._settle(rules, step["settle"], step["snapshot"], step.get("limit", limit))
                found += [f"{step['label']}{line}" for line in gap]
        return found

    async def _be_newer(self, step: Mapping[str, Any]) -> None:
        """Let a second begin before a pod is made by itself: controllers that have too many keep the older ones."""
        if step["method"] == "POST" and step["path"].endswith("/pods"):
            await asyncio.sleep(1 - time.time() % 1)

    async def _prepare(self) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        }
        room = {"cpu": "32", "memory": "64Gi", "pods": "500"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}
        status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
        await self._call("POST", "/api/v1/nodes", node)
        await self._call("PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"taints": None}}, "merge")
        await self._call("PATCH", f"/api/v1/nodes/{NODE}/status", status, "strategic")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
        await self._call("POST", "/api/v1/namespaces", namespace)
        await self._plane.wait_for(f"/api/v1/namespaces/{self._namespace}/serviceaccounts/default")

    async def _call(self, method: str, path: str, body: Any = None, kind: str = "json") -> Any:
        target = path.replace("{ns}", f"namespaces/{self._namespace}")
        try:
            return await self._plane.call(method, target, body, content_type=_TYPES[kind])
        except ApiStatus as error:
            if error.code == 404 or (error.code == 409 and method == "POST"):
                return {}
            raise

    async def _items(self, kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self._call("GET", _PATHS[kind])).get("items") or []
        return items

    async def _settle(self, rules: Any, kinds: list[str], expected: Any, limit: float) -> list[str]:
        """Play until the recorded state is reached, at most for `limit` seconds; return what differs then."""
        end = time.monotonic() + limit
        while True:
            await self._play_node(rules)
            now = {kind: _rows(kind, await self._items(kind)) for kind in kinds}
            wanted = {kind: _ordered(rows) for kind, rows in expected.items()}
            gap = [line for line in differences(wanted, now) if not _STEPS.search(line)]
            if not gap or time.monotonic() > end:
                return gap
            await self._quiet()

    async def _quiet(self) -> None:
        """Let the controllers do all that they can: how many steps they take depends on it."""
        quiet = 0
        while quiet < _ROUNDS:
            await asyncio.sleep(_PAUSE)
            quiet = quiet + 1 if all(each.is_idle for each in self._manager.controllers) else 0

    async def _play_node(self, rules: Mapping[str, Any]) -> None:
        for pod in await self._items("Pod"):
            path = f"/api/v1/{{ns}}/pods/{pod['metadata']['name']}"
            if pod["metadata"].get("deletionTimestamp"):
                if rules.get("delete", True):
                    await self._call("DELETE", path + "?gracePeriodSeconds=0")
                continue
            wanted = _wanted(rules, pod)
            if wanted == "unscheduled":
                continue
            if not pod["spec"].get("nodeName"):
                binding = {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": pod["metadata"]["name"]},
                    "target": {"kind": "Node", "name": _target(pod)},
                }
                await self._call("POST", path + "/binding", binding)
            have = pod["metadata"].get("annotations", {}).get("golden/as")
            if wanted in (have, "bound"):
                continue
            await self._call("PATCH", path, {"metadata": {"annotations": {"golden/as": wanted}}}, "merge")
            await self._call("PATCH", path + "/status", {"status": _status(pod, wanted)}, "strategic")


def _wanted(rules: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    labels, image = pod["metadata"].get("labels") or {}, pod["spec"]["containers"][0]["image"]
    for rule in rules.get("pods", ()):
        if (
            rule.get("match", {}).items() <= labels.items()
            and rule.get("image") in (None, image)
            and re.search(rule.get("name", ""), pod["metadata"]["name"])
        ):
            return str(rule["as"])
    return str(rules.get("default", "ready"))


def _target(pod: Mapping[str, Any]) -> str:
    """Return the node that a pod asks for by name, as those of daemon sets do."""
    try:
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        return str(required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])
    except KeyError:
        return NODE


def _status(pod: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    phase = {"ready": "Running", "running": "Running", "succeeded": "Succeeded", "failed": "Failed"}[wanted]
    ready, now = wanted == "ready", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state: dict[str, Any] = {"running": {"startedAt": now}}
    if phase != "Running":
        well = phase == "Succeeded"
        ended = {"exitCode": 0 if well else 1, "reason": "Completed" if well else "Error"}
        state = {"terminated": {**ended, "startedAt": now, "finishedAt": now}}
    return {
        "phase": phase,
        "podIP": "10.9.0.1",
        "podIPs": [{"ip": "10.9.0.1"}],
        "hostIP": "10.8.0.1",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": str(ready or kind == "PodScheduled"), "lastTransitionTime": now}
            for kind in ("PodScheduled", "Ready", "ContainersReady")
        ],
        "containerStatuses": [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            }
            for one in pod["spec"]["containers"]
        ],
    }


def _rows(kind: str, items: list[dict[str, Any]]) -> list[Any]:
    rows = [_reduced(kind, each) for each in items]
    if kind == "Event":  # which of several alike is no matter
        rows = [json.loads(row) for row in {json.dumps(row, sort_keys=True) for row in rows}]
    return _ordered(rows)


def _ordered(rows: Iterable[Any]) -> list[Any]:
    """Order rows by what does not depend on how many steps it took to get there."""

    def what(row: Any) -> str:
        return json.dumps({name: each for name, each in row.items() if name != "generation"}, sort_keys=True)

    return sorted(rows, key=what)


def _reduced(kind: str, obj: dict[str, Any]) -> Any:
    if kind == "Event":
        source = (obj.get("source") or {}).get("component") or obj.get("reportingComponent")
        about = {"object": obj["involvedObject"]["kind"], "source": source}
        return _scrubbed({**about, **{name: obj.get(name) for name in ("type", "reason", "message")}})
    metadata = obj["metadata"]
    out = {name: metadata[name] for name in ("name", "labels", "finalizers", "generation") if metadata.get(name)}
    if notes := {name: note for name, note in (metadata.get("annotations") or {}).items() if not _is_volatile(name)}:
        out["annotations"] = notes
    if metadata.get("deletionTimestamp"):
        out["deleting"] = True
    if metadata.get("ownerReferences"):
        fields = ("apiVersion", "kind", "name", "controller", "blockOwnerDeletion")
        out["owners"] = [{name: owner.get(name) for name in fields} for owner in metadata["ownerReferences"]]
    out |= _of_kind(kind, obj, obj.get("spec", {}))
    if status := _status_of(kind, obj.get("status", {})):
        out["status"] = status
    return _scrubbed(out)


def _is_volatile(annotation: str) -> bool:
    return annotation.startswith("golden/") or "trigger-time" in annotation or annotation == "kubernetes.io/description"


def _status_of(kind: str, status: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "Pod":
        return {"phase": status.get("phase")}
    found = dict(status)
    if isinstance(found.get("conditions"), list):
        found["conditions"] = sorted(found["conditions"], key=lambda condition: condition.get("type", ""))
    return found


def _of_kind(kind: str, obj: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    match kind:
        case "Pod":
            claims = [one["persistentVolumeClaim"] for one in spec.get("volumes", ()) if "persistentVolumeClaim" in one]
            found = {"node": "nodeName", "hostname": "hostname", "subdomain": "subdomain"}
            return {
                **{name: spec.get(field) for name, field in found.items()},
                "claims": [claim["claimName"] for claim in claims],
            }
        case "EndpointSlice":
            return {name: obj.get(name) for name in ("endpoints", "ports", "addressType")}
        case "Endpoints":
            return {"subsets": obj.get("subsets")}
        case "ConfigMap":
            return {"keys": sorted(obj.get("data", {}))}
        case "Job":
            return {"spec": {name: value for name, value in spec.items() if name != "template"}}
        case "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController":
            return {"replicas": spec.get("replicas")}
    return {}


def _scrubbed(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _scrubbed(each, name) for name, each in value.items() if name != "managedFields"}
    if isinstance(value, list):
        return [_scrubbed(each, key) for each in value]
    if isinstance(value, str):
        if key == "resourceVersion":
            return "<rv>"
        value = _UID.sub("<uid>", _TIME.sub("<time>", value))
        return _HASH.sub("<hash>", _SUFFIX.sub("-<id>", value))
    return value


def differences(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """Give each place where two snapshots differ, with both values."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in sorted(expected.keys() | actual.keys()):
            yield from differences(expected.get(name), actual.get(name), f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(one, other, f"{path}[{place}]")
    elif expected != actual:
        yield f"{path}: expected {json.dumps(expected)[:240]}, got {json.dumps(actual)[:240]}"
