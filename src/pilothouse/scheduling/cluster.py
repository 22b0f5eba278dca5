"""All that the scheduler knows: the node table, namespaces, storage, budgets, and what selects pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse.kinds.labels import Requirement, Selector, from_labels
from pilothouse.kinds.structs import (
    Namespace,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    Resource,
    Service,
    StatefulSet,
)

from .podterms import compile_selector
from .shapes import PodShape, Shapes, controller_of
from .storage import Storage
from .table import NodeTable

__all__ = ["Cluster"]

_CONTROLLERS: Final[Mapping[tuple[str, str], type[Resource]]] = {
    ("v1", "ReplicationController"): ReplicationController,
    ("apps/v1", "ReplicaSet"): ReplicaSet,
    ("apps/v1", "StatefulSet"): StatefulSet,
}


class Cluster:
    """The state that plugins read. Only the scheduler changes it."""

    def __init__(self) -> None:
        self.namespaces: Final[dict[str, Mapping[str, str]]] = {}
        self.table: Final = NodeTable(self.namespaces)
        self.shapes: Final = Shapes()
        self.storage: Final = Storage()
        self.budgets: Final[dict[tuple[str, str], tuple[PodDisruptionBudget, Selector]]] = {}
        self.budgets_version = 0
        self.workloads: Final[dict[tuple[type[Resource], str, str], Any]] = {}
        """Services and the controllers of pods, by type, namespace and name."""
        self.workloads_version = 0
        self._services: dict[str, dict[str, Mapping[str, str]]] = {}

    def set_namespace(self, namespace: Namespace) -> None:
        """Take over a namespace's labels."""
        name, labels = namespace.metadata.name, namespace.metadata.labels
        if self.namespaces.get(name) != labels:
            self.namespaces[name] = labels
            self.table.namespaces_changed()

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace."""
        if self.namespaces.pop(name, None) is not None:
            self.table.namespaces_changed()

    def set_budget(self, budget: PodDisruptionBudget) -> None:
        """Take over a disruption budget."""
        key = (budget.metadata.namespace, budget.metadata.name)
        self.budgets[key] = (budget, compile_selector(budget.spec.selector))
        self.budgets_version += 1

    def remove_budget(self, namespace: str, name: str) -> None:
        """Forget a disruption budget."""
        if self.budgets.pop((namespace, name), None) is not None:
            self.budgets_version += 1

    def set_workload(self, found: Service | ReplicaSet | ReplicationController | StatefulSet) -> None:
        """Take over a service or a controller of pods, of which only the selector matters."""
        namespace, name = found.metadata.namespace, found.metadata.name
        key = (type(found), namespace, name)
        old = self.workloads.get(key)
        self.workloads[key] = found
        if old is None or old.spec.selector != found.spec.selector:
            self.workloads_version += 1
        if isinstance(found, Service):
            self._services.setdefault(namespace, {})[name] = found.spec.selector

    def remove_workload(self, found: Resource) -> None:
        """Forget a service or a controller of pods."""
        namespace, name = found.metadata.namespace, found.metadata.name
        if self.workloads.pop((type(found), namespace, name), None) is not None:
            self.workloads_version += 1
        if isinstance(found, Service):
            self._services.get(namespace, {}).pop(name, None)

    def default_selector(self, shape: PodShape) -> Selector:
        """Give what selects the pods of the same services and controller; an empty one where there are none."""
        chosen: dict[str, str] = {}
        for selector in self._services.get(shape.namespace, {}).values():
            if selector and all(shape.labels.get(key) == value for key, value in selector.items()):
                chosen.update(selector)
        requirements: list[Requirement] = [*from_labels(chosen).requirements]
        owner = controller_of(shape.pod)
        kind = _CONTROLLERS.get((owner.api_version, owner.kind)) if owner else None
        found = self.workloads.get((kind, shape.namespace, owner.name)) if kind and owner else None
        if found is None or found.spec.selector is None:
            return Selector(requirements)
        if kind is ReplicationController:
            return from_labels({**chosen, **found.spec.selector})
        return Selector([*requirements, *compile_selector(found.spec.selector).requirements])
