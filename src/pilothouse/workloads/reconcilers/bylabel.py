"""Finding pods by a label, and those who select pods by one of their labels, without a look at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from pilothouse.kinds.labels import Selector
from pilothouse.kinds.structs import Pod, Resource
from pilothouse.operator import Manager

__all__ = ["index_pods", "index_selectors", "pods_with", "selectors_of"]

R = TypeVar("R", bound=Resource)

_PODS: Final = "workloads-label"
_SELECTORS: Final = "workloads-selector"
_ANY: Final = "*"


def index_pods(manager: Manager) -> None:
    """Have the cache of pods find them by each of their labels."""

    def by_label(pod: Pod) -> Iterable[str]:
        return [f"{pod.metadata.namespace}/{key}={value}" for key, value in pod.metadata.labels.items()]

    manager.index(Pod, _PODS, by_label)


def pods_with(
    manager: Manager, namespace: str, labels: Mapping[str, str], selector: Selector | None = None
) -> list[Pod]:
    """Return pods of a namespace that have one of these labels, all where there are none: those to be matched.

    selector: by it they are matched already, and others are not even read.
    """
    informer = manager.informer(Pod)
    if not labels:
        return [*informer.lister().namespaced(namespace).list(selector)]
    key, value = min(labels.items())
    return informer.indexer.by_index(_PODS, f"{namespace}/{key}={value}", selector)


def index_selectors(manager: Manager, kind: type[R], labels_of: Callable[[R], Mapping[str, str] | None]) -> None:
    """Have the cache of a kind find objects by the first label that they select by; None for those that select none."""

    def by_selector(obj: R) -> Iterable[str]:
        labels = labels_of(obj)
        if labels is None:
            return ()
        if not labels:
            return (f"{obj.metadata.namespace}/{_ANY}",)
        key, value = min(labels.items())
        return (f"{obj.metadata.namespace}/{key}={value}",)

    manager.index(kind, _SELECTORS, by_selector)


def selectors_of(manager: Manager, kind: type[R], pod: Pod) -> list[R]:
    """Return the objects of a kind that may select a pod: those to be matched."""
    indexer, namespace = manager.informer(kind).indexer, pod.metadata.namespace
    found = indexer.by_index(_SELECTORS, f"{namespace}/{_ANY}")
    for key, value in pod.metadata.labels.items():
        found = [*found, *indexer.by_index(_SELECTORS, f"{namespace}/{key}={value}")]
    return found
