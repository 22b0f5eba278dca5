"""Deletions: what a request says, and what its answer is."""

from __future__ import annotations

from typing import Literal

import msgspec

from .errors import BadAnswer

__all__ = ["Propagation", "deletion_body", "is_status"]

Propagation = Literal["Background", "Foreground", "Orphan"]


def deletion_body(
    propagation: Propagation | None,
    grace_seconds: int | None,
    uid: str,
    resource_version: str,
    dry_run: bool,
) -> bytes:
    """Return the DeleteOptions as JSON, empty where nothing is asked for."""
    preconditions = {name: value for name, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
    options = {
        "propagationPolicy": propagation,
        "gracePeriodSeconds": grace_seconds,
        "preconditions": preconditions or None,
        "dryRun": ["All"] if dry_run else None,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    if not chosen:
        return b""
    return msgspec.json.encode({"kind": "DeleteOptions", "apiVersion": "v1", **chosen})


class _Kind(msgspec.Struct):
    kind: str = ""


def is_status(data: bytes) -> bool:
    """Say whether the answer to a deletion is a Status and no object. Raises BadAnswer for what is neither."""
    try:
        return msgspec.json.decode(data, type=_Kind).kind == "Status"
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"delete: the answer is no object: {error}") from error
