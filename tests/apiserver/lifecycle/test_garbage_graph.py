"""The graph of owners and dependents converges to what the definition of garbage says, from any state, in any order."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.lifecycle import garbage
from pilothouse.apiserver.lifecycle.garbage import FOREGROUND, ORPHAN, Graph, Item, Owner, Place
from pilothouse.apiserver.rest.deletion import decide
from pilothouse.apiserver.rest.options import DeleteOptions
from pilothouse.apiserver.strategies.kinds import strategy_for

Object = dict[str, Any]
KINDS = {("v1", "Thing"): ("things", True), ("v1", "Other"): ("others", True), ("v1", "Wide"): ("wides", False)}
FOREIGN = "example.com/held"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = strategy_for("", "ConfigMap")
LIMIT = 5_000


class World:
    """A server with objects of three kinds, which deletes as the real one does, and the collector's queue."""

    def __init__(self, seed: int = 0) -> None:
        self.objects: dict[Place, Object] = {}
        self.graph = Graph(self)
        self.queue: dict[str, None] = {}
        self.known: list[Owner] = []
        self.places: dict[str, Place] = {}
        self.deleted: list[str] = []
        self.kinds = dict(KINDS)
        self._uids = itertools.count(1)
        self._random = random.Random(seed)

    def resource(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        return self.kinds.get((api_version, kind))

    def find(self, place: Place) -> Item | None:
        obj = self.objects.get(place)
        return None if obj is None else self.item(place, obj)

    def item(self, place: Place, obj: Object) -> Item:
        metadata = obj["metadata"]
        finalizers = tuple(metadata.get("finalizers") or ())
        return Item(place, metadata["uid"], tuple(metadata["owners"]), "deletionTimestamp" in metadata, finalizers)

    # What people do

    def create(
        self, kind: str, name: str, *owners: Owner, namespace: str = "a", finalizers: tuple[str, ...] = ()
    ) -> Owner | None:
        """Create an object; return a reference to it that blocks, None where the place is taken."""
        resource, namespaced = KINDS["v1", kind]
        place = Place(resource, namespace if namespaced else "", name)
        if place in self.objects:
            return None
        uid = f"uid-{next(self._uids)}"
        self.objects[place] = {"metadata": {"uid": uid, "owners": list(owners), "finalizers": list(finalizers)}}
        made = Owner(uid, "v1", kind, name, blocks=True)
        self.known.append(made)
        self.places[uid] = place
        self._observe(place)
        return made

    def delete(self, place: Place, propagation: str | None = None) -> None:
        obj = self.objects.get(place)
        if obj is None:
            return
        verdict = decide(obj, DeleteOptions(propagation=propagation), PLAIN, NOW)
        if verdict.remove:
            self._gone(place)
        elif verdict.changed:
            self.objects[place] = verdict.obj
            self._observe(place)

    def change(self, place: Place, **fields: Any) -> None:
        obj = self.objects.get(place)
        if obj is None:
            return
        metadata = {**obj["metadata"], **fields}
        self.objects[place] = {"metadata": metadata}
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self._gone(place)
        else:
            self._observe(place)

    def release(self, place: Place) -> None:
        if (obj := self.objects.get(place)) is not None:
            left = [name for name in obj["metadata"].get("finalizers") or () if name != FOREIGN]
            self.change(place, finalizers=left)

    def _gone(self, place: Place) -> None:
        uid = self.objects.pop(place)["metadata"]["uid"]
        self.queue.update(dict.fromkeys(self.graph.forget(uid)))

    def _observe(self, place: Place) -> None:
        self.queue.update(dict.fromkeys(self.graph.observe(self.item(place, self.objects[place]))))

    # What the collector does

    def step(self) -> None:
        if not self.queue:
            return
        uid = self._random.choice(list(self.queue))
        del self.queue[uid]
        action = self.graph.decide(uid)
        if action is None:
            return
        place = action.item.place
        assert self.find(place) == action.item
        owners = self.objects[place]["metadata"]["owners"]
        if isinstance(action, garbage.Delete):
            assert not any(self.is_alive(owner, place) or self.is_unknown(owner, place) for owner in owners)
            self.deleted.append(uid)
            self.delete(place, action.propagation)
        elif isinstance(action, garbage.RemoveOwners):
            self.change(place, owners=[owner for owner in owners if owner.uid not in action.uids])
        elif isinstance(action, garbage.Unblock):
            self.change(place, owners=[owner._replace(blocks=False) for owner in owners])
        else:
            left = [name for name in self.objects[place]["metadata"]["finalizers"] if name != action.finalizer]
            self.change(place, finalizers=left)

    def settle(self) -> None:
        for _ in range(LIMIT):
            if not self.queue:
                return
            self.step()
        raise AssertionError("the collector does not come to rest")

    # What the definition says, told apart from how the graph finds it

    def is_unknown(self, owner: Owner, place: Place) -> bool:
        known = self.kinds.get((owner.api_version, owner.kind))
        return known is None or (known[1] and not place.namespace)

    def owner_of(self, owner: Owner, place: Place) -> Object | None:
        if self.is_unknown(owner, place):
            return None
        resource, namespaced = self.kinds[owner.api_version, owner.kind]
        found = self.objects.get(Place(resource, place.namespace if namespaced else "", owner.name))
        return found if found is not None and found["metadata"]["uid"] == owner.uid else None

    def is_alive(self, owner: Owner, place: Place) -> bool:
        found = self.owner_of(owner, place)
        if found is None:
            return False
        metadata = found["metadata"]
        return not ("deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ()))

    def check_settled(self) -> None:
        for place, obj in self.objects.items():
            metadata = obj["metadata"]
            assert "deletionTimestamp" not in metadata, f"{place} waits for nothing"
            for owner in metadata["owners"]:
                assert self.is_alive(owner, place), f"{place} has an owner that is gone: {owner}"


NAMES = ("x", "y", "z")
REFERENCES = st.lists(
    st.tuples(st.integers(0, 30), st.booleans(), st.sampled_from(("", "", "", "kind", "uid"))), max_size=3
)
CREATE = st.tuples(
    st.just("create"),
    st.sampled_from(("Thing", "Thing", "Other", "Wide")),
    st.sampled_from(NAMES),
    st.sampled_from(("a", "a", "b")),
    REFERENCES,
    st.sampled_from(((), (), (FOREIGN,), (ORPHAN,))),
)
DELETE = st.tuples(st.just("delete"), st.integers(0, 30), st.sampled_from((None, "Background", "Foreground", "Orphan")))
LINK = st.tuples(st.just("link"), st.integers(0, 30), REFERENCES)
STEP = st.tuples(st.just("step"), st.integers(1, 4))
RELEASE = st.tuples(st.just("release"), st.integers(0, 30))
SCRIPTS = st.lists(st.one_of(CREATE, CREATE, DELETE, LINK, STEP, RELEASE), max_size=40)


def references(world: World, wanted: list[tuple[int, bool, str]]) -> list[Owner]:
    found: dict[str, Owner] = {}
    for index, blocks, wrong in wanted:
        if not world.known:
            continue
        owner = world.known[index % len(world.known)]._replace(blocks=blocks)
        if wrong == "kind":
            owner = owner._replace(kind="Other" if owner.kind == "Thing" else "Thing")
        elif wrong == "uid":
            owner = owner._replace(uid="uid-of-nobody")
        found[owner.uid] = owner
    return list(found.values())


def fitting(owners: list[Owner], namespaced: bool, resolvable: bool) -> list[Owner]:
    """Leave out what objects of the cluster cannot name, where all is to be resolvable."""
    return owners if namespaced or not resolvable else [owner for owner in owners if owner.kind == "Wide"]


def play(world: World, script: list[Any], *, resolvable: bool) -> None:
    for op, *args in script:
        if op == "create":
            kind, name, namespace, wanted, finalizers = args
            owners = fitting(references(world, wanted), kind != "Wide", resolvable)
            world.create(kind, name, *owners, namespace=namespace, finalizers=finalizers)
        elif op == "step":
            for _ in range(args[0]):
                world.step()
        elif world.objects:
            chosen = list(world.objects)[args[0] % len(world.objects)]
            if op == "delete":
                world.delete(chosen, args[1])
            elif op == "release":
                world.release(chosen)
            else:
                world.change(chosen, owners=fitting(references(world, args[1]), bool(chosen.namespace), resolvable))


@given(SCRIPTS, st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_converges_to_the_definition(script: list[Any], seed: int) -> None:
    world = World(seed)
    play(world, script, resolvable=True)
    world.settle()
    for place in list(world.objects):
        world.release(place)
    world.settle()
    world.check_settled()
    assert len(world.graph) == sum(bool(obj["metadata"]["owners"]) for obj in world.objects.values())
    owners = {owner.uid for obj in world.objects.values() for owner in obj["metadata"]["owners"]}
    assert set(world.graph._dependents) == owners


@given(SCRIPTS, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_what_cannot_be_resolved_is_left_alone(script: list[Any], seed: int) -> None:
    world = World(seed)
    del world.kinds["v1", "Other"]
    play(world, script, resolvable=False)
    world.settle()
    world.kinds.update(KINDS)
    world.queue.update(dict.fromkeys(world.graph.unresolved()))
    world.settle()


@given(SCRIPTS, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_new_graph_over_the_same_objects_finds_the_same(script: list[Any], seed: int) -> None:
    world = World(seed)
    play(world, script, resolvable=True)
    world.graph, world.queue = Graph(world), {}
    for place in list(world.objects):
        world._observe(place)
    world.settle()
    for place in list(world.objects):
        world.release(place)
    world.settle()
    world.check_settled()


def chain(world: World, length: int) -> list[Owner]:
    made: list[Owner] = []
    for position in range(length):
        owner = world.create("Thing", f"n{position}", *made[-1:])
        assert owner is not None
        made.append(owner)
    return made


def place(owner: Owner, namespace: str = "a") -> Place:
    return Place("things", namespace, owner.name)


def test_background_deletion_takes_all_below() -> None:
    world = World()
    made = chain(world, 4)
    world.settle()
    world.delete(place(made[0]))
    assert len(world.objects) == 3
    world.settle()
    assert not world.objects
    assert world.deleted == [owner.uid for owner in made[1:]]


def test_foreground_deletion_goes_bottom_up() -> None:
    world = World()
    made = chain(world, 3)
    world.settle()
    held = world.create("Thing", "leaf", made[-1], finalizers=(FOREIGN,))
    assert held is not None
    world.delete(place(made[0]), "Foreground")
    world.settle()
    assert len(world.objects) == 4
    assert all("deletionTimestamp" in obj["metadata"] for obj in world.objects.values())
    world.release(place(held))
    world.settle()
    assert not world.objects


def test_foreground_deletion_waits_only_for_those_that_block() -> None:
    world = World()
    (owner,) = chain(world, 1)
    world.create("Thing", "free", owner._replace(blocks=False), finalizers=(FOREIGN,))
    world.delete(place(owner), "Foreground")
    world.settle()
    assert place(owner) not in world.objects
    assert len(world.objects) == 1


def test_orphans_lose_their_owner_and_stay() -> None:
    world = World()
    made = chain(world, 3)
    world.settle()
    world.delete(place(made[0]), "Orphan")
    world.settle()
    assert place(made[0]) not in world.objects
    assert world.objects[place(made[1])]["metadata"]["owners"] == []
    assert world.objects[place(made[2])]["metadata"]["owners"] == [made[1]]
    assert world.deleted == []


def test_another_owner_keeps_a_dependent() -> None:
    world = World()
    one, other = world.create("Thing", "one"), world.create("Thing", "other")
    assert one is not None
    assert other is not None
    child = world.create("Thing", "child", one, other)
    assert child is not None
    world.delete(place(one), "Foreground")
    world.settle()
    assert world.objects[place(child)]["metadata"]["owners"] == [other]
    assert place(one) not in world.objects


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("together", [False, True])
def test_circles_do_not_wait_for_themselves(size: int, together: bool) -> None:
    world = World()
    made = chain(world, size)
    world.change(place(made[0]), owners=[made[-1]])
    world.settle()
    assert len(world.objects) == size
    for owner in made if together else made[:1]:
        world.delete(place(owner), "Foreground")
    world.settle()
    assert not world.objects


def test_owner_of_another_namespace_is_absent() -> None:
    world = World()
    (owner,) = chain(world, 1)
    world.create("Thing", "far", owner, namespace="b")
    world.settle()
    assert list(world.objects) == [place(owner)]


def test_stranger_of_another_namespace_blocks_nobody() -> None:
    world = World()
    (owner,) = chain(world, 1)
    world.create("Thing", "far", owner, namespace="b", finalizers=(FOREIGN,))
    world.delete(place(owner), "Foreground")
    world.settle()
    assert place(owner) not in world.objects


def test_object_of_the_cluster_cannot_belong_to_a_namespace() -> None:
    world = World()
    (owner,) = chain(world, 1)
    world.create("Wide", "wide", owner)
    world.delete(place(owner))
    world.settle()
    assert list(world.objects) == [Place("wides", "", "wide")]


def test_the_same_name_with_another_uid_is_another_owner() -> None:
    world = World()
    made = chain(world, 2)
    world.delete(place(made[0]))
    world.create("Thing", made[0].name)
    world.settle()
    assert list(world.objects) == [place(made[0])]


def test_dependent_that_names_the_wrong_kind_is_collected() -> None:
    world = World()
    (owner,) = chain(world, 1)
    world.create("Thing", "child", owner._replace(kind="Other"))
    world.settle()
    assert list(world.objects) == [place(owner)]
