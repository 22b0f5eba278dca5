"""What a rollout's objects come to: which set is which, which step it is at, how many pods there may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from pilothouse.delivery.resources.rollouts import (
    BlueGreenStrategy,
    CanaryStep,
    CanaryStrategy,
    PauseCondition,
    RolloutStatus,
)
from pilothouse.kinds import intstr, times
from pilothouse.kinds.labels import Selector, SelectorError, from_label_selector
from pilothouse.kinds.structs import (
    IntOrString,
    LabelSelector,
    PodTemplateSpec,
    ReplicaSet,
    Service,
    encode,
    from_dict,
    to_dict,
)

from .names import BLUE_GREEN_PAUSE, CANARY_PAUSE, DEADLINE, EXPERIMENT_NAME, HASH, INCONCLUSIVE_RUN, REVISION
from .templates import hash_of, hash_text, is_of
from .view import View

__all__ = ["Situation", "available", "by_age", "deadline_of", "hash_label", "revision_of", "selected", "size"]

_QUARTER: Final = "25%"
_ABORT_DELAY: Final = 30
_SCALE_DOWN_DELAY: Final = 30
_MANY: Final = 2**31


def size(found: ReplicaSet | None) -> int:
    """Return how many pods a set is to have."""
    if found is None:
        return 0
    return 1 if found.spec.replicas is None else found.spec.replicas


def available(found: ReplicaSet | None) -> int:
    """Return how many pods of a set are available."""
    return 0 if found is None else found.status.available_replicas


def hash_label(found: ReplicaSet | None) -> str:
    """Return the hash that names a set's template."""
    return "" if found is None else found.metadata.labels.get(HASH, "")


def revision_of(found: ReplicaSet | None) -> int:
    """Return a set's revision, 0 where it has none."""
    text = "" if found is None else found.metadata.annotations.get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def by_age(found: ReplicaSet) -> tuple[str, str]:
    """Order sets by age, the oldest first."""
    return found.metadata.creation_timestamp or "", found.metadata.name


def deadline_of(found: ReplicaSet | None) -> datetime | None:
    """Return when a set is to be scaled down, None where nothing is said."""
    text = "" if found is None else found.metadata.annotations.get(DEADLINE, "")
    try:
        return times.parse(text) if text else None
    except times.TimeError:
        return None


def selected(service: Service | None) -> str:
    """Return the hash that a service selects, empty where it selects none."""
    return "" if service is None else service.spec.selector.get(HASH, "")


class Situation:
    """One rollout as it is. With another status it is what it would be then: `at(status)`."""

    def __init__(self, view: View, now: datetime, status: RolloutStatus | None = None) -> None:
        self.view: Final = view
        self.now: Final = now
        self.rollout: Final = view.rollout
        self.spec: Final = view.rollout.spec
        self.status: Final = view.rollout.status if status is None else status

    def at(self, status: RolloutStatus) -> Situation:
        """Return the situation with another status."""
        made = Situation(self.view, self.now, status)
        for name in ("template", "selector", "_selects", "hash", "new", "sets", "step_hash"):
            if name in self.__dict__:
                made.__dict__[name] = self.__dict__[name]
        return made

    # The specification

    @property
    def name(self) -> str:
        return self.rollout.metadata.name

    @property
    def namespace(self) -> str:
        return self.rollout.metadata.namespace

    @property
    def canary(self) -> CanaryStrategy | None:
        return self.spec.strategy.canary if self.spec.strategy.blue_green is None else None

    @property
    def blue_green(self) -> BlueGreenStrategy | None:
        return self.spec.strategy.blue_green

    @property
    def replicas(self) -> int:
        return 1 if self.spec.replicas is None else self.spec.replicas

    @property
    def is_routed(self) -> bool:
        """Whether traffic is split by routes, and not by numbers of pods."""
        return self.canary is not None and self.canary.traffic_routing is not None

    @property
    def is_dynamic(self) -> bool:
        """Whether the stable set shrinks as its traffic does."""
        return self.canary is not None and self.is_routed and bool(self.canary.dynamic_stable_scale)

    @property
    def max_weight(self) -> int:
        routing = None if self.canary is None else self.canary.traffic_routing
        return 100 if routing is None or routing.max_traffic_weight is None else routing.max_traffic_weight

    @property
    def steps(self) -> Sequence[CanaryStep]:
        return () if self.canary is None else self.canary.steps

    @cached_property
    def step_hash(self) -> str:
        """The name of the steps as they are, empty for blue-green."""
        return "" if self.canary is None else hash_text(b"\n".join(encode(step) for step in self.steps))

    @cached_property
    def template(self) -> PodTemplateSpec:
        """The template that is rolled out, of the rollout or of what workloadRef names."""
        workload = self.view.workload
        if self.spec.workload_ref is None or workload is None:
            return self.spec.template or PodTemplateSpec()
        tree: Any = workload.get("template") or (workload.get("spec") or {}).get("template") or {}
        return from_dict(tree, PodTemplateSpec)

    @cached_property
    def selector(self) -> LabelSelector:
        """The selector of the pods, that of the workload where the rollout has none."""
        workload = self.view.workload
        if self.spec.selector is not None or workload is None:
            return self.spec.selector or LabelSelector()
        return from_dict((workload.get("spec") or {}).get("selector") or {}, LabelSelector)

    # Sets

    @cached_property
    def sets(self) -> list[ReplicaSet]:
        """The rollout's own sets, the oldest first; not those of experiments, and none that it is to let go."""
        own = [found for found in self.view.sets if EXPERIMENT_NAME not in found.metadata.annotations]
        return sorted(filter(self.takes, own), key=by_age)

    def takes(self, found: ReplicaSet) -> bool:
        """Whether the selector takes a set. One that is wrong, or empty, lets nothing go and takes nothing in."""
        selector = self._selects
        if selector is None:
            return any(found is each for each in self.view.sets)
        return selector.matches(found.metadata.labels)

    @cached_property
    def _selects(self) -> Selector | None:
        try:
            made = from_label_selector(to_dict(self.selector))
        except SelectorError:
            return None
        return None if made.empty else made

    @cached_property
    def new(self) -> ReplicaSet | None:
        """The set of the present template."""
        wanted = hash_of(self.template, self.status.collision_count)
        named = next((found for found in self.sets if hash_label(found) == wanted), None)
        return named or next((found for found in self.sets if is_of(found, self.template)), None)

    @cached_property
    def hash(self) -> str:
        """The hash that names the present template."""
        return hash_label(self.new) or hash_of(self.template, self.status.collision_count)

    @property
    def stable(self) -> ReplicaSet | None:
        """The set that users are to fall back to."""
        return self.set_of(self.status.stable_rs or "")

    @property
    def others(self) -> list[ReplicaSet]:
        """The sets that are neither new nor stable."""
        kept = {each.metadata.name for each in (self.new, self.stable) if each is not None}
        return [found for found in self.sets if found.metadata.name not in kept]

    def set_of(self, text: str) -> ReplicaSet | None:
        """Return the set that a hash names."""
        return next((found for found in self.sets if text and hash_label(found) == text), None)

    @property
    def has_stable(self) -> bool:
        """Whether there is a stable set beside the new one."""
        return self.stable is not None and self.stable is not self.new

    @property
    def revision(self) -> int:
        """The revision of the present template: above those of all other sets."""
        others = max((revision_of(found) for found in self.sets if found is not self.new), default=0)
        return max(revision_of(self.new), others + 1)

    @staticmethod
    def total(found: Iterable[ReplicaSet | None]) -> int:
        """Return how many pods sets are to have together."""
        return sum(size(each) for each in found)

    # How far it is

    @property
    def is_promoted(self) -> bool:
        """Whether the present template is the stable one."""
        return bool(self.status.stable_rs) and self.status.stable_rs == self.status.current_pod_hash

    @property
    def is_first(self) -> bool:
        """Whether nothing has been stable yet."""
        return not self.status.stable_rs

    @property
    def is_aborted(self) -> bool:
        return bool(self.status.abort)

    @property
    def index(self) -> int | None:
        """The index of the present step, None without steps."""
        return (self.status.current_step_index or 0) if self.steps else None

    @property
    def step(self) -> CanaryStep | None:
        """The present step, None after the last one."""
        index = self.index
        return None if index is None or not 0 <= index < len(self.steps) else self.steps[index]

    @property
    def is_past_steps(self) -> bool:
        return self.index is None or self.index >= len(self.steps)

    def pause(self, reason: str) -> PauseCondition | None:
        """Return the pause of a reason."""
        return next((one for one in self.status.pause_conditions if one.reason == reason), None)

    @property
    def is_halted(self) -> bool:
        """Whether nothing is scaled or switched: paused by hand, or an analysis could not tell."""
        return bool(self.spec.paused) or self.pause(INCONCLUSIVE_RUN) is not None

    @property
    def is_back_within_window(self) -> bool:
        """Whether the present template is an older revision than the stable one, and near enough to skip steps."""
        window = self.spec.rollback_window
        new, stable = self.new, self.stable
        if window is None or not window.revisions or new is None or stable is None:
            return False
        born, limit = new.metadata.creation_timestamp or "", stable.metadata.creation_timestamp or ""
        if not born < limit:
            return False
        between = [found for found in self.sets if born < (found.metadata.creation_timestamp or "") < limit]
        return len(between) < window.revisions

    def needs_somebody(self, pause: PauseCondition) -> bool:
        """Whether a pause lasts until a person ends it."""
        if pause.reason == CANARY_PAUSE:
            return self.step is not None and self.step.pause is not None and self.step.pause.duration is None
        if pause.reason == BLUE_GREEN_PAUSE:
            return self.blue_green is not None and self.blue_green.auto_promotion_enabled is False
        return True

    def since(self, moment: str | None) -> float:
        """Return the seconds since a moment; very many where there is none."""
        return _MANY if not moment else (self.now - times.parse(moment)).total_seconds()

    @property
    def stamp(self) -> str:
        return times.format_seconds(self.now)

    @property
    def exact_stamp(self) -> str:
        """Now to the microsecond: what a rollback takes is less than a second. Argo reads it too."""
        return times.format_micros(self.now)

    def stamp_in(self, seconds: float) -> str:
        """Return the moment in so many seconds."""
        return times.format_seconds(self.now + timedelta(seconds=seconds))

    # Limits

    @property
    def max_surge(self) -> int:
        return self._fences[0]

    @property
    def max_unavailable(self) -> int:
        return self._fences[1]

    @cached_property
    def _fences(self) -> tuple[int, int]:
        strategy: Any = self.canary or self.blue_green
        unavailable = self._share(strategy.max_unavailable if strategy else None, round_up=False)
        if self.canary is None:
            return 0, min(unavailable, self.replicas)
        surge = self._share(self.canary.max_surge, round_up=True)
        if not surge and not unavailable:
            unavailable = 1
        return surge, min(unavailable, self.replicas)

    def _share(self, value: IntOrString | None, *, round_up: bool) -> int:
        wanted = _QUARTER if value is None else value
        if isinstance(wanted, str) and not wanted.endswith("%"):
            wanted = f"{wanted}%"
        return max(intstr.scaled(wanted, self.replicas, round_up=round_up), 0)

    @property
    def scale_down_delay(self) -> int:
        """How many seconds replaced sets keep their pods."""
        if self.canary is not None and not self.is_routed:
            return 0
        given = self._strategy_field("scale_down_delay_seconds")
        return _SCALE_DOWN_DELAY if given is None else int(given)

    @property
    def scale_down_limit(self) -> int:
        """How many replaced sets may keep their pods."""
        given = self._strategy_field("scale_down_delay_revision_limit")
        return _MANY if given is None else int(given)

    @property
    def has_own_abort_delay(self) -> bool:
        """Whether the delay before an aborted version loses its pods is said, and is one."""
        return bool(self._strategy_field("abort_scale_down_delay_seconds"))

    @property
    def abort_delay(self) -> int | None:
        """How many seconds an aborted version keeps its pods; None: for ever."""
        if self.canary is not None and not self.is_routed:
            return 0
        given = self._strategy_field("abort_scale_down_delay_seconds")
        return _ABORT_DELAY if given is None else (int(given) or None)

    def _strategy_field(self, name: str) -> Any:
        strategy: Any = self.canary or self.blue_green
        return None if strategy is None else getattr(strategy, name)

    # Services

    @property
    def services(self) -> tuple[str, str]:
        """The names of the stable and the canary service; empty where there is none."""
        canary = self.canary
        if canary is None:
            return "", ""
        if canary.ping_pong is None:
            return canary.stable_service or "", canary.canary_service or ""
        ping, pong = canary.ping_pong.ping_service, canary.ping_pong.pong_service
        return (ping, pong) if self.status.canary.stable_ping_pong == "ping" else (pong, ping)

    def selected(self, service: str) -> str:
        """Return the hash that a service selects."""
        return selected(self.view.services.get(service))
