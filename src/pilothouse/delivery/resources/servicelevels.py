"""ServiceLevel: what an application promises, how it keeps it over months, and what became of each deploy.

There is no common kind for this that keeps the numbers itself (others ask a metrics server), so it is one of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pilothouse.kinds.structs import Resource, Struct, field
from pilothouse.operator.crd_markers import Default, Timestamp
from pilothouse.operator.crds import PrinterColumn, custom_resource

__all__ = ["GROUP", "Deploy", "ServiceFigures", "ServiceLevel", "ServiceLevelSpec", "ServiceLevelStatus", "Span"]

GROUP: Final = "pilothouse.dev"


class ServiceLevelSpec(Struct):
    """`spec`. objective: the share of good answers, such as 99.9%; latency: what takes longer is bad."""

    rollout: str
    routes: Sequence[str] = ()
    objective: Annotated[str, Default("99.9%")] = "99.9%"
    latency: str | None = None
    window_days: Annotated[int, Default(90)] = 90


class Span(Struct):
    """A day or an hour: when it began, how many requests came, and how many were answered badly."""

    begin: Timestamp
    requests: int = 0
    bad: int = 0


class Deploy(Struct):
    """What became of a version. outcome: empty while it is on its way, then Succeeded, RolledBack or Overtaken.

    committed_at: of the commit, where it is known; decided_at, restored_at: of a rollback: the verdict, and the moment
    from which no request went to the bad version.
    """

    version: str
    started_at: Timestamp
    revision: str | None = None
    committed_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    outcome: str | None = None
    decided_at: Timestamp | None = None
    restored_at: Timestamp | None = None
    message: str | None = None


class ServiceFigures(Struct):
    """What it comes to over the window. Shares are percentages, times seconds (medians), burn rates multiples.

    budget_left: of the bad answers that the objective allows, the part that is left; below 0 where it is overspent.
    A burn rate of 1 spends the budget exactly within the window.
    """

    requests: int = 0
    attained: str | None = None
    budget_left: str | None = None
    burn_rate_1h: str | None = field(default=None, name="burnRate1h")
    burn_rate_6h: str | None = field(default=None, name="burnRate6h")
    deploys: int = 0
    deploys_per_day: str | None = None
    success_rate: str | None = None
    lead_time_seconds: int | None = None
    restore_seconds: str | None = None


class ServiceLevelStatus(Struct):
    """`status`."""

    figures: ServiceFigures = ServiceFigures()
    days: Sequence[Span] = ()
    hours: Sequence[Span] = ()
    deploys: Sequence[Deploy] = ()
    counted_until: Timestamp | None = None


@custom_resource(
    short_names=["sl"],
    columns=[
        PrinterColumn("Objective", ".spec.objective", "string"),
        PrinterColumn("Attained", ".status.figures.attained", "string"),
        PrinterColumn("Budget left", ".status.figures.budgetLeft", "string"),
        PrinterColumn("Deploys", ".status.figures.deploys", "integer"),
        PrinterColumn("Success", ".status.figures.successRate", "string"),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    ],
)
class ServiceLevel(Resource, group=GROUP, version="v1alpha1", plural="servicelevels"):
    """What an application promises, and how it keeps it."""

    spec: ServiceLevelSpec
    status: ServiceLevelStatus = ServiceLevelStatus()
