from __future__ import annotations

import copy

import pytest

from pilothouse.apiserver.access.aggregation import ClusterRoleAggregation
from pilothouse.apiserver.access.default_roles import Change, changes, default_objects, reconcile
from pilothouse.apiserver.access.rbac import RESOURCES, RbacAuthorizer
from pilothouse.apiserver.model import ANONYMOUS, User
from pilothouse.kinds.status import Forbidden
from pilothouse.kinds.validation import validate_create
from support.accessview import RBAC, MemoryLocal, MemoryView, asks, asks_path, binding, group, person, role, rule

ROLES = f"clusterroles.{RBAC}"
BINDINGS = f"clusterrolebindings.{RBAC}"
USER = User("jane", groups=("system:authenticated",))


async def started() -> tuple[MemoryView, MemoryLocal]:
    view = MemoryView()
    local = MemoryLocal(view)
    await reconcile(view, local)
    aggregation = ClusterRoleAggregation(view, local)
    for _ in range(4):
        await aggregation.step()
    return view, local


def test_the_defaults_are_valid_objects_with_the_marks_of_kubernetes() -> None:
    found = default_objects()
    assert len(found) == 31 + 38 + 7 + 38 + 12 + 7
    assert {resource for resource, _ in found} == set(RESOURCES)
    keys = {(resource, obj["metadata"].get("namespace"), obj["metadata"]["name"]) for resource, obj in found}
    assert len(keys) == len(found)
    for _, obj in found:
        assert not validate_create(obj, (RBAC, "v1", obj["kind"])), obj["metadata"]["name"]
        assert obj["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"
        assert obj["metadata"]["annotations"] == {"rbac.authorization.kubernetes.io/autoupdate": "true"}
        for one in obj.get("rules", ()):
            assert one["verbs"] == sorted(one["verbs"])
            assert one.get("resources", []) == sorted(one.get("resources", []))


def test_each_default_binding_is_to_a_default_role() -> None:
    roles = {
        (obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"])
        for _, obj in default_objects()
        if "roleRef" not in obj
    }
    for _, obj in default_objects():
        if "roleRef" in obj:
            reference = obj["roleRef"]
            namespace = obj["metadata"].get("namespace") if reference["kind"] == "Role" else None
            assert (reference["kind"], namespace, reference["name"]) in roles


def test_what_the_platform_adds_is_valid_and_bound_to_roles_that_are_there() -> None:
    plain = default_objects()
    found = default_objects(platform=True)
    keys = [(resource, obj["metadata"].get("namespace"), obj["metadata"]["name"]) for resource, obj in found]
    assert len(set(keys)) == len(keys)
    assert [each for each in found if each in plain] == plain
    for resource, obj in found:
        assert not validate_create(obj, (RBAC, "v1", obj["kind"])), obj["metadata"]["name"]
        if (resource, obj) not in plain:
            assert obj["metadata"]["name"].startswith("system:pilothouse:")
        if "roleRef" in obj:
            local = obj["roleRef"]["kind"] == "Role"
            where = (f"roles.{RBAC}", obj["metadata"]["namespace"]) if local else (ROLES, None)
            assert (*where, obj["roleRef"]["name"]) in keys


NODE = User("system:node:n1", groups=("system:nodes", "system:authenticated"))
JOINING = User("system:bootstrap:abcdef", groups=("system:bootstrappers", "system:authenticated"))
WORKING = User("system:pilothouse:controllers", groups=("system:authenticated",))
SIGNERS = "certificates.k8s.io"
PLATFORM = [
    # who, verb, resource, group, namespace, whether they may
    (WORKING, "create", "pods", "", "x", True),
    (WORKING, "create", "pods/binding", "", "x", True),
    (WORKING, "update", "certificatesigningrequests/approval", SIGNERS, "", True),
    (WORKING, "create", "storageclasses", "storage.k8s.io", "", True),
    (WORKING, "delete", "secrets", "", "kube-system", True),
    (WORKING, "delete", "secrets", "", "x", False),
    (WORKING, "create", "secrets", "", "kube-system", False),
    (WORKING, "create", "serviceaccounts/token", "", "x", False),
    (WORKING, "create", "clusterrolebindings", RBAC, "", False),
    (WORKING, "create", "pods/exec", "", "x", False),
    (NODE, "watch", "services", "", "", True),
    (NODE, "list", "endpointslices", "discovery.k8s.io", "", True),
    (NODE, "list", "networkpolicies", "networking.k8s.io", "", True),
    (NODE, "create", "certificatesigningrequests/selfnodeserver", SIGNERS, "", True),
    (NODE, "create", "certificatesigningrequests/selfnodeclient", SIGNERS, "", True),
    (NODE, "create", "certificatesigningrequests/nodeclient", SIGNERS, "", False),
    (NODE, "list", "secrets", "", "x", False),
    (NODE, "update", "services", "", "x", False),
    (NODE, "delete", "pods", "", "x", False),
    (JOINING, "create", "certificatesigningrequests", SIGNERS, "", True),
    (JOINING, "create", "certificatesigningrequests/nodeclient", SIGNERS, "", True),
    (JOINING, "update", "certificatesigningrequests/approval", SIGNERS, "", False),
    (JOINING, "get", "pods", "", "x", False),
]


async def test_what_the_platforms_own_users_may() -> None:
    view = MemoryView()
    await reconcile(view, MemoryLocal(view), platform=True)
    rbac = RbacAuthorizer(view)
    bare = RbacAuthorizer((await started())[0])
    for user, verb, resource, group_of, namespace, expected in PLATFORM:
        asked = asks(user, verb, resource, namespace, api_group=group_of)
        assert rbac.authorize(asked).allowed is expected, (user.name, verb, resource)
        assert not bare.authorize(asked).allowed, (user.name, verb, resource)


async def test_anonymous_learns_health_and_version_and_nothing_else() -> None:
    view, _ = await started()
    rbac = RbacAuthorizer(view)
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert rbac.authorize(asks_path(ANONYMOUS, "get", path)).allowed
    for path in ("/api", "/apis", "/openapi/v3", "/metrics", "/", "/livez/ping", "/openid/v1/jwks"):
        assert not rbac.authorize(asks_path(ANONYMOUS, "get", path)).allowed
    for verb, resource in (("list", "pods"), ("get", "nodes"), ("create", "selfsubjectaccessreviews")):
        assert not rbac.authorize(asks(ANONYMOUS, verb, resource)).allowed


async def test_a_user_learns_of_the_api_and_himself() -> None:
    view, _ = await started()
    rbac = RbacAuthorizer(view)
    for path in ("/api", "/apis/apps/v1", "/openapi/v2", "/version/"):
        assert rbac.authorize(asks_path(USER, "get", path)).allowed
    assert not rbac.authorize(asks_path(USER, "get", "/metrics")).allowed
    own = asks(USER, "create", "selfsubjectaccessreviews", api_group="authorization.k8s.io")
    assert rbac.authorize(own).allowed
    assert not rbac.authorize(asks(USER, "list", "pods", "default")).allowed


ADMIN, EDIT, VIEW, ROOT = "admin", "edit", "view", "cluster-admin"
CASES = [
    # verb, resource, group, who of the four may
    ("get", "pods", "", {ADMIN, EDIT, VIEW, ROOT}),
    ("create", "pods", "", {ADMIN, EDIT, ROOT}),
    ("get", "pods/log", "", {ADMIN, EDIT, VIEW, ROOT}),
    ("create", "pods/exec", "", {ADMIN, EDIT, ROOT}),
    ("create", "pods/eviction", "", {ADMIN, EDIT, ROOT}),
    ("get", "secrets", "", {ADMIN, EDIT, ROOT}),
    ("list", "configmaps", "", {ADMIN, EDIT, VIEW, ROOT}),
    ("delete", "deployments", "apps", {ADMIN, EDIT, ROOT}),
    ("patch", "deployments/scale", "apps", {ADMIN, EDIT, ROOT}),
    ("update", "deployments/status", "apps", {ROOT}),
    ("list", "endpointslices", "discovery.k8s.io", {ADMIN, EDIT, VIEW, ROOT}),
    ("update", "endpoints", "", {ROOT}),
    ("create", "roles", RBAC, {ADMIN, ROOT}),
    ("list", "rolebindings", RBAC, {ADMIN, ROOT}),
    ("create", "localsubjectaccessreviews", "authorization.k8s.io", {ADMIN, ROOT}),
    ("create", "serviceaccounts/token", "", {ADMIN, EDIT, ROOT}),
    ("impersonate", "serviceaccounts", "", {ADMIN, EDIT, ROOT}),
    ("update", "resourcequotas", "", {ROOT}),
    ("get", "resourcequotas", "", {ADMIN, EDIT, VIEW, ROOT}),
    ("update", "namespaces", "", {ROOT}),
    ("get", "namespaces", "", {ADMIN, EDIT, VIEW, ROOT}),
    ("get", "nodes", "", {ROOT}),
    ("get", "crontabs", "example.com", {ROOT}),
]


async def test_what_the_roles_for_people_allow_in_a_namespace() -> None:
    view, _ = await started()
    for name in (ADMIN, EDIT, VIEW, ROOT):
        view.bind(f"is-{name}", name, person(name), namespace="team")
    rbac = RbacAuthorizer(view)
    for verb, resource, api_group, expected in CASES:
        for name in (ADMIN, EDIT, VIEW, ROOT):
            who = User(name)
            told = rbac.authorize(asks(who, verb, resource, "team", api_group=api_group))
            assert told.allowed is (name in expected), (verb, resource, name)
            assert not rbac.authorize(asks(who, verb, resource, "other", api_group=api_group)).allowed
            assert not rbac.authorize(asks(who, verb, resource, "", api_group=api_group)).allowed


async def test_a_new_role_joins_those_it_is_labelled_for() -> None:
    view, local = await started()
    view.bind("is-view", VIEW, person("v"), namespace="team")
    rbac, aggregation = RbacAuthorizer(view), ClusterRoleAggregation(view, local)
    wanted = asks(User("v"), "get", "crontabs", "team", api_group="example.com")
    assert not rbac.authorize(wanted).allowed
    fields = {"metadata": {"name": "crons", "labels": {f"{RBAC}/aggregate-to-view": "true"}}}
    view.put(ROLES, {**role("crons", rule("get", "example.com", "crontabs")), **fields})
    for _ in range(3):
        assert await aggregation.step()
    assert rbac.authorize(wanted).allowed
    view.remove(ROLES, "", "crons")
    for _ in range(3):
        await aggregation.step()
    assert not rbac.authorize(wanted).allowed


async def test_controllers_and_components_have_their_rights() -> None:
    view, _ = await started()
    rbac = RbacAuthorizer(view)
    deployment = User("system:serviceaccount:kube-system:deployment-controller")
    assert rbac.authorize(asks(deployment, "create", "replicasets", "x", api_group="apps")).allowed
    assert not rbac.authorize(asks(deployment, "get", "secrets", "x")).allowed
    scheduler = User("system:kube-scheduler")
    assert rbac.authorize(asks(scheduler, "create", "pods/binding", "x")).allowed
    assert rbac.authorize(asks(scheduler, "get", "configmaps", "kube-system", "kube-scheduler")).allowed
    assert not rbac.authorize(asks(scheduler, "get", "configmaps", "kube-system", "other")).allowed
    node = User("system:node:n1", groups=("system:nodes", "system:authenticated"))
    assert not rbac.authorize(asks(node, "get", "secrets", "x", "y")).allowed
    assert rbac.authorize(asks_path(User("m", groups=("system:monitoring",)), "get", "/metrics")).allowed
    account = User("a", groups=("system:serviceaccounts",))
    assert rbac.authorize(asks_path(account, "get", "/openid/v1/jwks")).allowed


async def test_a_second_start_writes_nothing() -> None:
    view, local = await started()
    assert list(changes(view.get)) == []
    assert await reconcile(view, local) == 0


async def test_what_was_taken_away_comes_back_and_what_was_added_stays() -> None:
    view, local = await started()
    lessened = copy.deepcopy(view.get(ROLES, "", "system:kube-dns"))
    assert lessened is not None
    lessened["rules"] = [rule("list", "", "services"), rule("get", "", "configmaps")]
    lessened["metadata"]["labels"] = {"mine": "x"}
    view.put(ROLES, lessened)
    bare = copy.deepcopy(view.get(BINDINGS, "", "system:discovery"))
    assert bare is not None
    bare["subjects"] = [group("others")]
    view.put(BINDINGS, bare)
    assert await reconcile(view, local) == 2
    found = view.get(ROLES, "", "system:kube-dns")
    assert found is not None
    assert found["rules"][:2] == lessened["rules"]
    assert found["rules"][2:] == [
        rule("list", "", "endpoints"),
        rule("watch", "", "endpoints"),
        rule("watch", "", "services"),
    ]
    assert found["metadata"]["labels"] == {"mine": "x", "kubernetes.io/bootstrapping": "rbac-defaults"}
    bound = view.get(BINDINGS, "", "system:discovery")
    assert bound is not None
    assert bound["subjects"] == [group("others"), group("system:authenticated")]


async def test_what_is_not_to_be_updated_is_left_alone() -> None:
    view, local = await started()
    kept = role("view")
    kept["metadata"]["annotations"] = {"rbac.authorization.kubernetes.io/autoupdate": "false"}
    view.put(ROLES, kept)
    assert await reconcile(view, local) == 0
    assert view.get(ROLES, "", "view") == kept


async def test_a_binding_to_another_role_is_replaced() -> None:
    view, local = await started()
    view.put(BINDINGS, binding("cluster-admin", "view", person("x")))
    local.calls.clear()
    assert await reconcile(view, local) == 1
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    assert local.calls == [("DELETE", f"{path}/cluster-admin"), ("POST", path)]
    found = view.get(BINDINGS, "", "cluster-admin")
    assert found is not None
    assert found["roleRef"]["name"] == "cluster-admin"


async def test_what_another_server_writes_meanwhile_is_left_to_it() -> None:
    view, other = MemoryView(), MemoryView()
    local = MemoryLocal(other)
    await reconcile(view, local)
    assert await reconcile(view, local) == 0
    local.refuse = Forbidden("no")
    with pytest.raises(Forbidden):
        await reconcile(view, local)


def test_paths_of_namespaced_objects() -> None:
    change = Change("create", f"roles.{RBAC}", {"metadata": {"name": "r", "namespace": "kube-system"}})
    assert change.path == "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/r"
