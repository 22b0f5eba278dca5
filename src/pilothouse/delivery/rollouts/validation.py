"""What is wrong with a rollout, so that it stays as it is until somebody corrects it; and what is not acted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pilothouse.delivery.errors import AnalysisInvalid, RouteInvalid
from pilothouse.delivery.resources.analyses import AnalysisTemplateRef
from pilothouse.delivery.resources.rollouts import CanaryStep, CanaryStrategy, Rollout, RolloutAnalysis, StringMatch
from pilothouse.kinds import durations, intstr, labels
from pilothouse.kinds.structs import to_dict

from .analysisruns import check_run, missing_templates
from .canary import watch_seconds
from .counts import PERCENT, PODS
from .names import MANAGED_BY, REGIONS_PLUGIN, WATCH_AFTER
from .routed import keys_missing, routed
from .routing import has_requests, route_keys, unsupported_of
from .situation import Situation
from .steps import kind_of, pause_seconds
from .traffic import wanted_split
from .weights import region_config, split_at

__all__ = ["analysis_refs", "missing", "not_acted_on", "problems", "service_names"]

_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}


def problems(sit: Situation) -> list[str]:
    """Return what is wrong, each with the field and the way out."""
    return [*_of_workload(sit), *_of_strategy(sit), *_of_references(sit)]


def not_acted_on(sit: Situation) -> list[str]:
    """Return fields that are kept but change nothing here."""
    return [f"spec.strategy.canary.trafficRouting.{name}" for name in unsupported_of(sit.rollout)]


# The workload


def _of_workload(sit: Situation) -> Iterator[str]:
    ref = sit.spec.workload_ref
    if sit.replicas < 0:
        yield f"spec.replicas: {sit.replicas} is negative; write 0 or more"
    if ref is not None:
        if sit.spec.template is not None and sit.spec.template.spec.containers:
            yield "spec.template: it is set beside spec.workloadRef; remove one of both"
        if sit.view.workload is None:
            yield f"spec.workloadRef: {ref.kind} '{ref.name}' is not there; create it, or name another"
            return
    elif not sit.template.spec.containers:
        yield "spec.template: it has no containers; write a pod template, or spec.workloadRef"
    try:
        selector = labels.from_label_selector(to_dict(sit.selector))
    except labels.SelectorError as error:
        yield f"spec.selector: {error}"
        return
    if selector.empty:
        yield "spec.selector: it is empty; write matchLabels that the template's labels have"
    elif not selector.matches(sit.template.metadata.labels):
        yield "spec.selector: the template's labels do not match it; make both the same"


# The strategy


def _of_strategy(sit: Situation) -> Iterator[str]:
    canary, blue_green = sit.spec.strategy.canary, sit.spec.strategy.blue_green
    if (canary is None) == (blue_green is None):
        yield "spec.strategy: want one of canary and blueGreen"
    elif canary is not None:
        yield from _of_canary(sit, canary)
    elif blue_green is not None:
        if blue_green.active_service == blue_green.preview_service:
            yield "spec.strategy.blueGreen: activeService and previewService are the same; take two services"
        yield from _of_share("blueGreen.maxUnavailable", blue_green.max_unavailable)


def _of_share(path: str, value: int | str | None) -> Iterator[str]:
    if value is None or isinstance(value, int):
        return
    try:
        intstr.scaled(value if value.endswith("%") else f"{value}%", 100, round_up=True)
    except intstr.IntOrStringError as error:
        yield f"spec.strategy.{path}: {error}"


def _of_canary(sit: Situation, canary: CanaryStrategy) -> Iterator[str]:
    path = "spec.strategy.canary"
    yield from _of_share("canary.maxSurge", canary.max_surge)
    yield from _of_share("canary.maxUnavailable", canary.max_unavailable)
    if canary.max_surge in {0, "0", "0%"} and canary.max_unavailable in {0, "0", "0%"}:
        yield f"{path}: maxSurge and maxUnavailable are both 0, so nothing could ever change; raise one"
    if canary.canary_service and canary.canary_service == canary.stable_service:
        yield f"{path}: canaryService and stableService are the same; take two services"
    yield from _of_routing(sit, canary, path)
    for index, step in enumerate(canary.steps):
        for problem in _of_step(sit, step):
            yield f"{path}.steps[{index}]: {problem}"
    try:
        watch_seconds(sit)
    except durations.DurationError as error:
        yield f"metadata.annotations[{WATCH_AFTER}]: {error}"


def _of_routing(sit: Situation, canary: CanaryStrategy, path: str) -> Iterator[str]:
    if not sit.is_routed:
        if canary.scale_down_delay_seconds is not None:
            yield f"{path}.scaleDownDelaySeconds: it needs trafficRouting"
        if canary.dynamic_stable_scale:
            yield f"{path}.dynamicStableScale: it needs trafficRouting"
    elif not route_keys(sit.rollout):
        found = ", ".join(not_acted_on(sit)) or "it names no routes"
        yield (
            f"{path}.trafficRouting: {found}: not acted on here; name httpRoute, grpcRoute, tcpRoute or tlsRoute in"
            ' plugins["argoproj-labs/gatewayAPI"]'
        )
    elif not all(sit.services):
        yield f"{path}: trafficRouting needs stableService and canaryService, or pingPong"
    threshold = canary.replica_progress_threshold
    if threshold is not None and threshold.type not in PERCENT | PODS:
        yield f"{path}.replicaProgressThreshold.type: '{threshold.type}' is none; write Percent or Pods"
    if canary.dynamic_stable_scale and canary.scale_down_delay_seconds is not None:
        yield f"{path}: dynamicStableScale and scaleDownDelaySeconds exclude each other; remove one"


def _of_step(sit: Situation, step: CanaryStep) -> Iterator[str]:
    name = kind_of(step)
    if not name:
        yield "it says nothing that is known; write setWeight, pause, setCanaryScale, analysis, experiment, ..."
        return
    check = _STEPS.get(name)
    if check is not None:
        yield from check(sit, step)


def _weight(sit: Situation, step: CanaryStep) -> Iterator[str]:
    if step.set_weight is not None and not 0 <= step.set_weight <= sit.max_weight:
        yield f"setWeight: {step.set_weight}; want 0 to {sit.max_weight}"


def _pause(sit: Situation, step: CanaryStep) -> Iterator[str]:
    if step.pause is None:
        return
    try:
        seconds = pause_seconds(step.pause)
    except (durations.DurationError, ValueError):
        yield f"pause.duration: {step.pause.duration!r} is none; write seconds, or text such as 10m"
        return
    if seconds is not None and seconds < 0:
        yield "pause.duration: it is negative; write 0 or more"


def _scale(sit: Situation, step: CanaryStep) -> Iterator[str]:
    if not sit.is_routed:
        yield "setCanaryScale: it needs trafficRouting"


def _routes(sit: Situation, step: CanaryStep) -> Iterator[str]:
    if not sit.is_routed or sit.canary is None or sit.canary.traffic_routing is None:
        yield f"{'setHeaderRoute' if step.set_header_route else 'setMirrorRoute'}: it needs trafficRouting"
        return
    word = "setHeaderRoute" if step.set_header_route else "setMirrorRoute"
    keys = route_keys(sit.rollout)
    if keys and not any(map(has_requests, keys)):
        yield f"{word}: it needs a route of requests; name httpRoute or grpcRoute"
    route = step.set_header_route or step.set_mirror_route
    listed = {one.name for one in sit.canary.traffic_routing.managed_routes}
    if route is not None and route.match and route.name not in listed:
        yield f"route '{route.name}' is not in trafficRouting.managedRoutes; add it there"
    texts: list[StringMatch] = []
    if step.set_header_route is not None:
        texts = [one.header_value for one in step.set_header_route.match]
    elif step.set_mirror_route is not None:
        for match in step.set_mirror_route.match:
            texts += [one for one in (match.path, *match.headers.values()) if one is not None]
            if match.method is not None and match.method.exact not in _METHODS:
                yield "setMirrorRoute.match.method: want an exact method, in capitals"
    if any(sum(value is not None for value in (one.exact, one.prefix, one.regex)) != 1 for one in texts):
        yield "match: want one of exact, prefix and regex"


def _plugin(sit: Situation, step: CanaryStep) -> Iterator[str]:
    if step.plugin is None:
        return
    if step.plugin.name != REGIONS_PLUGIN:
        yield f"plugin '{step.plugin.name}' is not known here; there is {REGIONS_PLUGIN}"
        return
    config = region_config(step)
    if config is None or not config[0] or not 0 <= config[1] <= sit.max_weight:
        yield f"plugin {REGIONS_PLUGIN}: config wants regions, names or '*', and weight, up to {sit.max_weight}"
    elif not sit.is_routed:
        yield f"plugin {REGIONS_PLUGIN}: it needs trafficRouting"
    elif (keys := route_keys(sit.rollout)) and not any(map(has_requests, keys)):
        yield f"plugin {REGIONS_PLUGIN}: it needs a route of requests; name httpRoute or grpcRoute"
    elif len({key.namespace for key in route_keys(sit.rollout)}) > 1:
        yield f"plugin {REGIONS_PLUGIN}: routes are in several namespaces; take those of one"


def _experiment(sit: Situation, step: CanaryStep) -> Iterator[str]:
    if step.experiment is None:
        return
    for one in step.experiment.templates:
        if one.spec_ref not in {"stable", "canary"}:
            yield f"experiment template '{one.name}': specRef '{one.spec_ref}'; want stable or canary"
        if one.weight is not None and not sit.is_routed:
            yield f"experiment template '{one.name}': weight needs trafficRouting"
    index = next(place for place, each in enumerate(sit.steps) if each is step)
    canary = split_at(sit.steps, index, sit.max_weight).most
    shares = sum(one.weight or 0 for one in step.experiment.templates)
    if canary + shares > sit.max_weight:
        yield f"experiment: its weights are {shares} and the canary has {canary}; want {sit.max_weight} in all at most"


_STEPS: Final[dict[str, Callable[[Situation, CanaryStep], Iterator[str]]]] = {
    "set_weight": _weight,
    "pause": _pause,
    "set_canary_scale": _scale,
    "set_header_route": _routes,
    "set_mirror_route": _routes,
    "plugin": _plugin,
    "experiment": _experiment,
}


# What it names


def missing(sit: Situation) -> list[str]:
    """Return what a rollout names and what is not there, as `problems` says it."""
    found = [f"service '{name}'" for name in service_names(sit.rollout) if name not in sit.view.services]
    found += [f"{key.kind} '{key.namespace}/{key.name}'" for key in keys_missing(sit)]
    ref = sit.spec.workload_ref
    if ref is not None and sit.view.workload is None:
        found.append(f"spec.workloadRef: {ref.kind} '{ref.name}'")
    made = [f"{each} is not there; create it, or name another" for each in found]
    for refs in analysis_refs(sit.rollout):
        made += [
            f"{each} is not there; apply it, or name another" for each in missing_templates(refs, sit.view.templates)
        ]
    return made


def _of_references(sit: Situation) -> Iterator[str]:
    yield from (each for each in missing(sit) if not each.startswith("spec.workloadRef"))
    for name in service_names(sit.rollout):
        service = sit.view.services.get(name)
        owner = None if service is None else service.metadata.annotations.get(MANAGED_BY)
        if owner not in {None, sit.name}:
            yield f"service '{name}' is managed by rollout '{owner}'; take another service"
    yield from _of_analyses(sit)
    if sit.is_routed and route_keys(sit.rollout) and not keys_missing(sit) and all(sit.services):
        try:
            routed(sit, wanted_split(sit))
        except RouteInvalid as error:
            yield str(error)


def _of_analyses(sit: Situation) -> Iterator[str]:
    for analysis in _analyses(sit.rollout):
        if analysis.templates and not missing_templates(analysis.templates, sit.view.templates):
            try:
                check_run(analysis, sit.view.templates)
            except AnalysisInvalid as error:
                yield str(error)


def service_names(rollout: Rollout) -> list[str]:
    """Return the services that a rollout names."""
    canary, blue_green = rollout.spec.strategy.canary, rollout.spec.strategy.blue_green
    found: list[str | None] = []
    if blue_green is not None:
        found = [blue_green.active_service, blue_green.preview_service]
    elif canary is not None:
        found = [canary.stable_service, canary.canary_service]
        if canary.ping_pong is not None:
            found = [canary.ping_pong.ping_service, canary.ping_pong.pong_service]
    return [name for name in found if name]


def analysis_refs(rollout: Rollout) -> Iterator[Sequence[AnalysisTemplateRef]]:
    """Give the templates of each analysis that a rollout may run."""
    for analysis in _analyses(rollout):
        yield analysis.templates
    canary = rollout.spec.strategy.canary
    for step in canary.steps if canary is not None else ():
        for one in step.experiment.analyses if step.experiment else ():
            yield [AnalysisTemplateRef(template_name=one.template_name, cluster_scope=one.cluster_scope)]


def _analyses(rollout: Rollout) -> list[RolloutAnalysis]:
    canary, blue_green = rollout.spec.strategy.canary, rollout.spec.strategy.blue_green
    found: list[RolloutAnalysis | None] = []
    if canary is not None:
        found += [canary.analysis, *(step.analysis for step in canary.steps)]
    if blue_green is not None:
        found += [blue_green.pre_promotion_analysis, blue_green.post_promotion_analysis]
    return [each for each in found if each is not None]
