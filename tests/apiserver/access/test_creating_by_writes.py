"""Who may update or patch, but not create, makes no object by an apply or a PUT of one that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.status import Forbidden
from pilothouse.testing import ControlPlane

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASE = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {}}
APPLY: dict[str, Any] = {"content_type": "application/apply-patch+yaml"}


async def grant(plane: ControlPlane, *verbs: str) -> None:
    role = {"metadata": {"name": "writer"}, "rules": [{"apiGroups": ["*"], "resources": ["leases"], "verbs": [*verbs]}]}
    await plane.call("POST", f"{RBAC}/clusterroles", role)
    binding = {
        "metadata": {"name": "writer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writer"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await plane.call("POST", f"{RBAC}/clusterrolebindings", binding)


@pytest.mark.parametrize(("method", "verb"), [("PATCH", "patch"), ("PUT", "update")])
async def test_a_write_that_creates_wants_the_right_to_create(method: str, verb: str) -> None:
    path, options = f"{LEASES}/a?fieldManager=ann", APPLY if method == "PATCH" else {}
    async with ControlPlane(lifecycle=False) as plane:
        await grant(plane, "get", verb)
        ann = plane.as_user("ann")
        with pytest.raises(Forbidden, match='User "ann" cannot create resource "leases"'):
            await ann.call(method, path, LEASE, **options)
        made = await plane.call("POST", LEASES, LEASE)
        await ann.call(method, path, LEASE if method == "PATCH" else made, **options)


@pytest.mark.parametrize(("method", "verb"), [("PATCH", "patch"), ("PUT", "update")])
async def test_with_it_the_object_is_made(method: str, verb: str) -> None:
    options = APPLY if method == "PATCH" else {}
    async with ControlPlane(lifecycle=False) as plane:
        await grant(plane, "create", verb)
        await plane.as_user("ann").call(method, f"{LEASES}/a?fieldManager=ann", LEASE, **options)
        assert (await plane.call("GET", f"{LEASES}/a"))["metadata"]["name"] == "a"
