"""A rollout out of a git repository that is served over HTTP, and what its application says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

from .githttp import git_server
from .gitrepo import GitRepo
from .rolloutfleet import Fleet, version_of
from .rolloutobjects import ARGO, application, canary_front, rollout

__all__ = ["Delivered"]

Object = dict[str, Any]


class Delivered:
    """A rollout of a name in a repository below a directory, whose server may go and come back."""

    def __init__(self, fleet: Fleet, name: str, strategy: Object, directory: Path) -> None:
        self._fleet, self._name, self._strategy = fleet, name, strategy
        self._repo = GitRepo(directory / "work")
        self._served = directory / "served" / f"{name}.git"
        self._repo.git("clone", "--quiet", "--bare", str(self._repo.path), str(self._served))
        self.git("config", "http.receivepack", "true")
        # At another address than that of outgoing connections: its port is still free when it comes back.
        self._address = str(ip_network(fleet.platform.slot.gateways)[-2]), 0
        self._path = f"/apis/{ARGO}/namespaces/argocd/applications/{name}"

    # The repository

    def git(self, *arguments: str) -> str:
        """Run git in the repository that is served."""
        return self._repo.git("--git-dir", str(self._served), *arguments)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Serve the repository, each time at the same port."""
        with git_server(self._served.parent, address=self._address) as server:
            self._address = self._address[0], server.server_address[1]
            yield

    def push(self, version: str) -> str:
        """Commit a version and push it; return the commit."""
        objects = [*canary_front(self._name), rollout(self._name, version, self._strategy)]
        commit = self._repo.commit({f"{self._name}/all.yaml": yaml.safe_dump_all(objects)})
        self._repo.git("push", "--quiet", str(self._served), "HEAD:refs/heads/main")
        return commit

    # The application

    def begin(self) -> None:
        """Make the application."""
        host, port = self._address
        self._fleet.apply(*application(self._name, f"http://{host}:{port}/{self._name}.git"))

    def refresh(self) -> None:
        """Have the application look at its repository."""
        asked = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}
        self._fleet.platform.call("PATCH", self._path, asked)

    def status(self) -> Object:
        """Return the application's status."""
        found: Object = self._fleet.platform.call("GET", self._path).get("status", {})
        return found

    def rejected(self) -> str:
        """Return the revisions of the application that are pinned as bad."""
        found = self._fleet.platform.call("GET", self._path)["metadata"].get("annotations") or {}
        return str(found.get("pilothouse.dev/rejected-revisions", ""))

    # What came of it

    def version(self) -> str:
        """Return which version the rollout in the cluster asks for."""
        return version_of(self._fleet.get("rollouts", self._name)["spec"]["template"])

    def reverting(self) -> Object:
        """Return what the incident of the rollout says of git."""
        found = self._fleet.get("incidents", api="pilothouse.dev/v1alpha1")["items"]
        own = [each.get("status", {}).get("git", {}) for each in found if each["spec"]["rollout"] == self._name]
        return own[0] if own else {}
