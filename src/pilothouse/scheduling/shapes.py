"""What the scheduler has to know of a pod, compiled once for all pods that are alike.

Pods of one controller differ in their names. All that decides where a pod may run is in its shape; pods with the same
shape share it, and with it everything that plugins work out for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from pilothouse.kinds.structs import Container, ContainerStatus, OwnerReference, Pod, PodSpec

from .podterms import PodTerm, term_of
from .requests import CPU, EPHEMERAL, MEMORY, Demand, demand_of, is_scalar
from .trimming import without_details

__all__ = [
    "HostPort",
    "LocalShape",
    "PodShape",
    "Shapes",
    "WeightedTerm",
    "claims_of",
    "controller_of",
    "image_name",
    "priority_of",
    "shape_of",
]

_encode: Final = msgspec.msgpack.Encoder(enc_hook=str, order="deterministic").encode


class HostPort(NamedTuple):
    """A port of the node that a pod takes."""

    ip: str
    protocol: str
    port: int


class WeightedTerm(NamedTuple):
    """A term that is preferred, by its weight."""

    term: PodTerm
    weight: int


def priority_of(pod: Pod) -> int:
    """Give a pod's priority; 0 where it has none."""
    return pod.spec.priority or 0


def controller_of(pod: Pod) -> OwnerReference | None:
    """Give the owner that controls a pod."""
    return next((owner for owner in pod.metadata.owner_references if owner.controller), None)


def claims_of(pod: Pod) -> Iterator[tuple[str, bool]]:
    """Give the names of a pod's volume claims, and whether each is made for the pod alone."""
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim.claim_name:
            yield volume.persistent_volume_claim.claim_name, False
        elif volume.ephemeral.volume_claim_template is not None:
            yield f"{pod.metadata.name}-{volume.name}", True


def image_name(image: str) -> str:
    """Give an image's name with its tag, as nodes list it."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"


def _claims(pod: Pod) -> list[Any]:
    """Give what is of interest in the volumes; names that a service account's token got at random are not."""
    found: list[Any] = []
    for volume in pod.spec.volumes:
        parts = (
            volume.persistent_volume_claim.claim_name,
            f"{pod.metadata.name}-{volume.name}" if volume.ephemeral.volume_claim_template else "",
            volume.gce_persistent_disk.pd_name,
            volume.aws_elastic_block_store.volume_id,
            volume.image.reference,
        )
        if any(parts) or volume.iscsi.iqn or volume.rbd.image:
            found.append((parts, volume.gce_persistent_disk.read_only, volume.iscsi, volume.rbd))
    return found


def _container(one: Container) -> tuple[Any, ...]:
    ports = [(port.host_ip, port.protocol, port.host_port) for port in one.ports if port.host_port]
    return one.name, one.image, one.resources.requests, ports


def _given(one: ContainerStatus) -> tuple[Any, ...]:
    return one.name, one.resources and one.resources.requests, one.allocated_resources


def _local_key(pod: Pod) -> bytes:
    """Give what matters to a node on its own: not what other pods there are, nor who the pod is."""
    spec, affinity = pod.spec, pod.spec.affinity
    return _encode(
        (
            pod.metadata.namespace,
            [_container(one) for one in spec.containers],
            [(_container(one), one.restart_policy) for one in spec.init_containers],
            spec.overhead,
            spec.resources,
            spec.node_selector,
            affinity and affinity.node_affinity,
            spec.tolerations,
            spec.priority,
            spec.preemption_policy,
            spec.scheduler_name,
            spec.volumes and _claims(pod),
            # What a running pod was given counts for as long as it is being resized.
            [_given(one) for one in pod.status.container_statuses],
            [_given(one) for one in pod.status.init_container_statuses],
            pod.status.resources,
            any(one.type == "PodResizePending" for one in pod.status.conditions),
        )
    )


def _wide_key(pod: Pod) -> bytes:
    """Give what matters beside other pods."""
    owner, affinity = controller_of(pod), pod.spec.affinity
    return _encode(
        (
            pod.metadata.labels,
            owner and (owner.api_version, owner.kind, owner.name),
            affinity and (affinity.pod_affinity, affinity.pod_anti_affinity),
            pod.spec.topology_spread_constraints,
        )
    )


class LocalShape:
    """What pods have in common that are alike but for their labels, owners and terms about other pods."""

    __slots__ = ("__weakref__",)


class PodShape:
    """A pod without what is its own. `pod` is the first that had the shape; shapes are equal only to themselves."""

    def __init__(self, pod: Pod, local: LocalShape | None = None) -> None:
        self.pod: Final = pod
        self.local: Final = LocalShape() if local is None else local
        self.namespace: Final = pod.metadata.namespace
        self.labels: Final[Mapping[str, str]] = pod.metadata.labels
        self.priority: Final = priority_of(pod)
        self.scheduler: Final = pod.spec.scheduler_name or "default-scheduler"
        self.memo: Final[dict[object, Any]] = {}
        """What others worked out for this shape, by keys of their own."""

    @cached_property
    def demand(self) -> Demand:
        """What a pod of this shape asks for."""
        return demand_of(self.pod)

    @cached_property
    def requests(self) -> Mapping[str, int]:
        """What is checked against the node: only resources that schedulers count."""
        return {
            name: value
            for name, value in self.demand.requests.items()
            if name in {CPU, MEMORY, EPHEMERAL} or is_scalar(name)
        }

    @cached_property
    def ports(self) -> tuple[HostPort, ...]:
        """The node's ports that it takes; sidecars' too."""
        containers = [*self.pod.spec.containers]
        containers += [one for one in self.pod.spec.init_containers if one.restart_policy == "Always"]
        return tuple(
            HostPort(port.host_ip or "0.0.0.0", port.protocol or "TCP", port.host_port)  # noqa: S104
            for container in containers
            for port in container.ports
            if port.host_port > 0
        )

    @cached_property
    def affinity(self) -> tuple[PodTerm, ...]:
        """The required terms of pod affinity."""
        found = self.pod.spec.affinity and self.pod.spec.affinity.pod_affinity
        return self._terms(found.required_during_scheduling_ignored_during_execution) if found else ()

    @cached_property
    def anti_affinity(self) -> tuple[PodTerm, ...]:
        """The required terms of pod anti-affinity."""
        found = self.pod.spec.affinity and self.pod.spec.affinity.pod_anti_affinity
        return self._terms(found.required_during_scheduling_ignored_during_execution) if found else ()

    @cached_property
    def preferred(self) -> tuple[WeightedTerm, ...]:
        """The preferred terms of both; those of anti-affinity with negative weights."""
        affinity = self.pod.spec.affinity
        if affinity is None:
            return ()
        found: list[WeightedTerm] = []
        for part, sign in ((affinity.pod_affinity, 1), (affinity.pod_anti_affinity, -1)):
            found += [
                WeightedTerm(self._terms((one.pod_affinity_term,))[0], sign * one.weight)
                for one in (part.preferred_during_scheduling_ignored_during_execution if part else ())
            ]
        return tuple(found)

    @cached_property
    def has_volumes(self) -> bool:
        """Whether there are volumes that any plugin looks at."""
        return bool(_claims(self.pod))

    @cached_property
    def has_claims(self) -> bool:
        """Whether there are volumes with claims."""
        return any(True for _ in claims_of(self.pod))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The images that its node needs, each as often as it is used, volumes' too."""
        spec = self.pod.spec
        images = [one.image for one in (*spec.init_containers, *spec.containers)]
        images += [volume.image.reference for volume in spec.volumes if volume.image.reference]
        return tuple(image_name(image) for image in images)

    def _terms(self, terms: Any) -> tuple[PodTerm, ...]:
        return tuple(term_of(term, self.namespace, self.labels) for term in terms)


_SPECS: Final = 4096
_shapes_of_specs: Final[dict[int, tuple[PodSpec, PodShape]]] = {}


def shape_of(pod: Pod) -> PodShape:
    """Give the shape of a pod to look at, outside of `Shapes`; remembered for pods that share their spec."""
    spec, labels = pod.spec, pod.metadata.labels
    known = _shapes_of_specs.get(id(spec))
    if known is not None and known[0] is spec and known[1].labels is labels:
        return known[1]
    found = PodShape(pod)
    if len(_shapes_of_specs) >= _SPECS:
        _shapes_of_specs.clear()
    _shapes_of_specs[id(spec)] = (spec, found)
    return found


class Shapes:
    """The shapes that there are. One that no pod has any more is forgotten by itself."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[bytes, bytes], PodShape] = WeakValueDictionary()
        self._locals: WeakValueDictionary[bytes, LocalShape] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, pod: Pod) -> PodShape:
        """Give the shape of a pod."""
        local_key, wide_key = _local_key(pod), _wide_key(pod)
        found = self._known.get((local_key, wide_key))
        if found is None:
            local = self._locals.get(local_key)
            if local is None:
                local = self._locals[local_key] = LocalShape()
            found = self._known[local_key, wide_key] = PodShape(without_details(pod), local)
        return found
