"""GitOps: keep a cluster as git says, by Argo CD's Application, AppProject and ApplicationSet.

`add_gitops(manager, GitopsOptions(directory=...))` adds it to a manager.
"""

from __future__ import annotations

from .adding import GITOPS_KINDS, Gitops, GitopsOptions, add_gitops, install_gitops_kinds
from .asking import request_refresh, request_sync, rollback, terminate
from .mirrors import Limits
from .rejections import reject_revision
from .repositories import Polling

__all__ = [
    "GITOPS_KINDS",
    "Gitops",
    "GitopsOptions",
    "Limits",
    "Polling",
    "add_gitops",
    "install_gitops_kinds",
    "reject_revision",
    "request_refresh",
    "request_sync",
    "rollback",
    "terminate",
]
