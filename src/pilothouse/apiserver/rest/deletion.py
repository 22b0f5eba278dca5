"""What a deletion makes of an object: gone at once, marked and waiting, or as it was. Pure.

Facts: `registry/generic/registry/store.go` and `registry/rest/delete.go` of Kubernetes 1.36.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.options import DeleteOptions
from pilothouse.apiserver.strategies.base import Strategy
from pilothouse.kinds.status import Conflict, conflict
from pilothouse.kinds.times import format_seconds, parse

__all__ = ["FOREGROUND", "ORPHAN", "Verdict", "check_preconditions", "decide", "pod_grace"]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


@dataclass(slots=True)
class Verdict:
    """What becomes of the object: `remove` it now, or keep `obj` as it is then; `changed` says whether to write it.

    One that is removed is written before where it `changed`: who watches sees that it ends, and then that it is gone.
    """

    obj: Object
    remove: bool
    changed: bool


def check_preconditions(obj: Object, options: DeleteOptions, group: str, kind: str, name: str) -> Conflict | None:
    """Return the refusal of a deletion that means another object, None where it means this one."""
    metadata = obj["metadata"]
    if options.uid is not None and options.uid != metadata.get("uid"):
        return conflict(
            group,
            kind,
            name,
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata.get('uid')}). "
            "The object might have been deleted and then recreated",
        )
    version = metadata.get("resourceVersion")
    if options.resource_version is not None and options.resource_version != version:
        return conflict(
            group,
            kind,
            name,
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion "
            f"in record ({version}). The object might have been modified",
        )
    return None


def pod_grace(pod: Object, grace: int | None) -> int:
    """Return the seconds that a pod is given: as asked for or as it says, none where nothing of it runs."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    period = grace if grace is not None else spec.get("terminationGracePeriodSeconds") or 0
    if not spec.get("nodeName") or status.get("phase") in {"Failed", "Succeeded"}:
        return 0
    return 1 if period < 0 else int(period)


def decide(obj: Object, options: DeleteOptions, strategy: Strategy, now: datetime) -> Verdict:
    """Say what becomes of an object. The input is not changed; the result shares what did not change."""
    made = {**obj, "metadata": dict(obj["metadata"])}
    graceful, pending, grace = False, False, 0
    if strategy.grace:
        graceful, pending, grace = _graceful(made, options, now)
    if pending:
        return Verdict(made, remove=False, changed=False)
    changed = _set_finalizers(made, options, strategy) or graceful
    waits = bool(made["metadata"].get("finalizers"))
    if not graceful and waits:
        changed = _mark(made, now) or changed
    removed = not waits and (not graceful or grace == 0)
    return Verdict(made, remove=removed, changed=changed and (graceful or not removed))


def _graceful(made: Object, options: DeleteOptions, now: datetime) -> tuple[bool, bool, int]:
    """Give the object its time to end. Return whether it was given some, whether it has some already, and how much."""
    metadata = made["metadata"]
    asked = options.grace if options.grace is None or options.grace >= 0 else 1
    if metadata.get("deletionTimestamp"):
        given = metadata.get("deletionGracePeriodSeconds")
        if not given:  # it was to be gone at once, and somebody was faster
            return False, False, 0
        if asked is None or asked >= given:
            return False, True, given
        due = parse(metadata["deletionTimestamp"]) + timedelta(seconds=asked - given)
        if due < now:
            due, asked = now, min(asked, 1)
        metadata["deletionTimestamp"] = format_seconds(due)
        metadata["deletionGracePeriodSeconds"] = asked
        return True, False, asked
    grace = pod_grace(made, asked)
    metadata["deletionTimestamp"] = format_seconds(now + timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace
    if metadata.get("generation"):
        metadata["generation"] += 1
    return True, False, grace


def _mark(made: Object, now: datetime) -> bool:
    metadata = made["metadata"]
    before = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = format_seconds(now)
        if metadata.get("generation"):
            metadata["generation"] += 1
    metadata["deletionGracePeriodSeconds"] = 0
    return before != (metadata["deletionTimestamp"], 0)


def _set_finalizers(made: Object, options: DeleteOptions, strategy: Strategy) -> bool:
    """Add or take away the finalizers by which the garbage collector knows what to do with dependents."""
    before = list(made["metadata"].get("finalizers") or ())
    after = [name for name in before if name not in {ORPHAN, FOREGROUND}]
    if _orphans(before, options, strategy):
        after.append(ORPHAN)
    if _waits_for_dependents(before, options):
        after.append(FOREGROUND)
    if sorted(after) == sorted(before):
        return False
    if after:
        made["metadata"]["finalizers"] = after
    else:
        made["metadata"].pop("finalizers", None)
    return True


def _orphans(finalizers: list[str], options: DeleteOptions, strategy: Strategy) -> bool:
    if options.orphan is not None:
        return options.orphan
    if options.propagation is not None:
        return options.propagation == "Orphan"
    if ORPHAN in finalizers:
        return True
    if FOREGROUND in finalizers:
        return False
    return strategy.orphans_by_default


def _waits_for_dependents(finalizers: list[str], options: DeleteOptions) -> bool:
    if options.orphan is not None:
        return False
    if options.propagation is not None:
        return options.propagation == "Foreground"
    return FOREGROUND in finalizers and ORPHAN not in finalizers
