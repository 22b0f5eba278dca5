"""Random clusters and pods, with all that filters and scores look at, few enough that they get in each other's way."""

from __future__ import annotations

import random
from typing import Any

Object = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
MB = 1024 * 1024


class Maker:
    """Makes objects from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pods = 0

    def some(self, chance: float) -> bool:
        return self.random.random() < chance

    def node(self, number: int) -> Object:
        pick = self.random
        labels = {HOSTNAME: f"n{number}", "disk": pick.choice(["ssd", "hdd"]), "cores": str(pick.randrange(1, 9))}
        if self.some(0.85):
            labels[ZONE] = pick.choice("abc")
        taints = []
        if self.some(0.2):
            taints.append(
                {"key": "team", "value": pick.choice("xy"), "effect": pick.choice(["NoSchedule", "NoExecute"])}
            )
        if self.some(0.3):
            taints.append({"key": "old", "effect": "PreferNoSchedule"})
        images = [
            {"names": [f"shop/{name}:latest"], "sizeBytes": pick.choice([10, 300, 900]) * MB}
            for name in ("web", "db")
            if self.some(0.4)
        ]
        allocatable = {"cpu": pick.choice(["2", "3", "4"]), "memory": pick.choice(["2Gi", "4Gi"]), "pods": "6"}
        if self.some(0.3):
            allocatable["example.com/gpu"] = "2"
        return {
            "metadata": {"name": f"n{number}", "labels": labels},
            "spec": {"taints": taints, **({"unschedulable": True} if self.some(0.1) else {})},
            "status": {"allocatable": allocatable, "images": images},
        }

    def selector(self) -> Object:
        if self.some(0.3):
            operator = self.random.choice(["In", "NotIn", "Exists", "DoesNotExist"])
            values = {"values": ["web", "db"][: self.random.randrange(1, 3)]} if "In" in operator else {}
            return {"matchExpressions": [{"key": "app", "operator": operator, **values}]}
        return {"matchLabels": {"app": self.random.choice(["web", "db", "cache"])}}

    def term(self) -> Object:
        term: Object = {"topologyKey": self.random.choice([HOSTNAME, ZONE]), "labelSelector": self.selector()}
        if self.some(0.2):
            term["namespaces"] = ["blue"]
        if self.some(0.2):
            term["namespaceSelector"] = self.random.choice([{}, {"matchLabels": {"tier": "front"}}])
        if self.some(0.2):
            term[self.random.choice(["matchLabelKeys", "mismatchLabelKeys"])] = ["version"]
        return term

    def node_term(self) -> Object:
        one = self.random.choice(
            [
                {"key": "disk", "operator": "In", "values": ["ssd"]},
                {"key": ZONE, "operator": "NotIn", "values": ["a"]},
                {"key": ZONE, "operator": "Exists"},
                {"key": "gpu", "operator": "DoesNotExist"},
                {"key": "cores", "operator": "Gt", "values": ["3"]},
                {"key": "cores", "operator": "Lt", "values": ["5"]},
            ]
        )
        return {"matchExpressions": [one]}

    def affinity(self) -> Object:
        pick, found = self.random, {}
        if self.some(0.3):
            node: Object = {}
            if self.some(0.5):
                node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [self.node_term()]}
            if self.some(0.6):
                node["preferredDuringSchedulingIgnoredDuringExecution"] = [
                    {"weight": pick.randrange(1, 100), "preference": self.node_term()}
                    for _ in range(pick.randrange(1, 3))
                ]
            found["nodeAffinity"] = node
        for kind, chance in (("podAffinity", 0.15), ("podAntiAffinity", 0.2)):
            if self.some(2 * chance):
                pod: Object = {}
                if self.some(0.5):
                    pod["requiredDuringSchedulingIgnoredDuringExecution"] = [
                        self.term() for _ in range(pick.randrange(1, 3))
                    ]
                if self.some(0.5):
                    pod["preferredDuringSchedulingIgnoredDuringExecution"] = [
                        {"weight": pick.randrange(1, 100), "podAffinityTerm": self.term()}
                    ]
                found[kind] = pod
        return found

    def constraint(self) -> Object:
        pick = self.random
        found: Object = {
            "topologyKey": pick.choice([HOSTNAME, ZONE]),
            "maxSkew": pick.randrange(1, 3),
            "whenUnsatisfiable": pick.choice(["DoNotSchedule", "ScheduleAnyway"]),
            "labelSelector": self.selector(),
        }
        if found["whenUnsatisfiable"] == "DoNotSchedule" and self.some(0.3):
            found["minDomains"] = pick.randrange(1, 5)
        if self.some(0.3):
            found["nodeTaintsPolicy"] = "Honor"
        if self.some(0.2):
            found["nodeAffinityPolicy"] = "Ignore"
        if self.some(0.2):
            found["matchLabelKeys"] = ["version"]
        return found

    def container(self, name: str) -> Object:
        pick, requests = self.random, {}
        if self.some(0.8):
            requests["cpu"] = pick.choice(["100m", "500m", "1"])
        if self.some(0.7):
            requests["memory"] = pick.choice(["100Mi", "512Mi", "1Gi"])
        if self.some(0.1):
            requests["example.com/gpu"] = "1"
        found: Object = {
            "name": name,
            "image": pick.choice(["shop/web", "shop/db"]),
            "resources": {"requests": requests},
        }
        if self.some(0.1):
            port: Object = {"containerPort": 80, "hostPort": pick.choice([80, 443])}
            if self.some(0.5):
                port["hostIP"] = pick.choice(["127.0.0.1", "10.0.0.1"])
            found["ports"] = [port]
        return found

    def pod(self, priority: int | None = None) -> Object:
        pick = self.random
        self.pods += 1
        spec: Object = {
            "containers": [self.container("one")],
            "priority": pick.randrange(3) if priority is None else priority,
        }
        if self.some(0.2):
            spec["initContainers"] = [self.container("init")]
        if self.some(0.1):
            spec["nodeSelector"] = {"disk": "ssd"}
        if self.some(0.5):
            spec["affinity"] = self.affinity()
        if self.some(0.3):
            spec["topologySpreadConstraints"] = [self.constraint() for _ in range(pick.randrange(1, 3))]
        if self.some(0.4):
            spec["tolerations"] = [
                pick.choice(
                    [
                        {"operator": "Exists"},
                        {"key": "team", "value": "x", "effect": "NoSchedule"},
                        {"key": "team", "operator": "Exists"},
                        {"key": "old", "operator": "Exists", "effect": "PreferNoSchedule"},
                    ]
                )
            ]
        return {
            "metadata": {
                "name": f"p{self.pods}",
                "uid": f"uid-{self.pods:04}",
                "namespace": pick.choice(["green", "blue"]),
                "labels": {"app": pick.choice(["web", "db", "cache"]), "version": pick.choice("12")},
            },
            "spec": spec,
            "status": {"startTime": f"2025-01-01T00:00:{self.pods % 60:02}Z"},
        }
