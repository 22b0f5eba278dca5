"""A world for GitOps: a control plane, a git repository, the controllers by a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from pilothouse.client import Client
from pilothouse.delivery.gitops import Gitops
from pilothouse.delivery.resources.applications import Application
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import ConfigMap, from_dict
from pilothouse.operator import Harness
from pilothouse.testing import ControlPlane
from support.gitrepo import GitRepo

Tree: TypeAlias = dict[str, Any]


def config_map(name: str, **data: str) -> str:
    lines = "".join(f"  {key}: {value!r}\n" for key, value in data.items())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n{lines}"


class World:
    """What a test works with."""

    def __init__(self, plane: ControlPlane, client: Client, harness: Harness, gitops: Gitops, repo: GitRepo) -> None:
        self.plane, self.client, self.harness, self.gitops, self.repo = plane, client, harness, gitops, repo

    async def make(self, name: str = "shop", *, path: str = "app", **spec: Any) -> Application:
        """Create an application of the repository; spec: what differs, `sync` its syncPolicy."""
        source = spec.pop("source", None) or {}
        tree: Tree = {
            "metadata": {"name": name, "namespace": "argocd", **spec.pop("metadata", {})},
            "spec": {
                "project": "default",
                "source": {"repoURL": self.repo.url, "path": path, "targetRevision": "main", **source},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"},
                "syncPolicy": spec.pop("sync", {"automated": {"prune": True, "selfHeal": True}}),
                **spec,
            },
        }
        return await self.client.create(from_dict(tree, Application))

    async def app(self, name: str = "shop") -> Application:
        return await self.client.get(Application, name, "argocd")

    async def settle(self, seconds: float = 0.0) -> None:
        await self.harness.settle()
        if seconds:
            await self.harness.advance(seconds)

    async def push(self, files: Mapping[str, str | bytes | None], name: str = "shop") -> str:
        """Commit, and have the repository looked at as a webhook would."""
        commit = self.repo.commit(files)
        await self.news()
        return commit

    async def news(self) -> None:
        self.gitops.repositories.news(self.repo.url)
        await self.gitops.repositories.idle()
        await self.harness.settle()

    async def data(self, name: str) -> dict[str, str] | None:
        try:
            return dict((await self.client.get(ConfigMap, name, "default")).data)
        except NotFound:
            return None

    async def sync_of(self, name: str = "shop") -> tuple[str, str]:
        status = (await self.app(name)).status
        return status.sync.status, status.health.status


Begin: TypeAlias = Callable[..., AbstractAsyncContextManager[World]]
