"""A profile: which plugins are asked at which extension point, in which order and with which weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .configuration import ProfileConfiguration, resolve
from .errors import ConfigurationError
from .evaluation import Evaluation
from .events import Interest
from .framework import (
    BindPlugin,
    FilterPlugin,
    PermitPlugin,
    PostBindPlugin,
    PostFilterPlugin,
    PreBindPlugin,
    PreEnqueuePlugin,
    PreFilterPlugin,
    PreScorePlugin,
    QueueSortPlugin,
    ReservePlugin,
    Scope,
    ScorePlugin,
    WakingPlugin,
)
from .plugins import REGISTRY, Factory

__all__ = ["Profile"]

_PROTOCOLS: Final[Mapping[str, Any]] = {
    "preEnqueue": PreEnqueuePlugin,
    "queueSort": QueueSortPlugin,
    "preFilter": PreFilterPlugin,
    "filter": FilterPlugin,
    "postFilter": PostFilterPlugin,
    "preScore": PreScorePlugin,
    "score": ScorePlugin,
    "reserve": ReservePlugin,
    "permit": PermitPlugin,
    "preBind": PreBindPlugin,
    "bind": BindPlugin,
    "postBind": PostBindPlugin,
}


class Profile:
    """The plugins of one scheduler name. Raises ConfigurationError where they do not go together."""

    def __init__(self, configuration: ProfileConfiguration, registry: Mapping[str, Factory] = REGISTRY) -> None:
        self.name: Final = configuration.scheduler_name
        names = {name for name, _ in configuration.multi_point}
        for found in configuration.points.values():
            names.update(name for name, _ in found.enabled)
        self._plugins: Final = {name: registry[name](configuration.args.get(name)) for name in sorted(names)}
        self._configuration = configuration
        self.pre_enqueue: Final[list[PreEnqueuePlugin]] = self._at("preEnqueue")
        sorts: list[QueueSortPlugin] = self._at("queueSort")
        if len(sorts) != 1:
            raise ConfigurationError(
                f"profile {self.name}: plugins.queueSort", f"{len(sorts)} are enabled; exactly one is wanted"
            )
        self.queue_sort: Final = sorts[0]
        self.filters: Final[list[FilterPlugin]] = self._at("filter")
        self.post_filters: Final[list[PostFilterPlugin]] = self._at("postFilter")
        self.scores: Final = [
            (self._plugins[name], weight or 1)
            for name, weight in resolve(configuration, "score", self._implementing("score"))
        ]
        self.nameless: Final = all(
            getattr(plugin, "nameless", False)
            for plugin, scope in (
                *((one, one.scope) for one in self.filters),
                *((one, one.score_scope) for one, _ in self.scores),
            )
            if scope is not Scope.CLUSTER
        )
        """Whether pods that are alike but for labels, owners and terms about other pods share answers."""
        self.reserves: Final[list[ReservePlugin]] = self._at("reserve")
        self.permits: Final[list[PermitPlugin]] = self._at("permit")
        self.pre_binds: Final[list[PreBindPlugin]] = self._at("preBind")
        self.binds: Final[list[BindPlugin]] = self._at("bind")
        self.post_binds: Final[list[PostBindPlugin]] = self._at("postBind")
        if not self.binds:
            raise ConfigurationError(f"profile {self.name}: plugins.bind", "none is enabled; at least one is wanted")

    def evaluation(self) -> Evaluation:
        """Make what keeps the answers for a shape of pods."""
        return Evaluation(self.filters, self.scores)

    def hints(self) -> dict[str, tuple[Interest, ...]]:
        """Give the events that plugins want to hear of."""
        return {
            name: tuple(plugin.events()) for name, plugin in self._plugins.items() if isinstance(plugin, WakingPlugin)
        }

    def _implementing(self, point: str) -> list[str]:
        return [name for name, plugin in self._plugins.items() if isinstance(plugin, _PROTOCOLS[point])]

    def _at(self, point: str) -> list[Any]:
        implementing = self._implementing(point)
        found = resolve(self._configuration, point, implementing)
        for name, _ in found:
            if name not in implementing:
                raise ConfigurationError(
                    f"profile {self.name}: plugins.{point}.enabled", f"{name} has nothing to say at this point"
                )
        return [self._plugins[name] for name, _ in found]
