"""Defaults of the apps group."""

from __future__ import annotations

from pilothouse.kinds.defaults.core import claim
from pilothouse.kinds.defaults.fill import Object, Table, child, fill_empty, fill_missing, items
from pilothouse.kinds.defaults.pods import pod_template

__all__ = ["DEFAULTERS"]

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_DEPLOYMENT: Table = (("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600))
_STATEFUL_SET: Table = (("replicas", 1), ("revisionHistoryLimit", 10), ("serviceName", ""))
_RETENTION: Table = (("whenDeleted", "Retain"), ("whenScaled", "Retain"))


def _rolling(strategy: Object, table: Table) -> None:
    fill_empty(strategy, (("type", "RollingUpdate"),))
    if strategy["type"] == "RollingUpdate":
        fill_missing(child(strategy, "rollingUpdate"), table)


def _deployment(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, _DEPLOYMENT)
    _rolling(child(spec, "strategy"), (("maxUnavailable", "25%"), ("maxSurge", "25%")))
    fill_missing(spec, (("selector", None),))
    pod_template(spec)


def _daemon_set(obj: Object) -> None:
    child(obj, "metadata").setdefault("annotations", {}).setdefault(_TEMPLATE_GENERATION, "0")
    spec = child(obj, "spec")
    fill_missing(spec, (("revisionHistoryLimit", 10), ("selector", None)))
    _rolling(child(spec, "updateStrategy"), (("maxUnavailable", 1), ("maxSurge", 0)))
    pod_template(spec)


def _replica_set(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("replicas", 1), ("selector", None)))
    pod_template(spec)


def _stateful_set(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (*_STATEFUL_SET, ("selector", None)))
    fill_empty(spec, (("podManagementPolicy", "OrderedReady"),))
    strategy = child(spec, "updateStrategy")
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        child(strategy, "rollingUpdate")
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        fill_missing(strategy["rollingUpdate"], (("partition", 0),))
    fill_empty(child(spec, "persistentVolumeClaimRetentionPolicy"), _RETENTION)
    pod_template(spec)
    for template in items(spec, "volumeClaimTemplates"):
        fill_empty(template, (("kind", "PersistentVolumeClaim"), ("apiVersion", "v1")))
        claim(template)


def _controller_revision(obj: Object) -> None:
    fill_missing(obj, (("revision", 0),))


DEFAULTERS = {
    "ControllerRevision": _controller_revision,
    "DaemonSet": _daemon_set,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
}
