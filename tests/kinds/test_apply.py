"""Server-side apply: its laws on made-up kinds, and the rules around managed fields one by one."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.apply import ApplyConflictError, ApplyRefusedError, FieldManager, UnknownVersionError
from pilothouse.kinds.fieldset import FieldSet, decode_fields, difference, of_paths, union
from pilothouse.kinds.lastapplied import ANNOTATION
from pilothouse.kinds.managedfields import MAX_UPDATE_ENTRIES, ManagedFieldsError, keep_times
from pilothouse.kinds.schema import ANY, Schema
from pilothouse.kinds.typed import TypedError, compile_schema

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = Schema("string")
NUMBER = Schema("integer")
PORT = Schema(
    "object",
    fields_or_thunk={"port": NUMBER, "protocol": Schema("string", default="TCP", has_default=True), "name": TEXT},
)
SPEC = Schema(
    "object",
    fields_or_thunk={
        "replicas": NUMBER,
        "image": TEXT,
        "labels": Schema("map", element=TEXT),
        "selector": Schema("map", element=TEXT, map_type="atomic"),
        "args": Schema("list", element=TEXT),
        "finalizers": Schema("list", element=TEXT, list_type="set"),
        "ports": Schema("list", element=PORT, list_type="map", list_keys=("port", "protocol")),
        "open": ANY,
    },
)
META = Schema(
    "object",
    fields_or_thunk={
        "name": TEXT,
        "uid": TEXT,
        "labels": Schema("map", element=TEXT),
        "annotations": Schema("map", element=TEXT),
        "managedFields": Schema("list", element=ANY),
    },
)
KIND = Schema(
    "object", fields_or_thunk={"apiVersion": TEXT, "kind": TEXT, "metadata": META, "spec": SPEC, "status": SPEC}
)
VALUES = st.sampled_from(["x", "y"])
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 2),
        "image": VALUES,
        "labels": st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
        "selector": st.dictionaries(st.sampled_from("ab"), VALUES, min_size=1, max_size=2),
        "args": st.lists(VALUES, max_size=2),
        "finalizers": st.lists(VALUES, unique=True, min_size=1, max_size=2),
        "ports": st.lists(
            st.fixed_dictionaries({"port": st.integers(1, 3)}, optional={"name": VALUES}),
            unique_by=lambda item: item["port"],
            min_size=1,
            max_size=3,
        ),
        "open": st.recursive(VALUES | st.integers(0, 1), lambda inner: st.dictionaries(VALUES, inner, max_size=2)),
    },
)


def manager(**options: Any) -> FieldManager:
    return FieldManager(KIND, "v1", empty={"metadata": {}, "spec": {}}, **options)


def obj(spec: Object | None = None, **metadata: Any) -> Object:
    made: Object = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t", **metadata}}
    return made if spec is None else {**made, "spec": spec}


def entries(made: Object) -> list[Object]:
    return list(made["metadata"].get("managedFields", []))


def owned(made: Object, owner: str) -> FieldSet:
    sets = [decode_fields(entry["fieldsV1"]) for entry in entries(made) if entry.get("manager") == owner]
    return sets[0] if sets else {}


def filled(value: Any) -> Any:
    """Return the value with lists in one order and without what is empty: emptied containers go, as in Kubernetes."""
    if isinstance(value, dict):
        return {name: inner for name, item in value.items() if (inner := filled(item)) not in ({}, [], None)} or None
    return sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, list) else value


def stored(made: Object) -> Object:
    out = copy.deepcopy(made)
    out["metadata"]["uid"] = "u"
    return out


@given(SPECS)
def test_apply_is_idempotent(spec: Object) -> None:
    first = manager().apply(None, obj(spec), "a", NOW)
    live = stored(first)
    before = copy.deepcopy(live)
    assert manager().apply(live, obj(spec), "a", NOW + timedelta(hours=1)) == live
    assert live == before


@given(SPECS, SPECS)
def test_applying_again_after_another_configuration_gives_the_first_object(one: Object, two: Object) -> None:
    first = manager().apply(None, obj(one), "a", NOW)
    second = manager().apply(stored(first), obj(two), "a", NOW)
    third = manager().apply(stored(second), obj(one), "a", NOW)
    assert owned(third, "a") == owned(first, "a")
    assert filled(third.get("spec")) == filled(first.get("spec"))


@given(SPECS, SPECS)
def test_two_owners_of_disjoint_fields_commute(one: Object, two: Object) -> None:
    mine = {name: value for name, value in one.items() if name in {"replicas", "labels", "ports", "finalizers"}}
    theirs = {name: value for name, value in two.items() if name in {"image", "selector", "args", "open"}}
    left = manager().apply(stored(manager().apply(None, obj(mine), "a", NOW)), obj(theirs), "b", NOW)
    right = manager().apply(stored(manager().apply(None, obj(theirs), "b", NOW)), obj(mine), "a", NOW)
    left["metadata"].pop("uid"), right["metadata"].pop("uid")
    for made in (left, right):  # an owner whose apply changed nothing has no time
        made["metadata"]["managedFields"] = [{**entry, "time": ""} for entry in entries(made)]
        made["metadata"]["managedFields"].sort(key=lambda entry: entry["manager"])
    assert left == right


@given(SPECS)
def test_applying_nothing_removes_fields_and_ownership(spec: Object) -> None:
    live = stored(manager().apply(None, obj(spec), "a", NOW))
    bare = manager().apply(live, obj(), "a", NOW)
    assert entries(bare) == []
    assert "spec" not in bare


@given(SPECS, SPECS)
def test_the_owners_together_cover_what_was_applied_and_no_more(one: Object, two: Object) -> None:
    live = stored(manager().apply(None, obj(one), "a", NOW))
    both = manager().apply(live, obj(two), "b", NOW, force=True)
    node = compile_schema(KIND)
    mine, theirs = (node.owned(obj(spec)) or {} for spec in (one, two))
    held = union(owned(both, "a"), owned(both, "b"))
    assert difference(held, union(mine, theirs)) == {}
    assert owned(both, "b").get("f:spec") == theirs.get("f:spec")
    # What the one who applied first has lost is what the other gave another value.
    lost = difference(mine.get("f:spec") or {}, held.get("f:spec") or {})
    assert {element[2:] for element in lost} <= {name for name in two if one.get(name) != two[name]}


@given(SPECS, SPECS)
def test_an_update_leaves_each_changed_field_to_the_updater(one: Object, two: Object) -> None:
    live = stored(manager().apply(None, obj(one), "a", NOW))
    new = {**live, "spec": two}
    after = manager().update(live, new, "u", NOW)
    changed = {name for name in two if one.get(name) != two[name]}
    if changed:
        assert changed >= {element[2:] for element in owned(after, "u").get("f:spec", {})} - {"."}
    else:
        assert owned(after, "u") == {}
    assert {key: value for key, value in after.items() if key != "metadata"} == {
        key: value for key, value in new.items() if key != "metadata"
    }


@given(SPECS, SPECS)
def test_creates_of_one_shape_are_remembered_with_the_same_owners(one: Object, two: Object) -> None:
    warm = manager()
    for spec in (one, two, one, two):
        made = warm.update(None, obj(spec), "u", NOW)
        assert made == manager().update(None, obj(spec), "u", NOW)


def test_a_conflict_names_the_owner_and_each_field() -> None:
    live = stored(manager().update(None, obj({"replicas": 1, "image": "x"}), "kubectl", NOW))
    with pytest.raises(ApplyConflictError) as refused:
        manager().apply(live, obj({"replicas": 2}), "a", NOW)
    assert str(refused.value) == 'Apply failed with 1 conflict: conflict with "kubectl" using v1: .spec.replicas'
    live = stored(manager(subresource="scale").apply(live, obj({"labels": {"a": "x"}}), "hpa", NOW))
    with pytest.raises(ApplyConflictError) as refused:
        manager().apply(live, obj({"replicas": 2, "image": "y", "labels": {"a": "y"}}), "a", NOW)
    assert str(refused.value) == (
        'Apply failed with 3 conflicts: conflicts with "hpa" with subresource "scale":\n- .spec.labels.a\n'
        'conflicts with "kubectl" using v1:\n- .spec.image\n- .spec.replicas'
    )
    assert refused.value.causes[0] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "hpa" with subresource "scale"',
        "field": ".spec.labels.a",
    }


def test_force_takes_ownership_and_an_equal_value_shares_it() -> None:
    live = stored(manager().apply(None, obj({"replicas": 1, "image": "x"}), "a", NOW))
    shared = stored(manager().apply(live, obj({"replicas": 1}), "b", NOW))
    assert owned(shared, "a") == owned(live, "a")
    taken = manager().apply(shared, obj({"replicas": 2}), "b", NOW, force=True)
    assert owned(taken, "a") == of_paths([("f:spec", "f:image")])
    assert owned(taken, "b") == of_paths([("f:spec", "f:replicas")])


def test_a_field_stays_while_another_owner_has_it() -> None:
    live = stored(manager().apply(None, obj({"labels": {"a": "x", "b": "x"}}), "a", NOW))
    live = stored(manager().apply(live, obj({"labels": {"a": "x"}}), "b", NOW))
    after = manager().apply(live, obj(), "a", NOW)
    assert after["spec"] == {"labels": {"a": "x"}}
    assert [entry["manager"] for entry in entries(after)] == ["b"]


def test_a_list_map_keeps_others_items_and_uses_the_default_of_a_key() -> None:
    live = stored(manager().apply(None, obj({"ports": [{"port": 1, "name": "x"}, {"port": 2}]}), "a", NOW))
    both = manager().apply(live, obj({"ports": [{"port": 2, "protocol": "TCP", "name": "y"}, {"port": 3}]}), "b", NOW)
    assert both["spec"]["ports"] == [
        {"port": 1, "name": "x"},
        {"port": 2, "protocol": "TCP", "name": "y"},
        {"port": 3},
    ]
    less = manager().apply(stored(both), obj({"ports": [{"port": 2}]}), "a", NOW)
    assert [port["port"] for port in less["spec"]["ports"]] == [2, 3]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"replicas": "1"}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"nope": 1}, ".spec.nope: field not declared in schema"),
        (
            {"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]},
            '.spec.ports: duplicate entries for key [port=1,protocol="TCP"]',
        ),
        ({"finalizers": ["x", "x"]}, '.spec.finalizers: duplicate entries for key [="x"]'),
        ({"labels": {"a": 1}}, ".spec.labels.a: expected string, got &value.valueUnstructured{Value:1}"),
        ({"args": [1]}, ".spec.args[0]: expected string, got &value.valueUnstructured{Value:1}"),
        ({"labels": ["x", 1]}, ".spec.labels: expected map, got &{[x 1]}"),
        (
            {"labels": {"": ["x"]}},
            '.spec.labels.: expected string, got &value.valueUnstructured{Value:[]interface {}{"x"}}',
        ),
        (
            {"finalizers": [None]},
            ".spec.finalizers: element 0: associative list without keys has an element that's an explicit null",
        ),
    ],
)
def test_an_applied_configuration_must_fit_the_schema(spec: Object, message: str) -> None:
    with pytest.raises(TypedError) as refused:
        manager().apply(None, obj(spec), "a", NOW)
    assert refused.value.errors == (message,)


def test_another_version_and_managed_fields_are_refused() -> None:
    with pytest.raises(ApplyRefusedError, match=r"Specified patch version: v2, expected: v1"):
        manager().apply(None, {**obj({}), "apiVersion": "v2"}, "a", NOW)
    with pytest.raises(ApplyRefusedError, match=r"metadata\.managedFields must be nil"):
        manager().apply(None, obj({}, managedFields=[]), "a", NOW)


def test_duplicates_of_a_stored_list_are_owned_as_one_thing() -> None:
    live = obj({"finalizers": ["x"]}, uid="u")
    managed = manager().update(None, live, "a", NOW)
    doubled = manager().update(managed, {**managed, "spec": {"finalizers": ["x", "x"]}}, "b", NOW)
    assert owned(doubled, "b") == of_paths([("f:spec", "f:finalizers", 'v:"x"')])
    again = manager().update(doubled, {**doubled, "spec": {"finalizers": ["x"]}}, "c", NOW)
    assert owned(again, "b") == {}
    assert owned(again, "c") == of_paths([("f:spec", "f:finalizers", 'v:"x"')])


def test_an_object_nobody_manages_is_tracked_from_its_first_apply() -> None:
    live = obj({"replicas": 1, "image": "x"}, uid="u")
    untouched = manager().update(live, {**live, "spec": {"replicas": 2}}, "u", NOW)
    assert entries(untouched) == []
    applied = manager().apply(live, obj({"replicas": 1}), "a", NOW)
    assert owned(applied, "before-first-apply") == of_paths([("f:spec", "f:image"), ("f:spec", "f:replicas")])
    with pytest.raises(ApplyConflictError, match='conflict with "before-first-apply" using v1'):
        manager().apply(live, obj({"replicas": 3}), "a", NOW)


def test_no_more_than_ten_update_entries_are_kept_apart() -> None:
    live = stored(manager().update(None, obj({"labels": {}}), "u0", NOW))
    for number in range(1, 15):
        labels = {**live["spec"]["labels"], f"l{number:02}": "x"}
        live = manager().update(
            live, {**live, "spec": {"labels": labels}}, f"u{number}", NOW + timedelta(seconds=number)
        )
    names = [entry["manager"] for entry in entries(live)]
    assert names == ["ancient-changes", *[f"u{number}" for number in range(6, 15)]]
    assert len(names) == MAX_UPDATE_ENTRIES
    folded = owned(live, "ancient-changes")["f:spec"]["f:labels"]
    assert folded.keys() >= {f"f:l{number:02}" for number in range(1, 6)}
    assert entries(live)[0]["time"] == "2026-01-01T00:00:05Z"


def test_times_move_only_when_the_object_changes() -> None:
    live = stored(manager().apply(None, obj({"replicas": 1}), "a", NOW))
    later = NOW + timedelta(hours=1)
    assert manager().apply(live, obj({"replicas": 1}), "a", later) == live
    joined = manager().apply(live, obj({"replicas": 1}), "b", later)
    assert "time" not in next(entry for entry in entries(joined) if entry["manager"] == "b")
    changed = manager().apply(live, obj({"replicas": 2}), "a", later)
    assert entries(changed)[0]["time"] == "2026-01-01T01:00:00Z"


def test_a_subresource_is_apart_and_does_not_own_what_is_reset() -> None:
    status = manager(subresource="status", reset={"v1": of_paths([("f:spec",)])})
    live = stored(manager().apply(None, obj({"replicas": 1}), "a", NOW))
    new = {**live, "spec": {"replicas": 5}, "status": {"replicas": 1}}
    made = status.update(live, new, "a", NOW)
    assert [(entry["operation"], entry.get("subresource")) for entry in entries(made)] == [
        ("Apply", None),
        ("Update", "status"),
    ]
    assert entries(made)[1]["fieldsV1"] == {"f:status": {".": {}, "f:replicas": {}}}
    applied = status.apply(live, {**obj({"replicas": 9}), "status": {"image": "x"}}, "s", NOW, force=True)
    assert owned(applied, "s") == of_paths([("f:status", "f:image")])


def test_what_the_server_keeps_is_owned_by_nobody() -> None:
    made = manager().update(None, obj(None, uid="u", labels={"a": "x"}), "u", NOW)
    assert entries(made)[0]["fieldsV1"] == {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}


def test_managed_fields_of_a_request_are_kept_cleared_or_taken() -> None:
    live = stored(manager().apply(None, obj({"replicas": 1}), "a", NOW))
    lost = {**live, "metadata": {"name": "t", "uid": "u"}}
    assert entries(manager().update(live, lost, "u", NOW)) == entries(live)
    clearing: list[list[Object]] = [[], [{}]]
    for cleared in clearing:
        assert entries(manager().update(live, obj({"replicas": 1}, uid="u", managedFields=cleared), "u", NOW)) == []
    unreadable = [{**entries(live)[0], "operation": "Guess"}]
    kept = manager().update(live, obj({"replicas": 1}, uid="u", managedFields=unreadable), "u", NOW)
    assert entries(kept) == entries(live)
    renamed = [{**entries(live)[0], "manager": "z"}]
    made = manager().update(live, obj({"replicas": 1}, uid="u", managedFields=renamed), "u", NOW)
    assert entries(made) == renamed


def test_unreadable_managed_fields_of_a_live_object_refuse_apply() -> None:
    live = obj({}, uid="u", managedFields=[{"manager": "a", "operation": "Apply", "apiVersion": "v1"}])
    with pytest.raises(ManagedFieldsError, match="missing fieldsType in managed fields entry 0"):
        manager().apply(live, obj({}), "a", NOW)


def test_an_object_that_does_not_fit_is_left_without_managed_fields() -> None:
    assert entries(manager().update(None, obj({"ports": [None]}), "u", NOW)) == []


def test_a_request_that_changes_only_times_is_no_change() -> None:
    live = stored(manager().apply(None, obj({"replicas": 1}), "a", NOW))
    later = copy.deepcopy(live)
    later["metadata"]["managedFields"][0]["time"] = "2027-01-01T00:00:00Z"
    assert keep_times(live, later) == live
    later["spec"]["replicas"] = 2
    assert keep_times(live, later) is later


class Renamed:
    """Two versions of the kind, of which `v2` calls the image `picture`."""

    def schema(self, api_version: str) -> Schema:
        if api_version != "v2":
            raise UnknownVersionError(api_version)
        spec = Schema("object", fields_or_thunk={"picture": TEXT, **SPEC.fields})
        return Schema("object", fields_or_thunk={**KIND.fields, "spec": spec})

    def convert(self, obj: Object, api_version: str) -> Object:
        if api_version not in {"v1", "v2"}:
            raise UnknownVersionError(api_version)
        names = ("image", "picture") if api_version == "v2" else ("picture", "image")
        spec = {names[1] if name == names[0] else name: value for name, value in (obj.get("spec") or {}).items()}
        return {**obj, "apiVersion": api_version, "spec": spec}


def test_entries_of_other_versions_are_compared_in_their_version() -> None:
    two = FieldManager(Renamed().schema("v2"), "v2", versions=Versions(), empty={"metadata": {}, "spec": {}})
    applied = {**obj({"picture": "x", "replicas": 1}), "apiVersion": "v2"}
    live = stored(two.apply(None, applied, "a", NOW))
    as_v1 = Renamed().convert(live, "v1")
    changed = manager(versions=Renamed()).update(as_v1, {**as_v1, "spec": {"image": "y", "replicas": 1}}, "u", NOW)
    assert owned(changed, "a") == of_paths([("f:spec", "f:replicas")])
    dropped = manager(versions=Renamed()).apply(as_v1, obj({"replicas": 1}), "a", NOW)
    assert dropped["spec"] == {"replicas": 1}
    gone = manager().update(as_v1, {**as_v1, "spec": {"image": "y", "replicas": 1}}, "u", NOW)
    assert [entry["manager"] for entry in entries(gone)] == ["u"]


class Versions(Renamed):
    """The same, seen from `v2`."""

    def schema(self, api_version: str) -> Schema:
        return KIND if api_version == "v1" else super().schema(api_version)


def test_what_became_atomic_is_owned_as_a_whole() -> None:
    live = stored(manager().apply(None, obj({"labels": {"a": "x"}}), "a", NOW))
    spec = Schema("object", fields_or_thunk={**SPEC.fields, "labels": SPEC.fields["selector"]})
    atomic = FieldManager(Schema("object", fields_or_thunk={**KIND.fields, "spec": spec}), "v1", evolving=True)
    after = atomic.update(live, {**live, "status": {"image": "x"}}, "u", NOW)
    assert owned(after, "a") == of_paths([("f:spec", "f:labels")])


def test_kubectl_takes_over_what_it_put_there_by_client_side_apply() -> None:
    last = obj({"replicas": 1, "image": "x"})
    live = obj({"replicas": 1, "image": "x"}, annotations={ANNOTATION: json.dumps(last)})
    live = stored(manager().update(None, live, "kubectl-client-side-apply", NOW))
    made = manager().apply(live, obj({"replicas": 2, "image": "x"}), "kubectl", NOW)
    assert made["spec"]["replicas"] == 2
    assert json.loads(made["metadata"]["annotations"][ANNOTATION]) == obj({"replicas": 2, "image": "x"})
    with pytest.raises(ApplyConflictError):
        manager().apply(live, obj({"replicas": 2}), "other", NOW)
    changed = stored(manager().update(live, {**live, "spec": {"replicas": 5, "image": "x"}}, "hpa", NOW))
    with pytest.raises(ApplyConflictError) as refused:
        manager().apply(changed, obj({"replicas": 2, "image": "y"}), "kubectl", NOW)
    assert [cause["field"] for cause in refused.value.causes] == [".spec.replicas"]


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [(5, None, None), ([1], None, None), ({"a": 1}, None, {"a": 1}), ({"a": 5}, {"a": None}, {"a": None})],
)
def test_null_replaces_what_is_open_unless_it_is_a_map(live: object, applied: object, merged: object) -> None:
    assert compile_schema(ANY).merge(live, applied) == merged
