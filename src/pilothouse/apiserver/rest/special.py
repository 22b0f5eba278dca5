"""Subresources with rules of their own: binding, eviction, approval, finalize, ephemeral containers, resize."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.cache.entries import Entry, encode
from pilothouse.apiserver.ports import Object, View
from pilothouse.apiserver.rest.binding import assigned, binding_of, spliced
from pilothouse.apiserver.rest.bodies import check_fields, media_type, read_body
from pilothouse.apiserver.rest.changing import Changing
from pilothouse.apiserver.rest.creating import Creating, UnknownReason, unnamed
from pilothouse.apiserver.rest.deleting import Deleting
from pilothouse.apiserver.rest.engine import Call, Engine, check_name, check_namespace
from pilothouse.apiserver.rest.options import DeleteOptions, WriteOptions, write_options
from pilothouse.apiserver.storing import ChangedError
from pilothouse.kinds import labels
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.schema import ANY
from pilothouse.kinds.status import BadRequest, Details, TooManyRequests, conflict, internal_error, success
from pilothouse.kinds.table import schema_for

__all__ = ["Special"]

_ATTEMPTS = 100
_CREATED = 201
_BUDGETS = "poddisruptionbudgets.policy"


class Special:
    """Answers writes of these subresources."""

    def __init__(self, engine: Engine, creating: Creating, changing: Changing, deleting: Deleting, view: View) -> None:
        self._engine = engine
        self._creating = creating
        self._changing = changing
        self._deleting = deleting
        self._view = view

    def _body(self, call: Call, group: str, version: str, kind: str) -> tuple[Object, WriteOptions]:
        """Return the object of a body that is of another kind than the path's resource."""
        options = write_options(call.request, "CreateOptions")
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        body = read_body(call.request, kind)
        if body.obj.setdefault("kind", kind) != kind:
            raise BadRequest(f"the kind of the object ({body.obj['kind']}) is not {kind}")
        schema = schema_for(group, version, kind) or ANY
        obj = check_fields(body, schema, kind, version, options.validation, call.request.warnings.append)
        unnamed(obj)
        return obj, options

    # Binding

    async def bind(self, call: Call) -> Object:
        """Put a pod on a node, as a scheduler asks; return a Status."""
        binding, options = self._binding(call)
        check_namespace(binding, call.info, namespaced=True)
        name = binding["metadata"].get("name") or ""
        admitted = self._engine.admission_request(call, "CREATE", call.info.name or name, binding, None)
        admitted.kind = ("", "v1", "Binding")
        binding = await self._engine.mutate(admitted)
        if call.info.name and name != call.info.name:
            raise BadRequest("name in URL does not match name in Binding object")
        self._check_target(binding.get("target") or {})
        await self._engine.validate(admitted)
        for _ in range(_ATTEMPTS):
            entry = call.served.cache.get(f"{call.info.namespace}/{name}")
            if entry is None:
                raise self._creating.missing(call)
            bound = self._bound(entry, binding, name)
            if options.dry_run:
                return success(code=_CREATED)
            try:
                await self._engine.storage.put(call.served.cache, entry, bound, entry.form)
            except ChangedError:
                continue
            return success(code=_CREATED)
        raise conflict("", "pods/binding", name)

    def _binding(self, call: Call) -> tuple[Object, WriteOptions]:
        """Return the binding of a body; that of our scheduler is seen to be right without a look at the schema."""
        request = call.request
        if not request.query_text and media_type(request) == "application/json":
            found = binding_of(request.body)
            if found is not None:
                options = write_options(request, "CreateOptions")
                call.options, call.manager = options.raw, options.manager
                return found, options
        return self._body(call, "", "v1", "Binding")

    def _check_target(self, target: Object) -> None:
        errors = ErrorList()
        kind = target.get("kind") or ""
        if kind not in {"", "Node"}:
            errors.not_supported(Path("target.kind"), kind, ("Node", "<empty>"))
        if not target.get("name"):
            errors.required(Path("target.name"))
        if errors:
            raise UnknownReason(errors.message())

    def _bound(self, entry: Entry, binding: Object, name: str) -> bytes:
        """Return what is stored of a pod that is bound. Raises Conflict where it may not be."""
        condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
        condition["lastTransitionTime"] = self._engine.context().now
        return spliced(entry.value, binding, condition) or encode(assigned(entry.decoded(), binding, name, condition))

    # Eviction

    async def evict(self, call: Call) -> Object:
        """Delete a pod unless a disruption budget forbids it now; return a Status."""
        eviction, options = self._body(call, "policy", "v1", "Eviction")
        check_namespace(eviction, call.info, namespaced=True)
        if eviction["metadata"].get("name") != call.info.name:
            raise BadRequest("name in URL does not match name in Eviction object")
        given = eviction.get("deleteOptions") or {}
        preconditions = given.get("preconditions") or {}
        entry = self._changing.current(call)
        if entry is None:
            raise self._creating.missing(call)
        pod = entry.object
        admitted = self._engine.admission_request(call, "CREATE", call.info.name, eviction, None)
        admitted.kind = ("policy", "v1", "Eviction")
        await self._engine.mutate(admitted)
        await self._engine.validate(admitted)
        dry_run = options.dry_run or bool(given.get("dryRun"))
        if _counts(pod):
            await self._take_from_budget(call, pod, dry_run=dry_run)
        version = preconditions.get("resourceVersion")
        if not dry_run and not pod["metadata"].get("deletionTimestamp"):
            marked = await self._mark_disrupted(call, preconditions)
            version = version and str(marked.rv)
        deletion = DeleteOptions(
            given.get("gracePeriodSeconds"),
            given.get("propagationPolicy"),
            uid=preconditions.get("uid"),
            resource_version=version,
            dry_run=dry_run,
            raw={"kind": "DeleteOptions", "apiVersion": "v1", **given},
        )
        call.dry_run = dry_run
        await self._deleting.delete_named(call, deletion)
        return success(code=_CREATED)

    async def _mark_disrupted(self, call: Call, preconditions: Object) -> Entry:
        """Have the pod say why it is going to be deleted. Raises Conflict where it is not the one that was meant."""
        for _ in range(_ATTEMPTS):
            entry = self._changing.current(call)
            if entry is None:
                raise self._creating.missing(call)
            made = entry.decoded()
            metadata = made["metadata"]
            uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
            if (uid and uid != metadata.get("uid")) or (version and version != str(entry.rv)):
                raise conflict("", "pods", call.info.name)
            _add_disruption(made, self._engine.context().now)
            try:
                return await self._engine.storage.replace(call.served.cache, entry, made, entry.form)
            except ChangedError:
                continue
        raise conflict("", "pods", call.info.name)

    def _budgets(self, pod: Object) -> list[Object]:
        metadata = pod["metadata"]
        found = []
        for budget in self._view.list(_BUDGETS, metadata["namespace"]):
            selector = (budget.get("spec") or {}).get("selector")
            if selector is not None and labels.from_label_selector(selector).matches(metadata.get("labels") or {}):
                found.append(budget)
        return found

    async def _take_from_budget(self, call: Call, pod: Object, *, dry_run: bool) -> None:
        budgets = self._budgets(pod)
        if not budgets:
            return
        if len(budgets) > 1:
            why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise internal_error(why)
        budget = budgets[0]
        spec, status = budget.get("spec") or {}, budget.get("status") or {}
        ready = _is_ready(pod)
        policy = spec.get("unhealthyPodEvictionPolicy")
        healthy = status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0
        if not ready and (policy == "AlwaysAllow" or healthy):
            return
        if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
            raise _disrupted(budget, "The disruption budget {} is still being processed by the server.", 10)
        if status.get("disruptionsAllowed", 0) <= 0:
            why = "The disruption budget {} needs " + f"{status.get('desiredHealthy', 0)} healthy pods and has "
            raise _disrupted(budget, why + f"{status.get('currentHealthy', 0)} currently", 0)
        if not dry_run:
            await self._disrupt(call, budget, pod)

    async def _disrupt(self, call: Call, budget: Object, pod: Object) -> None:
        cache = self._engine.storage.cacher.named(_BUDGETS)
        metadata = budget["metadata"]
        entry = cache.get(f"{metadata['namespace']}/{metadata['name']}") if cache is not None else None
        if cache is None or entry is None:
            return
        obj = entry.decoded()
        status = obj.setdefault("status", {})
        status["disruptionsAllowed"] = status.get("disruptionsAllowed", 0) - 1
        disrupted = status.setdefault("disruptedPods", {})
        disrupted[pod["metadata"]["name"]] = self._engine.context().now
        try:
            await self._engine.storage.replace(cache, entry, obj, entry.form)
        except ChangedError:
            raise TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.") from None

    # Namespaces

    async def finalize_namespace(self, call: Call) -> Entry:
        """Set the finalizers of a namespace's spec; the last one gone, a deleted namespace goes."""
        options = write_options(call.request, "UpdateOptions")
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        body = read_body(call.request, "Namespace")
        sent = self._creating.decoded(body, call, options)
        check_name(sent, call.info)
        for _ in range(_ATTEMPTS):
            entry = self._changing.current(call)
            if entry is None:
                raise self._creating.missing(call)
            version = sent["metadata"].get("resourceVersion")
            if version and version != str(entry.rv):
                raise conflict("", "namespaces", call.info.name)
            made = entry.decoded()
            finalizers = (sent.get("spec") or {}).get("finalizers") or []
            made["spec"] = {"finalizers": finalizers} if finalizers else {}
            try:
                return await self._finalized(call, entry, made)
            except ChangedError:
                continue
        raise conflict("", "namespaces", call.info.name)

    async def _finalized(self, call: Call, entry: Entry, made: Object) -> Entry:
        served, storage = call.served, self._engine.storage
        metadata = made["metadata"]
        gone = metadata.get("deletionTimestamp") and not made["spec"] and not metadata.get("finalizers")
        if call.dry_run:
            return Entry(entry.key, encode(made), entry.rv, served.stored_form)
        stored = await storage.replace(served.cache, entry, made, served.stored_form)
        if gone:
            await storage.delete(served.cache, stored)
        return stored


def _counts(pod: Object) -> bool:
    """Whether a pod counts for disruption budgets: it is neither over nor waiting nor being deleted already."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in {"Succeeded", "Failed", "Pending"} and not pod["metadata"].get("deletionTimestamp")


def _add_disruption(pod: Object, now: str) -> None:
    """Add the condition of pods that are disrupted, in the place of one that there is."""
    conditions: list[Any] = pod.setdefault("status", {}).setdefault("conditions", [])
    made = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": now,
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    conditions[:] = [each for each in conditions if each.get("type") != made["type"]] + [made]


def _is_ready(pod: Object) -> bool:
    conditions: list[Any] = (pod.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _disrupted(budget: Object, why: str, seconds: int) -> TooManyRequests:
    name = budget["metadata"]["name"]
    cause = {"reason": "DisruptionBudget", "message": why.format(name)}
    details = Details(causes=[cause], retry_after_seconds=seconds)
    return TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", details)
