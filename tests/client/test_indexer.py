"""The cache and its listers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client.indexer import Indexer, IndexerError, Lister
from pilothouse.client.objects import (
    DeletedFinalStateUnknown,
    ObjectKeyError,
    annotations_of,
    key_of,
    labels_of,
    namespace_of,
    resource_version_of,
    split_key,
    uid_of,
)
from pilothouse.kinds.labels import parse
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import ObjectMeta, Pod
from support.informerkit import obj


def by_color(found: Any) -> list[str]:
    return [found["color"]] if "color" in found else []


def test_objects_are_found_by_key_namespace_and_further_indexes() -> None:
    cache: Indexer[Any] = Indexer({"color": by_color})
    for name, namespace, color in (("a", "x", "red"), ("b", "x", "blue"), ("a", "y", "red")):
        cache.put(f"{namespace}/{name}", obj(name, 1, namespace=namespace, color=color))
    assert len(cache) == 3
    assert "x/a" in cache
    assert cache.index_keys("color", "red") == ["x/a", "y/a"]
    assert cache.index_keys("namespace", "x") == ["x/a", "x/b"]
    assert sorted(cache.index_values("color")) == ["blue", "red"]
    cache.put("x/a", obj("a", 2, namespace="x", color="blue"))
    assert cache.index_keys("color", "red") == ["y/a"]
    assert [found["metadata"]["name"] for found in cache.by_index("color", "blue")] == ["b", "a"]
    cache.remove("y/a")
    assert cache.index_keys("color", "red") == []
    assert cache.index_values("color") == ["blue"]
    assert cache.remove("y/a") is None


def test_an_index_may_come_later_but_not_twice() -> None:
    cache: Indexer[Any] = Indexer()
    cache.put("ns/a", obj("a", 1, color="red"))
    with pytest.raises(IndexerError, match=r"index color: there is none.*namespace"):
        cache.by_index("color", "red")
    cache.add_indexers({"color": by_color})
    assert cache.index_keys("color", "red") == ["ns/a"]
    with pytest.raises(IndexerError, match="one already"):
        cache.add_indexers({"color": by_color})


def test_an_index_function_that_raises_is_told_and_the_object_kept() -> None:
    told: list[tuple[str, str]] = []
    cache: Indexer[Any] = Indexer(
        {"color": lambda found: [found["color"]]}, failed=lambda index, key, _: told.append((index, key))
    )
    cache.put("ns/a", obj("a", 1))
    assert told == [("color", "ns/a")]
    assert cache.get("ns/a") is not None


_changes = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.lists(st.sampled_from("xyz"), max_size=3))),
    max_size=40,
)


@given(_changes)
def test_indexes_agree_with_the_objects(changes: list[tuple[str, list[str] | None]]) -> None:
    cache: Indexer[Any] = Indexer({"tags": lambda found: found["tags"]})
    truth: dict[str, list[str]] = {}
    for name, tags in changes:
        if tags is None:
            cache.remove(f"ns/{name}")
            truth.pop(name, None)
        else:
            cache.put(f"ns/{name}", obj(name, 1, tags=tags))
            truth[name] = tags
    for tag in "xyz":
        assert set(cache.index_keys("tags", tag)) == {f"ns/{name}" for name, tags in truth.items() if tag in tags}
    assert set(cache.index_values("tags")) == {tag for tags in truth.values() for tag in tags}


def test_a_lister_selects_and_says_what_it_does_not_find() -> None:
    cache: Indexer[Any] = Indexer()
    for name, namespace, app in (("a", "x", "web"), ("b", "x", "db"), ("c", "y", "web")):
        cache.put(f"{namespace}/{name}", obj(name, 1, namespace=namespace, metadata={"labels": {"app": app}}))
    lister = Lister(cache, "apps", "deployments")
    names = [found["metadata"]["name"] for found in lister.list(parse("app=web"))]
    assert names == ["a", "c"]
    assert len(lister.list()) == 3
    assert [found["metadata"]["name"] for found in lister.namespaced("x").list(parse("app=web"))] == ["a"]
    assert lister.namespaced("y").get("c")["metadata"]["name"] == "c"
    with pytest.raises(NotFound, match=r'deployments\.apps "c" not found'):
        lister.namespaced("x").get("c")
    with pytest.raises(NotFound):
        lister.get("c")


def test_structs_and_dictionaries_are_read_alike() -> None:
    typed = Pod(metadata=ObjectMeta(name="a", namespace="x", uid="u", resource_version="3", labels={"k": "v"}))
    plain = {"metadata": {"name": "a", "namespace": "x", "uid": "u", "resourceVersion": "3", "labels": {"k": "v"}}}
    for read in (key_of, namespace_of, uid_of, resource_version_of, labels_of, annotations_of):
        assert read(typed) == read(plain)
    assert key_of(typed) == "x/a"
    assert key_of({"metadata": {"name": "node"}}) == "node"
    assert key_of(DeletedFinalStateUnknown("x/a", None)) == "x/a"
    assert split_key("x/a") == ("x", "a")
    assert split_key("node") == ("", "node")
    nameless: tuple[Any, ...] = ({}, {"metadata": {}}, Pod(), 3)
    for broken in nameless:
        with pytest.raises(ObjectKeyError):
            key_of(broken)
