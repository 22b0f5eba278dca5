"""Whether gateway and delivery are wanted: who runs anyway looks, so that their process need not run in vain.

A Gateway of a class of ours wants it, an Ingress of a class of ours, and whatever is delivered: a Rollout, an
Application or a set of them. Of them next to nothing is read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.foundation.clock import Timer
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import Resource, Struct
from pilothouse.operator import Companion, Manager
from pilothouse.traffic.control.names import CONTROLLER, DEFAULT_CLASS, INGRESS_CONTROLLER, OLD_CLASS

__all__ = ["Demand", "GatewayWatch", "add_gateway_watch"]

_GATEWAYS: Final = "gateway.networking.k8s.io"
_NETWORKING: Final = "networking.k8s.io"
_LINGER_SECONDS: Final = 30.0
"""How long a gateway is still wanted after the last object: who deletes one may be about to make it anew, and routes
are yet to be told that they have none."""
_log = get_logger("pilothouse.platform.gatewaywatch")


class GatewayClassSpec(Struct):
    """Who looks after the gateways of a class."""

    controller_name: str = ""


class GatewayClass(Resource, group=_GATEWAYS, version="v1", plural="gatewayclasses", namespaced=False, partial=True):
    """What is read of a GatewayClass."""

    spec: GatewayClassSpec = GatewayClassSpec()


class GatewaySpec(Struct):
    """The class of a gateway."""

    gateway_class_name: str = ""


class Gateway(Resource, group=_GATEWAYS, version="v1", plural="gateways", partial=True):
    """What is read of a Gateway."""

    spec: GatewaySpec = GatewaySpec()


class IngressClassSpec(Struct):
    """Who looks after the ingresses of a class."""

    controller: str = ""


class IngressClass(Resource, group=_NETWORKING, version="v1", plural="ingressclasses", namespaced=False, partial=True):
    """What is read of an IngressClass."""

    spec: IngressClassSpec = IngressClassSpec()


class IngressSpec(Struct):
    """The class of an ingress."""

    ingress_class_name: str | None = None


class Ingress(Resource, group=_NETWORKING, version="v1", plural="ingresses", partial=True):
    """What is read of an Ingress."""

    spec: IngressSpec = IngressSpec()


class Rollout(Resource, group="argoproj.io", version="v1alpha1", plural="rollouts", partial=True):
    """That there is one is all that is read."""


class Application(Resource, group="argoproj.io", version="v1alpha1", plural="applications", partial=True):
    """That there is one is all that is read."""


class ApplicationSet(Resource, group="argoproj.io", version="v1alpha1", plural="applicationsets", partial=True):
    """That there is one is all that is read."""


_KINDS: Final[Mapping[str, tuple[type[Resource], ...]]] = {
    "gateway": (GatewayClass, IngressClass, Gateway, Ingress),
    "delivery": (Rollout, Application, ApplicationSet),
}
_Place = tuple[type[Resource], str]
_NO_CLASS: Final = ""


class Demand:
    """Counts objects by their classes. Pure; a change costs the same however many there are."""

    def __init__(self) -> None:
        self._ours: dict[type[Resource], set[str]] = {Gateway: set(), Ingress: set()}
        self._counts: dict[type[Resource], Counter[str]] = {Gateway: Counter(), Ingress: Counter()}
        self._classes: dict[_Place, str] = {}
        self._defaults: set[str] = set()
        self._delivered: set[_Place] = set()

    @property
    def is_wanted(self) -> bool:
        """Whether an object is of a class of ours, or is delivered."""
        return (
            bool(self._delivered)
            or any(self._counts[kind][name] for kind, names in self._ours.items() for name in names)
            or bool(self._defaults and self._counts[Ingress][_NO_CLASS])
        )

    def put(self, obj: Resource) -> None:
        """Take an object that is new or has changed."""
        self.remove(type(obj), _key(obj))
        match obj:
            case GatewayClass():
                if obj.spec.controller_name == CONTROLLER:
                    self._ours[Gateway].add(obj.metadata.name)
            case IngressClass():
                if obj.spec.controller == INGRESS_CONTROLLER:
                    self._ours[Ingress].add(obj.metadata.name)
                    if obj.metadata.annotations.get(DEFAULT_CLASS) == "true":
                        self._defaults.add(obj.metadata.name)
            case Gateway():
                self._count(Gateway, _key(obj), obj.spec.gateway_class_name)
            case Ingress():
                named = obj.spec.ingress_class_name or obj.metadata.annotations.get(OLD_CLASS)
                self._count(Ingress, _key(obj), named or _NO_CLASS)
            case _:
                self._delivered.add((type(obj), _key(obj)))

    def _count(self, kind: type[Resource], key: str, name: str) -> None:
        self._classes[kind, key] = name
        self._counts[kind][name] += 1

    def remove(self, kind: type[Resource], key: str) -> None:
        """Forget an object, `namespace/name`, that is gone."""
        if kind is GatewayClass:
            self._ours[Gateway].discard(key)
        elif kind is IngressClass:
            self._ours[Ingress].discard(key)
            self._defaults.discard(key)
        elif kind in _KINDS["delivery"]:
            self._delivered.discard((kind, key))
        elif (name := self._classes.pop((kind, key), None)) is not None:
            self._counts[kind][name] -= 1


def _key(obj: Resource) -> str:
    namespace, name = obj.metadata.namespace, obj.metadata.name
    return f"{namespace}/{name}" if namespace else name


class GatewayWatch(Companion):
    """Runs within a manager, beside its controllers, and tells whenever a gateway begins or ceases to be wanted.

    Its caches are filled while the manager works already: it has to work also where there are no such kinds.
    """

    name = "gateway-watch"

    def __init__(self, manager: Manager, tell: Callable[[bool], object], parts: Collection[str]) -> None:
        self._manager = manager
        self._kinds = [kind for part, kinds in _KINDS.items() if part in parts for kind in kinds]
        self._tell = tell
        self._demand = Demand()
        self._told: bool | None = None
        self._lingering: Timer | None = None
        self._has_synced = False

    async def run(self) -> None:
        """Look until it is cancelled; nothing is said any more then."""
        handlers = [self._follow(kind) for kind in self._kinds]
        try:
            for each in handlers:
                await each.wait_synced()
            self._has_synced = True  # before, classes may be missing
            self._look()
            await asyncio.Event().wait()
        finally:
            self._settle()
            for each in handlers:
                each.remove()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for changes."""
        return self._has_synced

    def _follow(self, kind: type[Resource]) -> Any:
        def gone(obj: Resource | DeletedFinalStateUnknown[Resource]) -> None:
            self._demand.remove(kind, obj.key if isinstance(obj, DeletedFinalStateUnknown) else _key(obj))
            self._look()

        def put(obj: Resource) -> None:
            self._demand.put(obj)
            self._look()

        return self._manager.factory.informer(kind, managed_fields=False).add_handler(
            on_add=lambda obj, _: put(obj),
            on_update=lambda _, new: put(new),
            on_delete=gone,
            name=f"{self.name} {kind}",
        )

    def _look(self) -> None:
        if not self._has_synced:
            return
        is_wanted = self._demand.is_wanted
        if is_wanted:
            self._settle()
            self._say(True)
        elif self._told is None:
            self._say(False)
        elif self._told and self._lingering is None:
            self._lingering = self._manager.clock.call_later(_LINGER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._lingering = None
        self._say(self._demand.is_wanted)

    def _settle(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _say(self, is_wanted: bool) -> None:
        if is_wanted != self._told:
            self._told = is_wanted
            _log.debug("whether a gateway is wanted", is_wanted=is_wanted)
            self._tell(is_wanted)


def add_gateway_watch(
    manager: Manager, tell: Callable[[bool], object], parts: Collection[str] = ("gateway",)
) -> GatewayWatch:
    """Have a manager look whether parts are wanted, `gateway` or `delivery`; `tell` is told first and at changes."""
    made = GatewayWatch(manager, tell, parts)
    manager.add_companion(made)
    return made
