"""An operator for classes of namespaces: each namespace with a class's label gets the objects that the class lists.

A class lists whole objects of any kinds, so nothing here knows their types: they are dictionaries, and a kind's cache
begins when a class first lists one. All that a class gave carries its name as label. By that label the objects are
watched, so that what others change is repaired, and found again when the class gives them no more.
"""

import asyncio
import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pilothouse.client import Client, ResourceClient, UnknownKind, ignore_not_found
from pilothouse.client.informer import Informer
from pilothouse.client.objects import key_of, labels_of, resource_version_of
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import Condition, ConfigMap, Namespace, ObjectMeta, Resource, Struct, to_dict
from pilothouse.operator import (
    Context,
    Controller,
    Embedded,
    Manager,
    MaxLength,
    PrinterColumn,
    Reconciler,
    Request,
    Result,
    controller,
    custom_resource,
    definition,
    install,
)
from pilothouse.operator.finalizers import add_finalizer, is_being_deleted, remove_finalizer
from pilothouse.operator.status import set_condition
from pilothouse.testing import ControlPlane

LABEL = "namespaceclass.example.com/name"
"""On a namespace: its class. On other objects: the class that gave them."""
FINALIZER = "namespaceclass.example.com/prune"
FIELD_MANAGER = "namespace-class"
AGAIN_SECONDS = 60.0

Object = dict[str, Any]
Kind = tuple[str, str]  # apiVersion and kind
Place = tuple[Kind, str]  # and the name


class NamespaceClassSpec(Struct):
    """What the namespaces of a class get."""

    objects: Annotated[Sequence[Annotated[Mapping[str, Any], Embedded()]], MaxLength(64)] = ()
    """Whole objects of kinds that are in namespaces; the namespace is left out."""


class NamespaceClassStatus(Struct):
    """What became of a class."""

    namespaces: int = 0
    kinds: Sequence[str] = ()
    """All kinds of which it may have given objects, as apiVersion/kind."""
    observed_generation: int = 0
    conditions: Sequence[Condition] = ()


@custom_resource(
    short_names=["nsclass"],
    columns=[PrinterColumn("Namespaces", ".status.namespaces"), PrinterColumn("Age", ".metadata.creationTimestamp")],
)
class NamespaceClass(Resource, group="example.com", version="v1", plural="namespaceclasses", namespaced=False):
    """What each of many namespaces gets."""

    spec: NamespaceClassSpec = NamespaceClassSpec()
    status: NamespaceClassStatus = NamespaceClassStatus()


class Wanted(NamedTuple):
    """An object that there should be, and the field that says so."""

    field: str
    manifest: Object


def class_of(obj: Any) -> Sequence[str]:
    """Return the class of a namespace, or of an object that a class gave: the index of both."""
    found = labels_of(obj).get(LABEL)
    return [found] if found else []


def requests_of(obj: Any) -> Iterable[Request]:
    """Map a namespace or an object to its class. Of a change both the old and the new class are told."""
    return [Request("", name) for name in class_of(obj)]


class NamespaceClassReconciler(Reconciler[NamespaceClass]):
    """Gives all namespaces of a class its objects, and removes what it gave and gives no more."""

    controller: Controller[NamespaceClass]

    def __init__(self) -> None:
        # By class and kind, and then by place: what was applied, and the version of the object then.
        self._left: dict[tuple[str, Kind], dict[str, tuple[Object, str]]] = {}

    async def reconcile(self, obj: NamespaceClass, context: Context) -> Result | None:
        leaving = is_being_deleted(obj)
        if not leaving:
            obj = await add_finalizer(context.client, obj, FINALIZER)
        problems: list[str] = []
        listed = {} if leaving else self._listed(obj, problems)
        kinds = sorted({f"{group}/{kind}" for (group, kind), _ in listed}.union(obj.status.kinds))
        # Before anything is made, so that whoever comes after a crash knows where to look for it.
        await context.apply_status(obj, self._status(obj, kinds))
        spaces = [one for one in context.indexed(Namespace, "class", obj.metadata.name) if not is_being_deleted(one)]
        for kind in kinds:
            group, _, name = kind.rpartition("/")
            of_kind = [wanted for place, wanted in listed.items() if place[0] == (group, name)]
            problems += await self._keep(obj, (group, name), of_kind, spaces, context)
        if leaving:
            await remove_finalizer(context.client, obj, FINALIZER)
            return None
        conditions = set_condition(
            obj.status.conditions,
            "Ready",
            not problems,
            reason="Refused" if problems else "Applied",
            message="; ".join(problems[:5]) or f"{len(spaces)} namespaces have its {len(listed)} objects",
            observed_generation=obj.metadata.generation,
            now=context.clock.now(),
        )
        done = {"namespaces": len(spaces), "observedGeneration": obj.metadata.generation}
        await context.apply_status(obj, self._status(obj, kinds, conditions, **done))
        # Whether a definition was installed meanwhile, or a quota allows more, is not told; so look again.
        return Result(requeue_after=AGAIN_SECONDS) if problems else None

    def _status(
        self, obj: NamespaceClass, kinds: Sequence[str], conditions: Sequence[Condition] | None = None, **more: int
    ) -> Mapping[str, Any]:
        """Return the whole status: what an apply leaves out is removed."""
        listed = obj.status.conditions if conditions is None else conditions
        return {**to_dict(obj.status), "kinds": kinds, "conditions": [to_dict(one) for one in listed], **more}

    def _listed(self, obj: NamespaceClass, problems: list[str]) -> dict[Place, Wanted]:
        """Return what a class lists, by kind and name."""
        found: dict[Place, Wanted] = {}
        for number, manifest in enumerate(obj.spec.objects):
            metadata = dict(manifest.get("metadata", {}))
            kind, name = (str(manifest["apiVersion"]), str(manifest["kind"])), str(metadata.get("name", ""))
            field = f"spec.objects[{number}]: {kind[1]} {name}"
            if not name or metadata.get("namespace") or (kind, name) in found:
                problems.append(f"{field}: metadata wants a name of its own and no namespace")
                continue
            metadata["labels"] = {**metadata.get("labels", {}), LABEL: obj.metadata.name}
            found[kind, name] = Wanted(field, {**manifest, "metadata": metadata})
        return found

    async def _keep(
        self, obj: NamespaceClass, kind: Kind, listed: Sequence[Wanted], spaces: Sequence[Namespace], context: Context
    ) -> list[str]:
        """Make the objects of one kind what the class lists in all its namespaces; return what is wrong with some."""
        handle = context.client.dynamic(*kind)
        try:
            namespaced = (await handle.mapping()).namespaced
        except UnknownKind as error:
            return [f"{wanted.field}: {error}" for wanted in listed]
        if not namespaced:
            return [f"{wanted.field}: it is of the whole cluster, so no namespace can have it" for wanted in listed]
        cache = await self.controller.watch(handle, requests_of, labels=LABEL, indexers={"class": class_of})
        await cache.wait_synced()
        places, problems, left = set(), [], self._left.pop((obj.metadata.name, kind), {})
        kept = {}
        for wanted, space in itertools.product(listed, spaces):
            namespace, manifest = space.metadata.name, wanted.manifest
            place = f"{namespace}/{manifest['metadata']['name']}"
            places.add(place)
            live = cache.indexer.get(place)
            if live is not None and left.get(place) == (manifest, resource_version_of(live)):
                kept[place] = left[place]
                continue
            try:
                made = await handle.apply(manifest, namespace, force=True, field_manager=FIELD_MANAGER)
            except ApiStatus as error:  # whatever it is, it holds up no other object
                problems.append(f"{wanted.field} in namespace {namespace}: {error}")
            else:
                kept[place] = manifest, resource_version_of(made)
        if kept:
            self._left[obj.metadata.name, kind] = kept
        await self._prune(obj, handle, cache, places)
        return problems

    async def _prune(
        self, obj: NamespaceClass, handle: ResourceClient[Object], cache: Informer[Object], places: Container[str]
    ) -> None:
        """Delete what the class gave and gives no more: in other places, of its label."""
        given = cache.indexer.by_index("class", obj.metadata.name)
        if is_being_deleted(obj):  # what it gave last may not be in the cache yet, and nobody looks again
            given = await handle.list_all("*", labels={LABEL: obj.metadata.name})
        for found in given:
            if key_of(found) not in places:
                name, namespace = found["metadata"]["name"], found["metadata"]["namespace"]
                # Only as it was seen: another class may have taken it over meanwhile, which is a Conflict.
                version = resource_version_of(found)
                await ignore_not_found(handle.delete(name, namespace, resource_version=version))


def build(manager: Manager) -> None:
    """Describe the operator."""
    manager.scheme.register(NamespaceClass)
    manager.index(Namespace, "class", class_of)
    reconciler = NamespaceClassReconciler()
    described = controller(manager, "namespace-class").for_(NamespaceClass).watches(Namespace, requests_of)
    reconciler.controller = described.build(reconciler)


async def main() -> None:
    """Run the operator, make a class and a namespace of it, and wait for what the namespace gets."""
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install(client, definition(NamespaceClass))
        manager = Manager(client)
        build(manager)
        async with manager:
            note: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"a": "b"}}
            spec = NamespaceClassSpec(objects=[note])
            await client.create(NamespaceClass(metadata=ObjectMeta(name="shared"), spec=spec))
            await client.create(Namespace(metadata=ObjectMeta(name="team", labels={LABEL: "shared"})))
            await plane.wait_for("/api/v1/namespaces/team/configmaps/note")
            print((await client.get(ConfigMap, "note", "team")).data)
            await client.delete(ConfigMap, "note", "team")  # it comes again
            await plane.wait_for("/api/v1/namespaces/team/configmaps/note")


if __name__ == "__main__":
    asyncio.run(main())
