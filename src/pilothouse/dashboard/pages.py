"""What each page shows: which feeds it looks at, and its items by key as they are now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from . import digests, tree
from .feeds import EVERYWHERE, Digest, Feed, Feeds, Source
from .incidents import INCIDENTS
from .levels import SERVICE_LEVELS
from .verdicts import limits_of, stand_of

__all__ = [
    "ApplicationPage",
    "EventsPage",
    "Items",
    "OverviewPage",
    "Page",
    "RolloutPage",
    "ServiceLevelPage",
    "ServiceLevelsPage",
    "WorkloadPage",
]

Items = dict[str, Digest]
_MOST_EVENTS: Final = 500
_MOST_NAMESPACES: Final = 8
_APPLICATION_CARD: Final = (
    *("namespace", "name", "health", "message", "sync", "revision", "target", "path", "operation", "created"),
)
_LEVEL_CARD_OUT: Final = frozenset({"deploys", "left"})
_MOST_REVISIONS: Final = 15
_MOST_INCIDENTS: Final = 5
_ROLLOUT_LEFT_OUT: Final = frozenset({"conditions"})


class Page(Protocol):
    """A page of one tab."""

    def items(self) -> Items:
        """Return all that it shows, by key."""

    def close(self) -> None:
        """Give its feeds back."""


class _Watching:
    """Feeds of a page, and what is wrong with them."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object]) -> None:
        self._feeds = feeds
        self._listener = listener
        self._taken: list[Feed] = []

    def _take(self, source: Source, namespace: str, fields: str = "") -> Feed:
        feed = self._feeds.take(source, namespace, self._listener, fields)
        self._taken.append(feed)
        return feed

    def close(self) -> None:
        """Give all feeds back."""
        for feed in self._taken:
            self._feeds.give_back(feed, self._listener)
        self._taken.clear()

    def _about(self) -> Digest:
        said = [each for each in self._taken if each.state in {"refused", "broken"}]
        absent = [each.source.plural for each in self._taken if each.state == "absent"]
        return {
            "loading": any(each.state == "loading" for each in self._taken),
            "problems": [
                *({"what": each.source.plural, "state": each.state, "text": each.message} for each in said),
                *(
                    {"what": each.source.plural, "state": "cut", "text": f"{each.left_out:,} more are not shown"}
                    for each in self._taken
                    if each.left_out
                ),
            ],
            "absent": absent,
        }


class OverviewPage(_Watching):
    """Applications, rollouts and deployments of a namespace, or of all."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str) -> None:
        super().__init__(feeds, listener)
        self._applications = self._take(digests.APPLICATIONS, namespace)
        self._rollouts = self._take(digests.ROLLOUTS, namespace)
        self._deployments = self._take(digests.DEPLOYMENTS, namespace)
        self._names: Feed | None = self._take(digests.NAMESPACES, EVERYWHERE) if namespace == EVERYWHERE else None

    def items(self) -> Items:
        about = self._about()
        about["problems"] = [each for each in about["problems"] if each["what"] != "namespaces"]
        about["namespaces"] = [] if self._names is None else sorted(each["name"] for each in self._names.items.values())
        found: Items = {"about": about}
        for key, each in self._applications.items.items():
            unwell = sum(one["health"] in {"Degraded", "Missing"} for one in each["resources"])
            card = {name: each[name] for name in _APPLICATION_CARD}
            found[f"application/{key}"] = card | {"objects": len(each["resources"]), "unwell": unwell}
        for key, each in self._rollouts.items.items():
            slim = {name: value for name, value in each.items() if name not in _ROLLOUT_LEFT_OUT}
            found[f"rollout/{key}"] = slim | {"stand": stand_of(each, ())._asdict()}
        found |= {f"deployment/{key}": each for key, each in self._deployments.items.items()}
        return found


class ServiceLevelsPage(_Watching):
    """Service levels of a namespace, or of all."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str) -> None:
        super().__init__(feeds, listener)
        self._levels = self._take(SERVICE_LEVELS, namespace)

    def items(self) -> Items:
        return {"about": self._about()} | _level_cards(self._levels.items.values())


class ServiceLevelPage(_Watching):
    """One service level, with the deploys of its rollout."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str, name: str) -> None:
        super().__init__(feeds, listener)
        self._key = f"{namespace}/{name}"
        self._levels = self._take(SERVICE_LEVELS, namespace, f"metadata.name={name}")

    def items(self) -> Items:
        level = self._levels.items.get(self._key)
        about = self._about() | {"missing": level is None and self._levels.state == "live"}
        return {"about": about} | ({} if level is None else {"level": level})


def _level_cards(levels: Iterable[Digest]) -> Items:
    return {
        f"level/{each['namespace']}/{each['name']}": {
            name: value for name, value in each.items() if name not in _LEVEL_CARD_OUT
        }
        for each in levels
    }


class ApplicationPage(_Watching):
    """One application: its tree, its service levels, and events about what is in it."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str, name: str) -> None:
        super().__init__(feeds, listener)
        self._key = f"{namespace}/{name}"
        self._applications = self._take(digests.APPLICATIONS, namespace, f"metadata.name={name}")
        self._within: dict[str, tuple[Feed, Feed, Feed, Feed]] = {}
        self._left_out = 0

    def items(self) -> Items:
        application = self._applications.items.get(self._key)
        if application is None:
            return {"about": self._about() | {"missing": self._applications.state == "live"}}
        self._look_into(each["namespace"] for each in application["resources"])
        root = tree.node("Application", application)
        here = f"Application/{self._key}"
        roots = [root, *(tree.node(each["kind"], each, here) for each in application["resources"])]
        sets = (each for feeds in self._within.values() for each in feeds[0].items.values())
        pods = (each for feeds in self._within.values() for each in feeds[1].items.values())
        nodes = tree.grown(roots, [("ReplicaSet", sets), ("Pod", pods)])
        names = {(each["kind"], each["namespace"], each["name"]) for each in nodes.values()}
        events = _events((feeds[2] for feeds in self._within.values()), names)
        shown = {key: value for key, value in application.items() if key != "resources"}
        rollouts = {(each["namespace"], each["name"]) for each in application["resources"] if each["kind"] == "Rollout"}
        levels = [
            each
            for feeds in self._within.values()
            for each in feeds[3].items.values()
            if (each["namespace"], each["rollout"]) in rollouts
        ]
        about = self._about() | {"missing": False}
        if self._left_out:
            text = f"pods of {self._left_out} more namespaces are not shown"
            about["problems"] = [*about["problems"], {"what": "namespaces", "state": "cut", "text": text}]
        found = {f"node/{key}": each for key, each in nodes.items()} | events | _level_cards(levels)
        return {"about": about, "application": shown, **found}

    def _look_into(self, namespaces: Iterable[str]) -> None:
        wanted = sorted({each for each in namespaces if each} - set(self._within))
        for each in wanted[: max(0, _MOST_NAMESPACES - len(self._within))]:
            self._within[each] = (
                self._take(digests.REPLICA_SETS, each),
                self._take(digests.PODS, each),
                self._take(digests.EVENTS, each),
                self._take(SERVICE_LEVELS, each),
            )
        self._left_out = len(set(wanted) - set(self._within))


class _OneWorkload(_Watching):
    """A workload that has ReplicaSets, with its tree and events."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], source: Source, namespace: str, name: str) -> None:
        super().__init__(feeds, listener)
        self._kind = source.kind
        self._key = f"{namespace}/{name}"
        self._workloads = self._take(source, namespace, f"metadata.name={name}")
        self._sets = self._take(digests.REPLICA_SETS, namespace)
        self._pods = self._take(digests.PODS, namespace)
        self._events = self._take(digests.EVENTS, namespace)

    def _grown(self, root: Digest) -> Items:
        layers = [("ReplicaSet", self._sets.items.values()), ("Pod", self._pods.items.values())]
        nodes = tree.grown([tree.node(self._kind, root)], layers)
        names = {(each["kind"], each["namespace"], each["name"]) for each in nodes.values()}
        return {f"node/{key}": each for key, each in nodes.items()} | _events([self._events], names)


class WorkloadPage(_OneWorkload):
    """One deployment."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str, name: str) -> None:
        super().__init__(feeds, listener, digests.DEPLOYMENTS, namespace, name)

    def items(self) -> Items:
        workload = self._workloads.items.get(self._key)
        about = self._about() | {"missing": workload is None and self._workloads.state == "live"}
        return {"about": about} | ({} if workload is None else {"workload": workload, **self._grown(workload)})


class RolloutPage(_OneWorkload):
    """One rollout: where it is, what is judged, its tree and events. digest: as it is now."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str, name: str) -> None:
        super().__init__(feeds, listener, digests.ROLLOUTS, namespace, name)
        self._runs = self._take(digests.ANALYSIS_RUNS, namespace)
        self._levels = self._take(SERVICE_LEVELS, namespace)
        self._incidents = self._take(INCIDENTS, namespace)

    @property
    def digest(self) -> Digest | None:
        """The rollout, None while it is not there."""
        return self._workloads.items.get(self._key)

    def items(self) -> Items:
        rollout = self.digest
        about = self._about() | {"missing": rollout is None and self._workloads.state == "live"}
        if rollout is None:
            return {"about": about}
        owner = f"Rollout/{rollout['name']}"
        theirs = [each for each in self._runs.items.values() if each["owner"] == owner]
        theirs.sort(key=lambda each: each["created"], reverse=True)
        now = [each for each in theirs if each["name"] in rollout["runs"]]
        if not now and rollout["aborted"]:
            now = theirs[:1]
        stand = stand_of(rollout, now)._asdict()
        head = rollout | {"stand": stand, "limits": limits_of(now or theirs[:1])}
        shown: Items = {f"run/{each['name']}": each | {"now": each in now} for each in theirs[:10]}
        shown |= _level_cards(each for each in self._levels.items.values() if each["rollout"] == rollout["name"])
        bad = [each for each in self._incidents.items.values() if each["rollout"] == rollout["name"]]
        bad.sort(key=lambda each: each["decided"], reverse=True)
        shown |= {f"incident/{each['name']}": each for each in bad[:_MOST_INCIDENTS]}
        return {"about": about, "rollout": head} | shown | self._revisions(owner) | self._grown(rollout)

    def _revisions(self, owner: str) -> Items:
        """Return the versions that there were, the newest first; one can go back to them."""
        sets = [each for each in self._sets.items.values() if each["owner"] == owner and each["revision"].isdecimal()]
        sets.sort(key=lambda each: int(each["revision"]), reverse=True)
        wanted = ("revision", "hash", "images", "created", "ready")
        return {f"revision/{each['name']}": {name: each[name] for name in wanted} for each in sets[:_MOST_REVISIONS]}


class EventsPage(_Watching):
    """Events of a namespace, or of all; the newest."""

    def __init__(self, feeds: Feeds, listener: Callable[[], object], namespace: str) -> None:
        super().__init__(feeds, listener)
        self._events = self._take(digests.EVENTS, namespace)

    def items(self) -> Items:
        return {"about": self._about()} | _newest(self._events.items.items())


def _events(feeds: Iterable[Feed], names: set[tuple[Any, Any, Any]]) -> Items:
    return _newest(
        (key, each)
        for feed in feeds
        for key, each in feed.items.items()
        if (each["kind"], each["namespace"], each["object"]) in names
    )


def _newest(found: Iterable[tuple[str, Digest]]) -> Items:
    ordered = sorted(found, key=lambda each: (each[1]["at"], each[0]), reverse=True)
    return {f"event/{key}": each for key, each in ordered[:_MOST_EVENTS]}
