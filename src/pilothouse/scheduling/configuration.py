"""KubeSchedulerConfiguration, `kubescheduler.config.k8s.io/v1`: files as kube-scheduler reads them, unchanged.

What only concerns kube-scheduler's own process (leader election, connection, profiling) is read and left alone. All
nodes are looked at whatever `percentageOfNodesToScore` says, for they are looked at together. Extenders are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from .config_args import READERS
from .errors import ConfigurationError
from .plugins import DEFAULT_PLUGINS, REGISTRY, Factory

__all__ = ["POINTS", "Configuration", "ProfileConfiguration", "load", "parse", "resolve"]

API_VERSION: Final = "kubescheduler.config.k8s.io/v1"
POINTS: Final = (
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
)
"""The extension points by their names in files, in the order in which they come."""
_ALL: Final = "*"
_IGNORED: Final = frozenset(
    {
        "clientConnection",
        "delayCacheUntilActive",
        "enableContentionProfiling",
        "enableProfiling",
        "leaderElection",
        "parallelism",
    }
)
_REMOVED: Final = frozenset({"AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"})
Enabled = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class _Set:
    enabled: Enabled = ()
    disabled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ProfileConfiguration:
    """A profile: what is enabled at all points (`multi_point`) and at single ones, and the plugins' arguments."""

    scheduler_name: str = "default-scheduler"
    multi_point: Enabled = DEFAULT_PLUGINS
    points: Mapping[str, _Set] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a scheduler is told. Times are in seconds."""

    profiles: tuple[ProfileConfiguration, ...] = (ProfileConfiguration(),)
    pod_initial_backoff_seconds: int = 1
    pod_max_backoff_seconds: int = 10
    percentage_of_nodes_to_score: int = 0
    """Read, checked and without effect: all nodes are scored."""


def load(path: Path, registry: Mapping[str, Factory] = REGISTRY) -> Configuration:
    """Read a file of YAML or JSON. Raises ConfigurationError, OSError."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), f"is no YAML: {error}") from error
    return parse(tree, registry)


def parse(tree: object, registry: Mapping[str, Factory] = REGISTRY) -> Configuration:
    """Read a configuration from what YAML or JSON gave. Raises ConfigurationError, which names the field."""
    top = _mapping(tree, "KubeSchedulerConfiguration")
    if top.get("apiVersion") != API_VERSION:
        raise ConfigurationError("apiVersion", f"is {top.get('apiVersion')!r}; write {API_VERSION}")
    if top.get("kind") != "KubeSchedulerConfiguration":
        raise ConfigurationError("kind", f"is {top.get('kind')!r}; write KubeSchedulerConfiguration")
    known = {
        "apiVersion",
        "kind",
        "profiles",
        "extenders",
        "percentageOfNodesToScore",
        "podInitialBackoffSeconds",
        "podMaxBackoffSeconds",
    }
    _no_others(top, known | _IGNORED, "")
    if top.get("extenders"):
        raise ConfigurationError("extenders", "are not called; write a plugin instead, see docs/scheduling.md")
    initial = _whole(top, "podInitialBackoffSeconds", 1, "podInitialBackoffSeconds")
    longest = _whole(top, "podMaxBackoffSeconds", 10, "podMaxBackoffSeconds")
    if initial <= 0:
        raise ConfigurationError("podInitialBackoffSeconds", f"is {initial}; must be greater than 0")
    if longest < initial:
        raise ConfigurationError(
            "podMaxBackoffSeconds", f"is {longest}; must be greater than or equal to podInitialBackoffSeconds"
        )
    percentage = _percentage(top, "percentageOfNodesToScore")
    listed = _list(top.get("profiles"), "profiles") or [{}]
    profiles = tuple(
        _profile(one, f"profiles[{position}]", registry, alone=len(listed) == 1) for position, one in enumerate(listed)
    )
    _check_profiles(profiles)
    return Configuration(profiles, initial, longest, percentage)


def resolve(profile: ProfileConfiguration, point: str, implementing: Sequence[str]) -> Enabled:
    """Give the plugins of an extension point in their order; `implementing` are those that have something to say there.

    As upstream: those of all points that the point names again come first, then the others of all points, then those
    of this point alone.
    """
    own = profile.points.get(point, _Set())
    if _ALL in own.disabled:
        return own.enabled
    explicit = dict(own.enabled)
    everywhere = [one for one in profile.multi_point if one[0] in implementing and one[0] not in own.disabled]
    names = {name for name, _ in everywhere}
    again = [one for one in own.enabled if one[0] in names]
    alone = [one for one in own.enabled if one[0] not in names]
    return (*again, *(one for one in everywhere if one[0] not in explicit), *alone)


def _check_profiles(profiles: Sequence[ProfileConfiguration]) -> None:
    seen: dict[str, int] = {}
    for position, profile in enumerate(profiles):
        name = profile.scheduler_name
        if name in seen:
            raise ConfigurationError(
                f"profiles[{position}].schedulerName", f"{name!r} is also that of profiles[{seen[name]}]"
            )
        seen[name] = position
        if profile.points.get("queueSort", _Set()) != profiles[0].points.get("queueSort", _Set()):
            raise ConfigurationError(f"profiles[{position}].plugins.queueSort", "must be the same for all profiles")


def _profile(tree: object, path: str, registry: Mapping[str, Factory], *, alone: bool) -> ProfileConfiguration:
    top = _mapping(tree, path)
    _no_others(top, {"schedulerName", "percentageOfNodesToScore", "plugins", "pluginConfig"}, path)
    name = top.get("schedulerName")
    if name is None and not alone:
        raise ConfigurationError(f"{path}.schedulerName", "is missing; with several profiles each needs one")
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f"{path}.schedulerName", f"is {name!r}; write a name")
    _percentage(top, f"{path}.percentageOfNodesToScore", "percentageOfNodesToScore")
    plugins = _mapping(top.get("plugins") or {}, f"{path}.plugins")
    _no_others(plugins, {"multiPoint", *POINTS}, f"{path}.plugins")
    multi = _set(plugins.get("multiPoint"), f"{path}.plugins.multiPoint", registry)
    points = {
        point: _set(plugins[point], f"{path}.plugins.{point}", registry) for point in POINTS if plugins.get(point)
    }
    return ProfileConfiguration(
        name or "default-scheduler", _merged(multi), points, _args(top.get("pluginConfig"), f"{path}.pluginConfig")
    )


def _merged(custom: _Set) -> Enabled:
    """Put together what is enabled by default and by the file."""
    explicit = dict(custom.enabled)
    found: list[tuple[str, int]] = []
    if _ALL not in custom.disabled:
        found = [(name, explicit.get(name, weight)) for name, weight in DEFAULT_PLUGINS if name not in custom.disabled]
    there = {name for name, _ in found}
    return (*found, *(one for one in custom.enabled if one[0] not in there))


def _set(tree: object, path: str, registry: Mapping[str, Factory]) -> _Set:
    top = _mapping(tree or {}, path)
    _no_others(top, {"enabled", "disabled"}, path)
    enabled: list[tuple[str, int]] = []
    for position, one in enumerate(_list(top.get("enabled"), f"{path}.enabled")):
        where = f"{path}.enabled[{position}]"
        plugin = _mapping(one, where)
        _no_others(plugin, {"name", "weight"}, where)
        name = str(plugin.get("name") or "")
        if name in _REMOVED:
            raise ConfigurationError(f"{where}.name", f"{name} was removed from Kubernetes; remove it")
        if name not in registry:
            known = ", ".join(sorted(registry))
            raise ConfigurationError(f"{where}.name", f"there is no plugin {name!r}; there are {known}")
        if name in dict(enabled):
            raise ConfigurationError(f"{where}.name", f"plugin {name!r} is enabled twice here")
        weight = _whole(plugin, "weight", 0, f"{where}.weight")
        if weight < 0:
            raise ConfigurationError(f"{where}.weight", f"is {weight}; must not be negative")
        enabled.append((name, weight))
    disabled: list[Any] = [
        _mapping(one, f"{path}.disabled[{i}]").get("name")
        for i, one in enumerate(_list(top.get("disabled"), f"{path}.disabled"))
    ]
    for position, found in enumerate(disabled):
        if not isinstance(found, str) or not found:
            raise ConfigurationError(f"{path}.disabled[{position}].name", 'is missing; name a plugin, or "*" for all')
    return _Set(tuple(enabled), frozenset(str(one) for one in disabled))


def _args(tree: object, path: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for position, one in enumerate(_list(tree, path)):
        where = f"{path}[{position}]"
        entry = _mapping(one, where)
        _no_others(entry, {"name", "args"}, where)
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{where}.name", "is missing; name a plugin")
        if name in found:
            raise ConfigurationError(f"{where}.name", f"plugin {name!r} has its arguments twice")
        args = _mapping(entry.get("args") or {}, f"{where}.args")
        reader = READERS.get(name)
        found[name] = reader(args, f"{where}.args") if reader is not None else args
    return found


def _mapping(tree: object, path: str) -> Mapping[str, Any]:
    if not isinstance(tree, Mapping):
        raise ConfigurationError(path, f"is a {type(tree).__name__}; a mapping of fields is wanted")
    return tree


def _list(tree: object, path: str) -> Sequence[Any]:
    if tree is None:
        return []
    if not isinstance(tree, list):
        raise ConfigurationError(path, f"is a {type(tree).__name__}; a list is wanted")
    return tree


def _whole(tree: Mapping[str, Any], name: str, default: int, path: str) -> int:
    found = tree.get(name)
    if found is None:
        return default
    if not isinstance(found, int) or isinstance(found, bool):
        raise ConfigurationError(path, f"is {found!r}; a whole number is wanted")
    return found


def _percentage(tree: Mapping[str, Any], path: str, name: str = "percentageOfNodesToScore") -> int:
    found = _whole(tree, name, 0, path)
    if not 0 <= found <= 100:
        raise ConfigurationError(path, f"is {found}; not in valid range [0-100]")
    return found


def _no_others(tree: Mapping[str, Any], known: frozenset[str] | set[str], path: str) -> None:
    for name in tree:
        if name not in known:
            raise ConfigurationError(f"{path}.{name}" if path else str(name), "no such field; remove it")
