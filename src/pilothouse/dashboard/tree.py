"""The tree of an application's or workload's objects: what is in it, and whose child each is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .feeds import Digest

__all__ = ["MOST_NODES", "grown", "node"]

MOST_NODES: Final = 2_000
_RANK: Final = {"Application": 0, "Rollout": 1, "Deployment": 1, "StatefulSet": 1, "ReplicaSet": 2, "Pod": 3}


def node(kind: str, digest: Mapping[str, Any], parent: str = "") -> Digest:
    """Return an object as a node. Its key is KIND/NAMESPACE/NAME."""
    made = {
        "kind": kind,
        "namespace": digest.get("namespace", ""),
        "name": digest.get("name", ""),
        "parent": parent,
        "health": digest.get("health", ""),
        "message": digest.get("message", ""),
        "sync": digest.get("sync", ""),
        "prune": digest.get("prune", False),
        "created": digest.get("created", ""),
    }
    if kind == "Pod":
        total = len(digest.get("containers", ()))
        made |= {"note": digest.get("status", ""), "detail": f"{digest.get('ready', 0)}/{total}"}
        made["restarts"] = digest.get("restarts", 0)
    elif kind == "ReplicaSet":
        revision = digest.get("revision", "")
        made |= {"note": f"revision {revision}" if revision else "", "detail": _pods(digest)}
        made["hash"] = digest.get("hash", "")
    elif "replicas" in digest:
        made |= {"note": "", "detail": _pods(digest)}
    return made


def _pods(digest: Mapping[str, Any]) -> str:
    return f"{digest.get('ready', 0)}/{digest.get('replicas', 0)}"


def grown(roots: Iterable[Digest], layers: Sequence[tuple[str, Iterable[Digest]]]) -> dict[str, Digest]:
    """Return all nodes by key: the roots, and of each layer in order what is owned by a node that is there.

    layers: kind and digests, such as ReplicaSets before pods. A ReplicaSet without pods is left out: it is history.
    """
    nodes = {_key(each): each for each in roots}
    for kind, digests in layers:
        for digest in digests:
            owner_kind, _, owner = str(digest.get("owner", "")).partition("/")
            parent = f"{owner_kind}/{digest.get('namespace', '')}/{owner}"
            is_history = kind == "ReplicaSet" and not digest.get("replicas") and not digest.get("ready")
            if owner and parent in nodes and not is_history and len(nodes) < MOST_NODES:
                made = node(kind, digest, parent)
                nodes.setdefault(_key(made), made)
    return dict(sorted(nodes.items(), key=lambda each: (_RANK.get(each[1]["kind"], 9), each[0])))


def _key(each: Mapping[str, Any]) -> str:
    return f"{each['kind']}/{each['namespace']}/{each['name']}"
