"""Steps of a rollout in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["described"]

_REGIONS: Final = "pilothouse.dev/regions"


def described(step: Mapping[str, Any]) -> dict[str, str]:
    """Return what a step does: `kind` as in the file, `text` short enough for a line. Never raises."""
    kind = next((str(name) for name, value in step.items() if value is not None), "")
    value = step.get(kind)
    if kind == "setWeight":
        return {"kind": kind, "text": f"{value} %"}
    if not isinstance(value, Mapping):
        return {"kind": kind or "unknown", "text": kind or "unknown step"}
    text = _TEXTS.get(kind)
    return {"kind": kind, "text": text(value) if text is not None else kind}


def _pause(value: Mapping[str, Any]) -> str:
    length = value.get("duration")
    if length is None:
        return "wait for promotion"
    return f"wait {length} s" if str(length).isdigit() else f"wait {length}"


def _plugin(value: Mapping[str, Any]) -> str:
    config = value.get("config")
    if value.get("name") != _REGIONS or not isinstance(config, Mapping):
        return str(value.get("name") or "plugin")
    regions = config.get("regions")
    names = [str(each) for each in regions] if isinstance(regions, list) else []
    where = "everywhere" if names in ([], ["*"]) else ", ".join(names)
    return f"{where} {config.get('weight', '?')} %"


def _analysis(value: Mapping[str, Any]) -> str:
    templates = value.get("templates")
    names = [str(each.get("templateName")) for each in templates or () if isinstance(each, Mapping)]
    return f"analysis {', '.join(names)}".strip()


def _scale(value: Mapping[str, Any]) -> str:
    if value.get("matchTrafficWeight"):
        return "pods as traffic"
    if value.get("replicas") is not None:
        return f"{value['replicas']} pods"
    return f"{value.get('weight', '?')} % of pods"


def _header(value: Mapping[str, Any]) -> str:
    matches = [str(each.get("headerName")) for each in value.get("match") or () if isinstance(each, Mapping)]
    return f"header {', '.join(matches)}" if matches else "no header route"


def _mirror(value: Mapping[str, Any]) -> str:
    return f"mirror {value.get('percentage', 100)} %" if value.get("match") else "no mirror"


def _experiment(value: Mapping[str, Any]) -> str:
    return f"experiment {value.get('duration') or ''}".strip()


_TEXTS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "pause": _pause,
    "plugin": _plugin,
    "analysis": _analysis,
    "setCanaryScale": _scale,
    "setHeaderRoute": _header,
    "setMirrorRoute": _mirror,
    "experiment": _experiment,
}
