"""What an application shall have and what it has: revisions, objects, differences, health."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.applications import Application, AppProject, Source
from pilothouse.kinds.structs import to_dict
from pilothouse.operator import Request

from .charts import Charts
from .comparing import Drift, compare, ignored_for
from .errors import PermissionDenied, RepositoryError, RevisionError, SourceError
from .git import Access
from .health import Verdict, health_of, worst
from .helm import ReleaseFacts
from .hooks import APPROVED, annotations_of, is_hook, options_of
from .keeping import ROLLOUT, compared, is_shared
from .live import LiveObjects
from .mirrors import Mirror, checked_path
from .projects import allows_repository
from .rendering import At, Pulled, Rendered, Renderer
from .repositories import Repositories
from .selections import SelectionError
from .settings import Settings
from .signatures import Signatures
from .targets import Key, Target, group_of, instance_name, make_targets, owner_of
from .versions import is_commit

__all__ = ["Evaluation", "Evaluator", "State", "sources_of"]

_COMPARE: Final = "argocd.argoproj.io/compare-options"
_MAX_MEMO: Final = 100_000
_MAX_PLACED: Final = 4_096


class State(NamedTuple):
    """How one object compares and is. target: None where it is to go. problem: why it cannot be compared or synced.

    held: it is to go, but says that no sync may prune it.
    """

    key: Key
    target: Target | None
    live: Mapping[str, Any] | None
    synced: bool
    health: Verdict | None
    drift: Sequence[Drift] = ()
    problem: str = ""
    held: bool = False

    @property
    def is_extra(self) -> bool:
        """Whether it is there and git does not have it."""
        return self.target is None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An application at one revision of each of its sources."""

    revisions: tuple[str, ...]
    sources: tuple[Source, ...]
    kinds: tuple[str, ...]
    digest: tuple[bytes, ...]
    targets: tuple[Target, ...]
    states: tuple[State, ...]
    problems: tuple[tuple[str, str], ...] = ()
    by_key: Mapping[Key, State] = field(default_factory=dict)

    @property
    def out_of_sync(self) -> bool:
        """Whether anything differs."""
        return any(not state.synced for state in self.states)

    @property
    def to_do(self) -> bool:
        """Whether a sync would do something: what is being deleted already needs none."""
        return any(not state.synced and not state.held and not _is_going(state) for state in self.states)

    @property
    def only_prune(self) -> bool:
        """Whether all that differs is to go."""
        return all(state.synced or state.is_extra for state in self.states)

    def health(self) -> str:
        """Return how the application is: as its worst object."""
        return worst(state.health.status for state in self.states if state.health is not None and not state.is_extra)


def _slim(found: Evaluation) -> Evaluation:
    """Return an evaluation without its objects, which would be kept in memory: its drift stays."""
    states = tuple(state._replace(target=None, live=None) for state in found.states if state.drift)
    return replace(found, targets=(), states=states, by_key={})


def _declared(targets: Sequence[Target]) -> dict[tuple[str, str], bool]:
    """Return which kinds definitions among the targets make, and whether these are of namespaces."""
    found = {}
    for target in targets:
        if target.key.kind == "CustomResourceDefinition":
            spec = target.object.get("spec") or {}
            kind = (spec.get("names") or {}).get("kind", "")
            found[str(spec.get("group", "")), str(kind)] = spec.get("scope") != "Cluster"
    return found


def _is_going(state: State) -> bool:
    return state.is_extra and state.live is not None and bool(state.live["metadata"].get("deletionTimestamp"))


def sources_of(app: Application) -> tuple[Source, ...]:
    """Return the sources of an application."""
    if app.spec.sources:
        return tuple(app.spec.sources)
    return (app.spec.source,) if app.spec.source is not None else ()


class Evaluator:
    """Works evaluations out; what did not change since is taken from memory."""

    def __init__(
        self,
        repositories: Repositories[Any],
        renderer: Renderer,
        live: LiveObjects,
        settings: Settings,
        signatures: Signatures,
        charts: Charts,
        namespace: str,
    ) -> None:
        self._charts = charts
        self.repositories: Final = repositories
        self.renderer: Final = renderer
        self.live: Final = live
        self.settings: Final = settings
        self._signatures = signatures
        self._namespace = namespace
        self._drift: OrderedDict[tuple[Any, ...], tuple[Drift, ...] | str] = OrderedDict()
        self._placed: OrderedDict[tuple[Any, ...], tuple[Target, ...]] = OrderedDict()
        self._last: OrderedDict[str, Evaluation] = OrderedDict()
        self.compared = 0
        """Comparisons that were worked out."""

    def instance(self, app: Application) -> str:
        """Return what an application is called in marks."""
        return instance_name(app.metadata.namespace, app.metadata.name, self._namespace)

    def last(self, app: Application) -> Evaluation | None:
        """Return what was found of an application last, without its objects: revisions and drift."""
        return self._last.get(self.instance(app))

    def forget(self, app: Application) -> None:
        """Let go of what is known of an application."""
        self._last.pop(self.instance(app), None)

    async def untouched(self, mirror: Mirror, requests: Sequence[Request]) -> set[Request]:
        """Return those of these applications for which the newest commits of a repository have the same files.

        For plain directories of it alone; what else there is counts as touched.
        """
        asked: dict[str, list[tuple[Request, str, str]]] = {}
        for request in requests:
            found = self._last.get(instance_name(*request, self._namespace))
            if found is None or len(found.sources) != 1 or found.kinds != ("Directory",):
                continue
            source = found.sources[0]
            try:
                commit = mirror.references.resolve(source.target_revision)
                asked.setdefault(commit, []).append((request, checked_path(source.path), found.revisions[0]))
            except RevisionError:
                continue
        same: set[Request] = set()
        for commit, listed in asked.items():
            try:
                await mirror.ensure(commit)
                now = await mirror.named(commit, [path for _, path, _ in listed])
                for former in {revision for _, _, revision in listed}:
                    own = [(request, path) for request, path, revision in listed if revision == former]
                    before = await mirror.named(former, [path for _, path in own])
                    same |= {request for request, path in own if now[path] is not None and now[path] == before[path]}
            except SourceError:
                continue  # told by whoever reconciles
        return same

    async def resolve(
        self, app: Application, project: AppProject, sources: Sequence[Source], revisions: Sequence[str] = ()
    ) -> list[At | Pulled]:
        """Return the commit of each source. revisions: instead of what the sources say. Raises SourceError."""
        found: list[At | Pulled] = []
        for number, source in enumerate(sources):
            wanted = revisions[number] if number < len(revisions) and revisions[number] else source.target_revision
            if source.chart:
                access = self.repositories.access(source.repo_url, app.spec.project)
                chart = await self._charts.pull(source.repo_url, source.chart, wanted, access)
                found.append(Pulled(chart, chart.version))
                continue
            mirror = self.repositories.mirror(source.repo_url, app.spec.project)
            commit, problem = await self._commit(app, number, source, mirror, wanted)
            await self.repositories.fetched(mirror, commit)
            await self._signatures.check(mirror, commit, project)
            found.append(At(mirror, commit, problem))
        return found

    async def _commit(
        self, app: Application, number: int, source: Source, mirror: Mirror, wanted: str
    ) -> tuple[str, str]:
        """Return the commit that is wanted, and what is to be said of it.

        One that is there needs no repository; where that does not answer, what was compared last goes on.
        """
        if is_commit(wanted) and await mirror.has(wanted):
            return wanted, ""
        try:
            references, problem = await self.repositories.look(mirror)
        except RepositoryError as error:
            sync = app.status.sync
            before = [*sync.revisions] or [sync.revision]
            compared = (sync.compared_to or {}).get("sources") or [(sync.compared_to or {}).get("source")]
            same = number < len(compared) and compared[number] == to_dict(source)
            if (
                not same
                or number >= len(before)
                or not is_commit(before[number])
                or not await mirror.has(before[number])
            ):
                raise
            return before[number], f"{mirror.address.url}: {error}; going on with the revision compared last"
        return references.resolve(wanted), problem

    async def render(
        self, app: Application, project: AppProject, sources: Sequence[Source], ats: Sequence[At | Pulled]
    ) -> list[Rendered]:
        """Return what each source gives; one that others refer to and that has no path gives nothing."""

        def opens(url: str) -> Access:
            if not allows_repository(project, url):
                name = project.metadata.name
                raise PermissionDenied(f"project {name} does not allow the chart repository {url[:200]}: sourceRepos")
            return self.repositories.access(url, app.spec.project)

        pairs = zip(sources, ats, strict=True)
        refs = {f"{source.ref}": at for source, at in pairs if source.ref and isinstance(at, At)}
        facts = ReleaseFacts(app.metadata.name, app.spec.destination.namespace)
        found = []
        for source, at in zip(sources, ats, strict=True):
            if isinstance(at, Pulled):
                found.append(await self.renderer.render_pulled(source, at.chart, facts, refs))
                continue
            if source.ref and not source.path:
                continue
            try:
                found.append(await self.renderer.render(source, at, facts, refs, opens))
            except RevisionError:
                at.mirror.stale()  # perhaps what was seen of it is old
                raise
        return found

    async def evaluate(
        self,
        app: Application,
        project: AppProject,
        sources: Sequence[Source],
        revisions: Sequence[str] = (),
    ) -> Evaluation:
        """Return an application at these revisions. Raises DeliveryError."""
        if not sources:
            raise DeliveryError("spec.source: there is none; say repoURL, path and targetRevision")
        ats = await self.resolve(app, project, sources, revisions)
        rendered = await self.render(app, project, sources, ats)
        return await self.compared_with(app, sources, ats, rendered)

    async def compared_with(
        self, app: Application, sources: Sequence[Source], ats: Sequence[At | Pulled], rendered: Sequence[Rendered]
    ) -> Evaluation:
        """Return the evaluation of what was rendered."""
        instance = self.instance(app)
        targets = await self._targets(app, instance, rendered)
        if any(is_shared(target.key) for target in targets):
            await self.live.ensure([ROLLOUT])
        states = self._states(app, instance, targets)
        problems = [("ComparisonError", f"{each.key}: {each.problem}") for each in states if each.problem]
        problems += [("RepositoryWarning", at.problem) for at in ats if at.problem]
        made = Evaluation(
            revisions=tuple(at.commit for at in ats),
            sources=tuple(sources),
            kinds=tuple(each.kind for each in rendered),
            digest=tuple(each.digest for each in rendered),
            targets=targets,
            states=tuple(states),
            problems=tuple(problems),
            by_key={state.key: state for state in states},
        )
        self._last[instance] = _slim(made)
        self._last.move_to_end(instance)
        if len(self._last) > _MAX_PLACED:
            self._last.popitem(last=False)
        return made

    async def _targets(self, app: Application, instance: str, rendered: Sequence[Rendered]) -> tuple[Target, ...]:
        kinds = {(each.group, each.kind, each.version) for each in app.status.resources}
        await self.live.ensure(
            (f"{group}/{version}" if group else version, kind) for group, kind, version in kinds if version
        )
        namespace = app.spec.destination.namespace
        place = (instance, namespace, *(each.digest for each in rendered))
        found = self._placed.get(place)
        if found is None:
            first = make_targets(rendered, instance, namespace or "default", lambda *_: True)
            missing = await self.live.ensure((each.api_version, each.key.kind) for each in first)
            declared = _declared(first)

            def is_namespaced(api_version: str, kind: str) -> bool:
                own = declared.get((group_of(api_version), kind))
                return self.live.is_namespaced(api_version, kind) if own is None else own

            found = tuple(make_targets(rendered, instance, namespace, is_namespaced))
            if missing:
                return found
            self._placed[place] = found
            if len(self._placed) > _MAX_PLACED:
                self._placed.popitem(last=False)
        else:
            self._placed.move_to_end(place)
        return found

    def _states(self, app: Application, instance: str, targets: Sequence[Target]) -> list[State]:
        found = [self._state(app, instance, target) for target in targets if not target.is_hook]
        wanted = {target.key for target in targets}
        approved = bool((app.metadata.annotations or {}).get(APPROVED))
        names = [(t.key._replace(name=""), t.generate_name) for t in targets if t.generate_name]
        for key, obj in self.live.of_application(instance).items():
            if key in wanted or is_hook(obj) or (key._replace(name=""), obj["metadata"].get("generateName")) in names:
                continue
            kept = "IgnoreExtraneous" in annotations_of(obj).get(_COMPARE, "")
            said = options_of(obj)
            held = "Prune=false" in said or ("Prune=confirm" in said and not approved)
            found.append(State(key, None, obj, kept, self._health(key, obj), held=held))
        return sorted(found, key=lambda state: state.key)

    def _health(self, key: Key, obj: Mapping[str, Any]) -> Verdict | None:
        return health_of(obj, self.settings.health_rules(key.group, key.kind))

    def _state(self, app: Application, instance: str, target: Target) -> State:
        key = target.key
        live = self.live.get(key, target.api_version)
        if live is None:
            return State(key, target, None, False, Verdict("Missing"))
        health = self._health(key, live)
        other = owner_of(live)
        if other and other != instance:
            problem = f"it is part of application {other}; take it out of one of both"
            return State(key, target, live, False, health, problem=problem)
        drift = self._drift_of(app, target, live)
        if isinstance(drift, str):
            return State(key, target, live, False, health, problem=drift)
        return State(key, target, live, not drift, health, drift)

    def _drift_of(self, app: Application, target: Target, live: Mapping[str, Any]) -> tuple[Drift, ...] | str:
        ignored = ignored_for(target.key, app.spec.ignore_differences)
        metadata, claims = live["metadata"], self.live.claims(target.key)
        place = (target.digest, metadata.get("uid"), metadata.get("resourceVersion"), ignored, claims)
        found = self._drift.get(place)
        if found is None:
            self.compared += 1
            try:
                wanted = compared(target.object, live, claims) if is_shared(target.key) else target.object
                found = tuple(compare(wanted, dict(live), ignored))
            except (ValueError, SelectionError) as error:
                found = str(error)
            self._drift[place] = found
            if len(self._drift) > _MAX_MEMO:
                self._drift.popitem(last=False)
        return found
