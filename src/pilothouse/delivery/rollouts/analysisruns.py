"""Analysis runs out of templates: what is measured together, with arguments filled in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pilothouse.delivery.errors import AnalysisInvalid
from pilothouse.delivery.resources.analyses import (
    AnalysisRunArgument,
    AnalysisRunMetadata,
    AnalysisRunSpec,
    AnalysisTemplateRef,
    AnalysisTemplateSpec,
    Argument,
    ArgumentValueFrom,
    DryRun,
    MeasurementRetention,
    Metric,
)
from pilothouse.delivery.resources.rollouts import RolloutAnalysis
from pilothouse.kinds.structs import Resource, replace, to_dict

from .view import TemplateKey

__all__ = ["check_run", "given_arguments", "metadata_of", "missing_templates", "run_spec", "template_keys"]

_DEPTH = 8
"""How deep templates may name templates."""
_SUBSCRIPT = re.compile(r"(.*)\['([^']*)'\]").fullmatch
Templates = Mapping[TemplateKey, AnalysisTemplateSpec]


N = TypeVar("N", bound=DryRun | MeasurementRetention)


def template_keys(refs: Iterable[AnalysisTemplateRef]) -> list[TemplateKey]:
    """Return which templates are named."""
    return [TemplateKey(bool(ref.cluster_scope), ref.template_name or "") for ref in refs]


def missing_templates(refs: Sequence[AnalysisTemplateRef], templates: Templates) -> list[str]:
    """Return what is named, also by templates themselves, and is not there, as texts for users."""
    return [_shown(key) for key, found in _walk(refs, templates) if found is None]


def _shown(key: TemplateKey) -> str:
    return f"{'ClusterAnalysisTemplate' if key.cluster else 'AnalysisTemplate'} '{key.name}'"


def _walk(
    refs: Iterable[AnalysisTemplateRef], templates: Templates
) -> Iterator[tuple[TemplateKey, AnalysisTemplateSpec | None]]:
    """Give each template once, those that it names after it."""
    seen, waiting = set[TemplateKey](), [(key, 0) for key in template_keys(refs)]
    while waiting:
        key, depth = waiting.pop(0)
        if key in seen:
            continue
        seen.add(key)
        found = templates.get(key)
        yield key, found
        if found is not None and depth < _DEPTH:
            waiting[:0] = [(inner, depth + 1) for inner in template_keys(found.templates)]


def given_arguments(
    arguments: Iterable[AnalysisRunArgument], owner: Resource, hashes: Mapping[str, str]
) -> list[Argument]:
    """Return the arguments that a rollout gives, filled in. hashes: what `Stable` and `Latest` stand for.

    A secret stays the reference that it is: only who measures reads it. Raises AnalysisInvalid for a field that the
    rollout has not.
    """
    tree = to_dict(owner)
    return [_given(each, tree, hashes) for each in arguments]


def _given(argument: AnalysisRunArgument, tree: Mapping[str, Any], hashes: Mapping[str, str]) -> Argument:
    source = argument.value_from
    if source is None:
        return Argument(name=argument.name, value=argument.value)
    if source.secret_key_ref is not None:
        return Argument(name=argument.name, value_from=ArgumentValueFrom(secret_key_ref=source.secret_key_ref))
    if source.pod_template_hash_value is not None:
        if source.pod_template_hash_value not in hashes:
            raise AnalysisInvalid(
                f"argument '{argument.name}': podTemplateHashValue '{source.pod_template_hash_value}'; want Stable or"
                " Latest"
            )
        return Argument(name=argument.name, value=hashes[source.pod_template_hash_value])
    if source.field_ref is not None:
        return Argument(name=argument.name, value=_field(tree, source.field_ref.field_path, argument.name))
    return Argument(name=argument.name, value=argument.value)


def _field(tree: Mapping[str, Any], path: str, argument: str) -> str:
    matched = _SUBSCRIPT(path)
    names = [*matched[1].split("."), matched[2]] if matched else path.split(".")
    found: Any = tree
    for name in names:
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping) and name in found:
            found = found[name]
        elif matched and names[0] == "metadata":
            return ""  # a label or an annotation that is not there reads as empty, as pods read theirs
        else:
            raise AnalysisInvalid(f"argument '{argument}': fieldRef '{path}': the rollout has no such field")
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, (dict, list)):
        raise AnalysisInvalid(f"argument '{argument}': fieldRef '{path}' is no single value; name a field in it")
    return str(found)


def check_run(analysis: RolloutAnalysis, templates: Templates) -> None:
    """Raise AnalysisInvalid where templates and arguments make no run, whatever fields and hashes will be."""
    given = [Argument(name=one.name, value="" if one.value_from is not None else one.value) for one in analysis.args]
    run_spec(analysis.templates, templates, given, analysis.dry_run, analysis.measurement_retention)


def run_spec(
    refs: Sequence[AnalysisTemplateRef],
    templates: Templates,
    given: Sequence[Argument],
    dry_run: Sequence[DryRun] = (),
    retention: Sequence[MeasurementRetention] = (),
) -> AnalysisRunSpec:
    """Return what a run of templates measures. Raises AnalysisInvalid for what does not go together."""
    found: list[AnalysisTemplateSpec] = []
    for key, spec in _walk(refs, templates):
        if spec is None:
            raise AnalysisInvalid(f"{_shown(key)} is not there; apply it, or name another")
        found.append(spec)
    return AnalysisRunSpec(
        metrics=_metrics(found),
        args=_arguments(given, found),
        dry_run=_joined(dry_run, [one for spec in found for one in spec.dry_run]),
        measurement_retention=_joined(retention, [one for spec in found for one in spec.measurement_retention]),
    )


def _metrics(found: Iterable[AnalysisTemplateSpec]) -> list[Metric]:
    made: dict[str, Metric] = {}
    for spec in found:
        for metric in spec.metrics:
            if metric.name in made:
                raise AnalysisInvalid(f"metric '{metric.name}' is in two of the templates; give one another name")
            made[metric.name] = metric
    if not made:
        raise AnalysisInvalid("the templates have no metrics; add one to spec.metrics")
    return [*made.values()]


def _arguments(given: Iterable[Argument], found: Iterable[AnalysisTemplateSpec]) -> list[Argument]:
    made: dict[str, Argument] = {}
    for argument in [one for spec in found for one in spec.args]:
        before = made.get(argument.name)
        if before is not None and None not in (before.value, argument.value) and before.value != argument.value:
            raise AnalysisInvalid(f"argument '{argument.name}' has two values: '{before.value}', '{argument.value}'")
        if before is None or (before.value is None and before.value_from is None):
            made[argument.name] = argument
    for argument in given:
        if argument.name not in made:
            continue
        if argument.value is not None:
            made[argument.name] = replace(made[argument.name], value=argument.value)
        elif argument.value_from is not None:
            made[argument.name] = replace(made[argument.name], value_from=argument.value_from)
    for argument in made.values():
        if argument.value is None and argument.value_from is None:
            raise AnalysisInvalid(
                f"argument '{argument.name}' has no value; give one in args of the rollout's analysis"
            )
    return [*made.values()]


def _joined(first: Sequence[N], second: Iterable[N]) -> list[N]:
    made: dict[str, N] = {}
    for one in [*first, *second]:
        made.setdefault(one.metric_name, one)
    return [*made.values()]


def metadata_of(given: AnalysisRunMetadata | None) -> AnalysisRunMetadata:
    """Return what runs carry, nothing where nothing is said."""
    return given or AnalysisRunMetadata()
