"""Rights are derived from what controllers do, no more, and granted no wider than the manager looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.kinds.structs import ConfigMap, Deployment, Namespace, Node, Pod, Resource, Secret
from pilothouse.operator import BuildError, Context, Manager, Reconciler, Request, Result, controller, needs
from pilothouse.operator.cli_manifests import _NoServer
from pilothouse.operator.handlers import itself
from pilothouse.operator.rbac import Permission, permissions_of, roles_of
from support.operatorkit import Site

WRITE = ["create", "delete", "get", "list", "patch", "update", "watch"]
READ = ["get", "list", "watch"]


class Berth(Resource, group="operator.example.com", version="v1", plural="berths", namespaced=False):
    """A kind of the whole cluster."""


async def nothing(obj: Resource, context: Context) -> None:
    """Do nothing."""


def manager_of(*kinds: type[Resource], namespace: str = "*") -> Manager:
    made = Manager(Client.for_transport(_NoServer()), namespace=namespace)
    made.scheme.register(Site, Berth, *kinds)
    return made


def said(permissions: Iterable[Permission]) -> dict[str, list[str]]:
    return {f"{each.resource}.{each.group}".rstrip("."): sorted(each.verbs) for each in permissions}


def test_rights_follow_from_the_controllers() -> None:
    manager = manager_of()
    controller(manager).for_(Site).owns(Deployment).watches(ConfigMap, itself).build(nothing)
    assert said(permissions_of(manager)) == {
        "sites.operator.example.com": [*READ[:2], "patch", "update", "watch"],
        "sites/status.operator.example.com": ["get", "patch", "update"],
        "sites/finalizers.operator.example.com": ["update"],
        "deployments.apps": WRITE,
        "configmaps": READ,
    }


def test_a_kind_that_is_both_owned_and_watched_may_be_written() -> None:
    manager = manager_of()
    controller(manager, "a").for_(Site).watches(ConfigMap, itself).build(nothing)
    controller(manager, "b").for_(Berth).owns(ConfigMap).build(nothing)
    assert said(permissions_of(manager))["configmaps"] == WRITE


def test_what_only_has_a_cache_is_read() -> None:
    manager = manager_of()
    controller(manager).for_(Site).build(nothing)
    manager.informer(Node)
    assert said(permissions_of(manager))["nodes"] == READ


@needs(Secret, "get", names=["token"])
class Base(Reconciler[Site]):
    @needs("pods/eviction", "create")
    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        return None


@needs(Pod, "list")
@needs(Pod, "delete", namespace="jobs")
class Derived(Base):
    pass


def test_markers_of_classes_their_bases_methods_functions_and_build_are_found() -> None:
    manager = manager_of()
    controller(manager, "a").for_(Site).build(Derived())

    @needs("deployments/scale", "patch")
    async def scales(obj: Berth, context: Context) -> None:
        """Scale."""

    @needs("certificates.cert-manager.io", "get", "list")
    def build(manager: Manager) -> None:
        controller(manager, "b").for_(Berth).build(scales)

    build(manager)
    found = permissions_of(manager, build)
    assert Permission("", "secrets", frozenset({"get"}), names=("token",)) in found
    assert Permission("", "pods", frozenset({"delete"}), namespace="jobs") in found
    assert Permission("", "pods", frozenset({"list"})) in found
    assert Permission("", "pods/eviction", frozenset({"create"})) in found
    assert Permission("apps", "deployments/scale", frozenset({"patch"})) in found
    assert Permission("cert-manager.io", "certificates", frozenset({"get", "list"})) in found


def test_resources_by_name_have_the_scope_that_kubernetes_knows() -> None:
    manager = manager_of()
    controller(manager).for_(Site).build(nothing)
    marked = needs("nodes", "get")(needs("widgets.example.com", "get", namespaced=False)(lambda: None))
    found = {each.resource: each.namespaced for each in permissions_of(manager, marked)}
    assert found["nodes"] is False
    assert found["widgets"] is False
    assert found["sites"] is True


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Secret,), {}, r"needs\(Secret\): no verbs"),
        ((Secret, "gets"), {}, r"'gets' is no verb; did you mean 'get'\?"),
        ((Secret, "*"), {}, r"'\*' is no verb; there are approve"),
        ((Secret, "get"), {"names": "one"}, r"write a list: \['one'\]"),
        ((Secret, "create"), {"names": ["one"]}, "cannot be bound to names"),
        (("Pods", "get"), {}, "want RESOURCE.GROUP/SUBRESOURCE"),
        (("pods", "get"), {"subresource": "log"}, "want RESOURCE.GROUP/SUBRESOURCE"),
    ],
)
def test_markers_that_say_nothing_are_refused(arguments: tuple[Any, ...], options: Any, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        needs(*arguments, **options)


@pytest.mark.parametrize(("name", "hint"), [("podz", "did you mean pods"), ("qwertyuiop", "write qwertyuiop.GROUP")])
def test_a_resource_that_kubernetes_does_not_have_is_refused(name: str, hint: str) -> None:
    manager = manager_of()
    controller(manager).for_(Site).build(nothing)
    with pytest.raises(BuildError, match=hint):
        permissions_of(manager, needs(name, "get")(lambda: None))


def granted(roles: list[dict[str, Any]]) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Return pairs of resource and verb by the kind of the role and its namespace."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for role in roles:
        if role["kind"].endswith("Role"):
            place = role["kind"], role["metadata"].get("namespace", "")
            pairs = {(name, verb) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
            found.setdefault(place, set()).update(pairs)
    return found


def test_all_namespaces_want_a_cluster_role_and_the_lease_only_its_own() -> None:
    manager = manager_of()
    controller(manager).for_(Site).owns(ConfigMap).build(nothing)
    roles = roles_of(manager, name="op", namespace="home", lease="op")
    found = granted(roles)
    assert found.keys() == {("ClusterRole", ""), ("Role", "home")}
    assert found["Role", "home"] == {("leases", verb) for verb in ("create", "get", "update")}
    assert {("events", "create"), ("events", "patch"), ("configmaps", "delete")} <= found["ClusterRole", ""]
    lease = [rule for role in roles if role["kind"] == "Role" for rule in role["rules"]]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in lease] == [
        (["create"], None),
        (["get", "update"], ["op"]),
    ]
    for binding in (role for role in roles if role["kind"].endswith("Binding")):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "op", "namespace": "home"}]


def test_one_namespace_wants_no_cluster_role() -> None:
    manager = manager_of(namespace="shop")
    controller(manager).for_(Site).owns(ConfigMap).build(nothing)
    assert granted(roles_of(manager, name="op", namespace="shop", lease="op")).keys() == {("Role", "shop")}
    assert granted(roles_of(manager, name="op", namespace="home", lease="op")).keys() == {
        ("Role", "shop"),
        ("Role", "home"),
    }


def test_in_one_namespace_only_kinds_of_the_cluster_are_granted_everywhere() -> None:
    manager = manager_of(namespace="shop")
    controller(manager).for_(Berth).owns(ConfigMap).watches(
        Namespace, lambda found: [Request("", found.metadata.name)]
    ).build(nothing)
    found = granted(roles_of(manager, name="op", namespace="shop"))
    assert {name for name, _ in found["ClusterRole", ""]} == {
        "berths",
        "berths/status",
        "berths/finalizers",
        "namespaces",
    }
    assert {name for name, _ in found["Role", "shop"]} == {"configmaps", "events"}
    assert found["Role", "default"] == {("events", "create"), ("events", "patch")}
