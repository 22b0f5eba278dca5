"""`{{args.name}}` in metrics: which arguments a run wants from secrets, and a run with all of them filled in. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse.delivery.errors import AnalysisInvalid
from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisRunSpec, Argument
from pilothouse.kinds.structs import replace, to_dict

__all__ = ["filled", "wanted_secrets"]

_PLACE: Final = re.compile(r"\{\{\s*args\.([A-Za-z0-9_.-]+)\s*\}\}")


def wanted_secrets(run: AnalysisRun) -> Mapping[str, tuple[str, str]]:
    """Return the arguments whose values are in secrets: name of the argument to name and key of the secret."""
    found: dict[str, tuple[str, str]] = {}
    for argument in run.spec.args:
        ref = argument.value_from.secret_key_ref if argument.value_from is not None else None
        if argument.value is None and ref is not None:
            found[argument.name] = (ref.name, ref.key)
    return found


def filled(spec: AnalysisRunSpec, secrets: Mapping[str, str]) -> AnalysisRunSpec:
    """Return a run's specification with its arguments put into its metrics; it is never to be written back.

    secrets: values of the arguments that are in secrets. Raises AnalysisInvalid for an argument without a value.
    """
    values = {each.name: _value(each, secrets) for each in spec.args}

    def put(text: str, metric: str) -> str:
        def one(place: re.Match[str]) -> str:
            value = values.get(place[1])
            if value is None:
                raise AnalysisInvalid(f"metric '{metric}': argument '{place[1]}' has no value; give it one in `args`")
            return value

        return _PLACE.sub(one, text) if "{{" in text else text

    def walk(found: Any, metric: str) -> Any:
        if isinstance(found, str):
            return put(found, metric)
        if isinstance(found, Mapping):
            return {key: walk(value, metric) for key, value in found.items()}
        if isinstance(found, list | tuple):
            return [walk(value, metric) for value in found]
        return found

    metrics = [msgspec.convert(walk(to_dict(each), each.name), type(each), strict=False) for each in spec.metrics]
    return replace(spec, metrics=metrics)


def _value(argument: Argument, secrets: Mapping[str, str]) -> str | None:
    return argument.value if argument.value is not None else secrets.get(argument.name)
