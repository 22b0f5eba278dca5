"""A world for the rollout state machine: objects in memory, writes with their conflicts, and players for the rest.

`World.step` decides once and does what was decided, all of it or the first writes only, as a controller that is killed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace as new
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplateSpec
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import actions as writes
from pilothouse.delivery.rollouts.deciding import decide
from pilothouse.delivery.rollouts.names import HASH, MANAGED_BY
from pilothouse.delivery.rollouts.routing import regions_name
from pilothouse.delivery.rollouts.verbs import Change
from pilothouse.delivery.rollouts.view import RouteKey, TemplateKey, View
from pilothouse.kinds import jsonpatch, mergepatch, times
from pilothouse.kinds.structs import ReplicaSet, Service, from_dict, replace, to_dict

__all__ = ["Conflict", "World", "describe", "rollout_of"]

START = datetime(2025, 1, 1, tzinfo=UTC)
_UID = "00000000-0000-0000-0000-000000000001"


class Conflict(Exception):
    """An object is another than the one that was decided on."""


def rollout_of(strategy: str, replicas: int = 10, **spec: Any) -> Rollout:
    """Make a rollout; strategy: YAML."""
    tree = {
        "metadata": {"name": "shop", "namespace": "default", "uid": _UID, "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template("v1"),
            "strategy": yaml.safe_load(strategy),
            **spec,
        },
    }
    return from_dict(tree, Rollout)


def template(image: str) -> dict[str, Any]:
    """Return a pod template of a version."""
    return {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "shop", "image": f"shop:{image}"}]},
    }


class World:
    """The objects of one rollout. log: what happened, one line each. broken: images whose pods never get ready."""

    def __init__(self, rollout: Rollout, services: Iterable[str] = ("shop-stable", "shop-canary")) -> None:
        self.now = START
        self.version = 1
        self.rollout = replace(rollout, metadata__resource_version="1")
        self.sets: dict[str, ReplicaSet] = {}
        self.orphans: dict[str, ReplicaSet] = {}
        self.services = {name: self._service(name) for name in services}
        self.routes: dict[RouteKey, dict[str, Any]] = {}
        self.regions: dict[str, Any] | None = None
        self.runs: dict[str, AnalysisRun] = {}
        self.experiments: dict[str, Experiment] = {}
        self.templates: dict[TemplateKey, AnalysisTemplateSpec] = {}
        self.pods: dict[str, Any] = {}
        self.workload: dict[str, Any] | None = None
        self.scaled: int | None = None
        self.broken: set[str] = set()
        self.log: list[str] = []
        self.names: dict[str, str] = {}
        self.seen = ""
        self.after_write: Callable[[writes.Action], None] = lambda _: None

    def _service(self, name: str) -> Service:
        tree = {"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": {"app": "shop"}}}
        return from_dict(tree, Service)

    def add_route(self, name: str = "shop", kind: str = "HTTPRoute", rules: Any = None) -> None:
        """Add a route to both services."""
        key = RouteKey(kind, "default", name)
        refs = [{"name": "shop-stable", "port": 80, "weight": 100}, {"name": "shop-canary", "port": 80, "weight": 0}]
        metadata = {"name": name, "namespace": "default", "resourceVersion": "1"}
        spec = {"rules": rules or [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": refs}]}
        self.routes[key] = {"kind": kind, "metadata": metadata, "spec": spec}

    def add_template(self, name: str, provider: Mapping[str, Any] | None = None, args: Any = ()) -> None:
        """Add an analysis template."""
        metric = {"name": name, "provider": provider or {"web": {"url": "http://x"}}}
        self.templates[TemplateKey(False, name)] = from_dict(
            {"metrics": [metric], "args": list(args)}, AnalysisTemplateSpec
        )

    # What the state machine sees, and does

    def view(self) -> View:
        """Return the objects as they are."""
        return View(
            rollout=self.rollout,
            sets=[*self.sets.values()],
            services=dict(self.services),
            routes=dict(self.routes),
            regions=self.regions,
            runs=[*self.runs.values()],
            experiments=[*self.experiments.values()],
            templates=dict(self.templates),
            workload=self.workload,
            pods=[*self.pods.values()],
            orphans=[*self.orphans.values()],
        )

    def step(self, view: View | None = None, limit: int | None = None) -> writes.Plan:
        """Decide once, and do it, or only the first writes of it. Raises Conflict for a view that is too old."""
        view = view or self.view()
        plan = decide(view, self.now)
        self.seen = view.rollout.metadata.resource_version
        for place, action in enumerate(plan.actions):
            if limit is not None and place >= limit:
                break
            self.log.append(f"  {self.told(describe(action))}")
            self.do(action)
            self.after_write(action)
        return plan

    def settle(self, limit: int = 60, *, pods: bool = True) -> None:
        """Decide and do until nothing is left to do at this moment; pods: they get ready meanwhile."""
        for _ in range(limit):
            plan = self.step()
            moved = pods and self.play_pods()
            if not plan.actions and not moved:
                return
        raise AssertionError(f"no end of it: {[describe(each) for each in plan.actions]}")

    def told(self, text: str) -> str:
        """Return a text with hashes by the images that they name, so that it reads well and stays the same."""
        for found in self.sets.values():
            self.names.setdefault(found.metadata.labels[HASH], image_of(found))
        for named, image in self.names.items():
            text = text.replace(named, f"<{image}>")
        return text

    def do(self, action: writes.Action) -> None:
        """Do what an action says, as a server would."""
        handler: Callable[[Any], None] = getattr(self, f"_{_snake(type(action).__name__)}", lambda _: None)
        handler(action)

    def _next(self) -> str:
        self.version += 1
        return str(self.version)

    def _checked(self, wanted: str, present: str) -> None:
        if wanted != present:
            raise Conflict(f"{wanted} is {present} by now")

    def _write_status(self, action: writes.WriteStatus) -> None:
        self._checked(self.seen, self.rollout.metadata.resource_version)
        if action.status != self.rollout.status:
            self.seen = self._next()
            self.rollout = replace(self.rollout, status=action.status, metadata__resource_version=self.seen)

    def _annotate(self, action: writes.Annotate) -> None:
        notes = {**self.rollout.metadata.annotations, **action.annotations}
        self.seen = self._next()
        self.rollout = replace(self.rollout, metadata__annotations=notes, metadata__resource_version=self.seen)

    def _adopt_set(self, action: writes.AdoptSet) -> None:
        name = action.found.metadata.name
        if name in self.orphans:
            self.sets[name] = replace(self.orphans.pop(name), metadata__resource_version=self._next())

    def _release_set(self, action: writes.ReleaseSet) -> None:
        name = action.found.metadata.name
        if name in self.sets:
            self.orphans[name] = replace(self.sets.pop(name), metadata__resource_version=self._next())

    def _create_set(self, action: writes.CreateSet) -> None:
        name = action.wanted.metadata.name
        if name in self.orphans:
            count = (self.rollout.status.collision_count or 0) + 1
            version = self._next()
            self.rollout = replace(self.rollout, status__collision_count=count, metadata__resource_version=version)
            raise Conflict(f"{name} is there and is not the rollout's")
        if name not in self.sets:
            made = replace(
                action.wanted,
                metadata__creation_timestamp=times.format_seconds(self.now + timedelta(microseconds=len(self.sets))),
                metadata__uid=f"set-{name}",
                metadata__resource_version=self._next(),
            )
            self.sets[name] = made
            self.told("")

    def _update_set(self, action: writes.UpdateSet) -> None:
        name = action.wanted.metadata.name
        if name not in self.sets:
            raise Conflict(f"{name} is gone")
        self._checked(action.wanted.metadata.resource_version, self.sets[name].metadata.resource_version)
        self.sets[name] = replace(action.wanted, metadata__resource_version=self._next())

    def _delete_set(self, action: writes.DeleteSet) -> None:
        self.sets.pop(action.found.metadata.name, None)

    def _select_service(self, action: writes.SelectService) -> None:
        found = self.services[action.name]
        notes = {**found.metadata.annotations, MANAGED_BY: self.rollout.metadata.name}
        selector = {**found.spec.selector, HASH: action.hash}
        self.services[action.name] = replace(found, metadata__annotations=notes, spec__selector=selector)

    def _write_route(self, action: writes.WriteRoute) -> None:
        self._checked(
            action.wanted["metadata"]["resourceVersion"], self.routes[action.key]["metadata"]["resourceVersion"]
        )
        metadata = {**action.wanted["metadata"], "resourceVersion": self._next()}
        self.routes[action.key] = {**action.wanted, "metadata": metadata}

    def _write_regions(self, action: writes.WriteRegions) -> None:
        metadata = {"name": action.name, "namespace": action.namespace}
        self.regions = {"metadata": metadata, "spec": {"weights": list(action.weights)}} if action.weights else None

    def _start_run(self, action: writes.StartRun) -> None:
        made = replace(action.wanted, metadata__creation_timestamp=times.format_seconds(self.now))
        self.runs.setdefault(action.wanted.metadata.name, made)

    def _stop_run(self, action: writes.StopRun) -> None:
        if (found := self.runs.get(action.name)) is not None:
            self.runs[action.name] = replace(found, spec__terminate=True, status__phase="Successful")

    def _delete_run(self, action: writes.DeleteRun) -> None:
        self.runs.pop(action.found.metadata.name, None)

    def _start_experiment(self, action: writes.StartExperiment) -> None:
        self.experiments.setdefault(action.wanted.metadata.name, action.wanted)

    def _stop_experiment(self, action: writes.StopExperiment) -> None:
        if (found := self.experiments.get(action.name)) is not None:
            self.experiments[action.name] = replace(found, spec__terminate=True, status__phase="Successful")

    def _delete_experiment(self, action: writes.DeleteExperiment) -> None:
        self.experiments.pop(action.found.metadata.name, None)

    def _scale_workload(self, action: writes.ScaleWorkload) -> None:
        self.scaled = action.replicas

    def workload_replicas(self, before: int) -> int:
        """Return how many pods the workload has by now."""
        return before if self.scaled is None else self.scaled

    # Others

    def say(self, text: str) -> None:
        """Note what happens next."""
        self.log.append(f"{(self.now - START).total_seconds():g}s {text}")

    def play_pods(self, *only: str) -> bool:
        """Let pods of all sets, or of some images, be as many as wanted, and get ready; whether anything changed."""
        moved = False
        for name, found in self.sets.items():
            image = image_of(found)
            if only and image not in only:
                continue
            count = found.spec.replicas or 0
            ready = 0 if image in self.broken else count
            changes = {
                "replicas": count,
                "ready_replicas": ready,
                "available_replicas": ready,
                "observed_generation": found.metadata.generation or 0,
            }
            made = replace(found, **{f"status__{key}": value for key, value in changes.items()})
            if made.status != found.status:
                self.sets[name] = replace(made, metadata__resource_version=self._next())
                moved = True
        return moved

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def change(self, **spec: Any) -> None:
        """Change the specification by hand."""
        generation = (self.rollout.metadata.generation or 0) + 1
        tree = to_dict(self.rollout)
        tree["spec"] = {**tree["spec"], **spec}
        tree["metadata"] |= {"generation": generation, "resourceVersion": self._next()}
        self.rollout = from_dict(tree, Rollout)

    def set_image(self, image: str) -> None:
        """Set another version."""
        self.change(template=template(image))

    def verb(self, change: Change) -> None:
        """Do what a user's verb says."""
        tree: Any = to_dict(self.rollout)
        if change.status:
            tree = mergepatch.apply(tree, change.status)
        if change.spec:
            tree = mergepatch.apply(tree, change.spec)
            tree["metadata"]["generation"] += 1
        if change.json:
            tree = jsonpatch.apply(tree, list(change.json))
            tree["metadata"]["generation"] += 1
        tree["metadata"]["resourceVersion"] = self._next()
        self.rollout = from_dict(tree, Rollout)

    def judge(self, phase: str, role: str = "", message: str = "") -> list[str]:
        """Let the runs that go on, or those of a role, end; return their names."""
        ended = []
        for name, run in self.runs.items():
            if run.status.phase in {"", "Pending", "Running"} and role in {"", run.metadata.labels["rollout-type"]}:
                self.runs[name] = replace(run, status__phase=phase, status__message=message or None)
                ended.append(name)
        return ended

    # How it is

    @property
    def status(self) -> Any:
        return self.rollout.status

    def weights(self) -> dict[str, int]:
        """Return the weights of the first rule with both services, by service."""
        for route in self.routes.values():
            for rule in route["spec"]["rules"]:
                refs = {ref["name"]: ref.get("weight", 1) for ref in rule["backendRefs"]}
                if "shop-stable" in refs and "requestMirror" not in str(rule):
                    return refs
        return {}

    def selected(self, service: str) -> str:
        """Return the image that a service selects, empty where it selects all."""
        named = self.services[service].spec.selector.get(HASH, "")
        return self.names.get(named, named)

    def size(self, image: str) -> int:
        """Return how many pods the set of an image is to have."""
        return next((found.spec.replicas or 0 for found in self.sets.values() if image_of(found) == image), 0)

    def hash(self, image: str) -> str:
        """Return the hash of an image."""
        return next(found.metadata.labels[HASH] for found in self.sets.values() if image_of(found) == image)

    @property
    def regions_name(self) -> str:
        return regions_name(self.rollout)


def image_of(found: ReplicaSet) -> str:
    """Return the version of a set."""
    return (found.spec.template.spec.containers[0].image or "").removeprefix("shop:")


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def describe(action: writes.Action) -> str:  # noqa: C901, PLR0912  one line a kind
    """Return an action as one line."""
    match action:
        case writes.WriteStatus(status):
            return f"status {_status(status)}"
        case writes.Annotate(notes):
            return "annotate " + ", ".join(f"{name.rpartition('/')[2]}={value}" for name, value in notes.items())
        case writes.AdoptSet(found):
            return f"adopt set {found.metadata.name}"
        case writes.ReleaseSet(found):
            return f"release set {found.metadata.name}"
        case writes.CreateSet(wanted):
            return f"create set {wanted.metadata.name}"
        case writes.UpdateSet(wanted, told):
            return told or f"update set {wanted.metadata.name}: {_notes(wanted)}"
        case writes.DeleteSet(found):
            return f"delete set {found.metadata.name}"
        case writes.SelectService(name, chosen, before):
            return f"service {name} selects {chosen} instead of {before or 'all'}"
        case writes.WriteRoute(key, wanted):
            return f"route {key.kind} {key.name}: {_route(wanted)}"
        case writes.WriteRegions(_, name, weights):
            return f"regions {name}: {_shares(weights)}"
        case writes.StartRun(wanted):
            return f"start run {wanted.metadata.name}"
        case writes.StopRun(name):
            return f"stop run {name}"
        case writes.DeleteRun(found):
            return f"delete run {found.metadata.name}"
        case writes.StartExperiment(wanted):
            return f"start experiment {wanted.metadata.name}"
        case writes.StopExperiment(name):
            return f"stop experiment {name}"
        case writes.DeleteExperiment(found):
            return f"delete experiment {found.metadata.name}"
        case writes.EvictPod(found):
            return f"evict {found.metadata.name}"
        case writes.MarkPod(found, labels, notes):
            return f"mark {found.metadata.name} {dict(labels)} {dict(notes)}"
        case writes.ScaleWorkload(name, count):
            return f"scale workload {name} to {count}"
        case writes.Tell(reason, message, warning):
            return f"{'warn' if warning else 'tell'} {reason}: {message}"
        case writes.CreateService(wanted):
            return f"create service {wanted.metadata.name}"
        case writes.DeleteService(found):
            return f"delete service {found.metadata.name}"
        case writes.WriteExperimentStatus(status):
            templates = ", ".join(f"{one.name} {one.status}" for one in status.template_statuses)
            return f"experiment {status.phase or '-'} [{templates}]"


def _status(status: Any) -> str:
    parts = [f"{status.phase}: {status.message}" if status.message else str(status.phase)]
    if status.current_step_index is not None:
        parts.append(f"step {status.current_step_index}")
    parts.append(f"stable {status.stable_rs or '-'}")
    if status.canary.weights is not None:
        parts.append(f"weight {status.canary.weights.canary.weight}")
    for word, found in (
        ("run", status.canary.current_step_analysis_run_status),
        ("background", status.canary.current_background_analysis_run_status),
        ("pre", status.blue_green.pre_promotion_analysis_run_status),
        ("post", status.blue_green.post_promotion_analysis_run_status),
    ):
        if found is not None:
            parts.append(f"{word} {found.name} {found.status}")
    if status.canary.current_experiment:
        parts.append(f"experiment {status.canary.current_experiment}")
    if status.pause_conditions:
        parts.append("paused by " + "+".join(one.reason for one in status.pause_conditions))
    parts += [word for word, given in (("aborted", status.abort), ("full", status.promote_full)) if given]
    return ", ".join(parts)


def _notes(wanted: ReplicaSet) -> str:
    shown = {name.rpartition("/")[2]: value for name, value in wanted.metadata.annotations.items()}
    return ", ".join(f"{name}={value}" for name, value in sorted(shown.items()))


def _route(wanted: Mapping[str, Any]) -> str:
    made = []
    for rule in wanted["spec"]["rules"]:
        refs = ", ".join(f"{ref['name']} {ref.get('weight', 1)}" for ref in rule["backendRefs"])
        filters = [each["type"] for each in rule.get("filters") or ()]
        made.append(f"{rule.get('name') or '*'} ({refs}{'; ' + ', '.join(filters) if filters else ''})")
    return " | ".join(made)


def _shares(weights: Iterable[Mapping[str, Any]]) -> str:
    shown = [f"{','.join(one['regions'])} {one['backends'][1]['weight']}" for one in weights]
    return "; ".join(shown) or "removed"


def at(world: World, **changes: Any) -> View:
    """Return a view of which some parts are others."""
    return new(world.view(), **changes)
