"""Analysis templates out of caches, with those that they name themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.delivery.resources.analyses import (
    AnalysisTemplate,
    AnalysisTemplateRef,
    AnalysisTemplateSpec,
    ClusterAnalysisTemplate,
)
from pilothouse.operator import Context

from .analysisruns import template_keys
from .view import TemplateKey

__all__ = ["templates_of"]

_DEPTH: Final = 8


def templates_of(context: Context, refs: Iterable[AnalysisTemplateRef]) -> dict[TemplateKey, AnalysisTemplateSpec]:
    """Return the templates that are named and there, and those that they name."""
    made: dict[TemplateKey, AnalysisTemplateSpec] = {}
    waiting = [(key, 0) for key in template_keys(refs)]
    while waiting:
        key, depth = waiting.pop()
        if key in made or depth > _DEPTH:
            continue
        found: AnalysisTemplate | ClusterAnalysisTemplate | None
        if key.cluster:
            found = context.get(ClusterAnalysisTemplate, key.name, "")
        else:
            found = context.get(AnalysisTemplate, key.name)
        if found is not None:
            made[key] = found.spec
            waiting += [(inner, depth + 1) for inner in template_keys(found.spec.templates)]
    return made
