"""Figures of a node as others read them: `/stats/summary`, and texts for Prometheus. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .figures import ContainerFigures, Figures, NodeFigures, PodFigures

__all__ = ["cadvisor_metrics", "resource_metrics", "summary"]

Object = dict[str, Any]
_NO_ERROR = (
    "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n"
    "# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n"
)


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cpu(moment: int, used: int, rate: int | None) -> Object:
    made: Object = {"time": _time(moment), "usageCoreNanoSeconds": used}
    return made if rate is None else made | {"usageNanoCores": rate}


def _container(one: ContainerFigures) -> Object:
    stats = one.stats
    memory = {
        "time": _time(stats.timestamp),
        "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes,
    }
    made: Object = {
        "name": one.name,
        "startTime": _time(one.started_at),
        "cpu": _cpu(stats.timestamp, stats.cpu_usage_ns, one.cpu_nanocores),
        "memory": memory,
    }
    if stats.filesystem is not None:
        made["rootfs"] = {
            "time": _time(stats.timestamp),
            "usedBytes": stats.filesystem.used_bytes,
            "inodesUsed": stats.filesystem.inodes_used,
        }
    return made


def _pod(pod: PodFigures, volumes: Sequence[Object]) -> Object:
    stats = [one.stats for one in pod.containers]
    rates = [one.cpu_nanocores for one in pod.containers if one.cpu_nanocores is not None]
    moment = max((each.timestamp for each in stats), default=pod.started_at)
    made: Object = {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": _time(pod.started_at),
        "containers": [_container(one) for one in pod.containers],
        "cpu": _cpu(
            moment, sum(each.cpu_usage_ns for each in stats), sum(rates) if len(rates) == len(stats) and rates else None
        ),
        "memory": {
            "time": _time(moment),
            "usageBytes": sum(each.memory_usage_bytes for each in stats),
            "workingSetBytes": sum(each.memory_working_set_bytes for each in stats),
            "rssBytes": sum(each.memory_rss_bytes for each in stats),
        },
        "process_stats": {"process_count": sum(each.pids for each in stats)},
    }
    return made | ({"volume": list(volumes)} if volumes else {})


def _node(name: str, node: NodeFigures) -> Object:
    moment = _time(node.timestamp)
    capacity, available, used, inodes, free = node.filesystem
    return {
        "nodeName": name,
        "startTime": _time(node.started_at),
        "cpu": _cpu(node.timestamp, node.cpu_ns, node.cpu_nanocores),
        "memory": {
            "time": moment,
            "availableBytes": node.memory_available,
            "usageBytes": node.memory_capacity - node.memory_available,
            "workingSetBytes": node.memory_working_set,
            "rssBytes": node.memory_rss,
            "pageFaults": node.page_faults,
            "majorPageFaults": node.major_page_faults,
        },
        "fs": {
            "time": moment,
            "availableBytes": available,
            "capacityBytes": capacity,
            "usedBytes": used,
            "inodesFree": free,
            "inodes": inodes,
            "inodesUsed": inodes - free,
        },
    }


def summary(name: str, found: Figures, volumes: Mapping[str, Sequence[Object]] | None = None) -> Object:
    """Return the document of `/stats/summary`. volumes: of pods, by UID."""
    known = volumes or {}
    return {"node": _node(name, found.node), "pods": [_pod(pod, known.get(pod.uid, ())) for pod in found.pods]}


def _metric(name: str, kind: str, text: str, samples: Iterable[tuple[str, int | float, int]]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value, moment in samples:
        lines.append(f"{name}{labels} {value!r} {moment // 1_000_000}")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _labels(**values: str) -> str:
    shown = ",".join(f'{name}="{value}"' for name, value in values.items())
    return f"{{{shown}}}"


def resource_metrics(found: Figures) -> str:
    """Return what `/metrics/resource` has, for metrics-server and the like."""
    node = found.node
    one = [
        (_labels(container=each.name, namespace=pod.namespace, pod=pod.name), each)
        for pod in found.pods
        for each in pod.containers
    ]
    pods = [(_labels(namespace=pod.namespace, pod=pod.name), pod) for pod in found.pods if pod.containers]
    moment = node.timestamp
    return "".join(
        (
            _metric(
                "container_cpu_usage_seconds_total",
                "counter",
                "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
                ((labels, each.stats.cpu_usage_ns / 1e9, each.stats.timestamp) for labels, each in one),
            ),
            _metric(
                "container_memory_working_set_bytes",
                "gauge",
                "[STABLE] Current working set of the container in bytes",
                ((labels, each.stats.memory_working_set_bytes, each.stats.timestamp) for labels, each in one),
            ),
            _metric(
                "container_start_time_seconds",
                "gauge",
                "[STABLE] Start time of the container since unix epoch in seconds",
                ((labels, each.started_at / 1e9, each.stats.timestamp) for labels, each in one),
            ),
            _metric(
                "node_cpu_usage_seconds_total",
                "counter",
                "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
                [("", node.cpu_ns / 1e9, moment)],
            ),
            _metric(
                "node_memory_working_set_bytes",
                "gauge",
                "[STABLE] Current working set of the node in bytes",
                [("", node.memory_working_set, moment)],
            ),
            _metric(
                "pod_cpu_usage_seconds_total",
                "counter",
                "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
                ((labels, sum(c.stats.cpu_usage_ns for c in pod.containers) / 1e9, moment) for labels, pod in pods),
            ),
            _metric(
                "pod_memory_working_set_bytes",
                "gauge",
                "[STABLE] Current working set of the pod in bytes",
                (
                    (labels, sum(c.stats.memory_working_set_bytes for c in pod.containers), moment)
                    for labels, pod in pods
                ),
            ),
            _NO_ERROR,
        )
    )


def cadvisor_metrics(found: Figures) -> str:
    """Return the few figures of `/metrics/cadvisor` that dashboards and scalers look at."""
    node = found.node
    one = [
        (_labels(container=each.name, id=f"/{each.id}", namespace=pod.namespace, pod=pod.name), each)
        for pod in found.pods
        for each in pod.containers
    ]

    def gauge(name: str, text: str, field: str) -> str:
        return _metric(
            name, "gauge", text, ((labels, getattr(each.stats, field), each.stats.timestamp) for labels, each in one)
        )

    return (
        _metric(
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            ((labels, each.stats.cpu_usage_ns / 1e9, each.stats.timestamp) for labels, each in one),
        )
        + gauge("container_memory_usage_bytes", "Current memory usage in bytes.", "memory_usage_bytes")
        + gauge("container_memory_working_set_bytes", "Current working set in bytes.", "memory_working_set_bytes")
        + gauge("container_memory_rss", "Size of RSS in bytes.", "memory_rss_bytes")
        + gauge("container_processes", "Number of processes running inside the container.", "pids")
        + _metric(
            "machine_memory_bytes",
            "gauge",
            "Memory of the machine.",
            [("", node.memory_capacity, node.timestamp)],
        )
    )
