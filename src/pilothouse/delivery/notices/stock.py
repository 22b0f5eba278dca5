"""Triggers and templates that are there without being set, under the names of Argo's own; a ConfigMap's come first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .settings import Condition, Settings

__all__ = ["STOCK"]

_ROLLOUT: Final[Mapping[str, str]] = {
    "rollout-updated": "is updated to revision {{index .rollout.metadata.annotations `rollout.argoproj.io/revision`}}",
    "rollout-step-completed": "has completed step {{.rollout.status.currentStepIndex}}/"
    "{{len .rollout.spec.strategy.canary.steps}}",
    "rollout-paused": "is paused{{if .rollout.status.message}}: {{.rollout.status.message}}{{end}}",
    "rollout-completed": "has completed its update",
    "rollout-aborted": "is rolled back{{if .rollout.status.message}}: {{.rollout.status.message}}{{end}}",
    "analysis-run-failed": "does not pass its analysis {{.analysisRun.metadata.name}}: {{.analysisRun.status.message}}",
    "analysis-run-error": "could not be analysed by {{.analysisRun.metadata.name}}: {{.analysisRun.status.message}}",
    "analysis-run-inconclusive": "has an analysis that cannot tell, {{.analysisRun.metadata.name}}: "
    "{{.analysisRun.status.message}}",
    "incident-recorded": "was rolled back, see incident {{.incident.metadata.name}}: {{.incident.spec.message}}"
    "{{range .incident.status.samples}}\n{{.}}{{end}}",
}
_APPLICATION: Final[Mapping[str, str]] = {
    "app-sync-succeeded": "is synced to {{.app.status.operationState.syncResult.revision}}",
    "app-sync-failed": "could not be synced: {{.app.status.operationState.message}}",
    "app-health-degraded": "has degraded{{if .app.status.health.message}}: {{.app.status.health.message}}{{end}}",
}
_ONCE: Final = "app.status.operationState?.syncResult?.revision"
_PHASE: Final = "app.status.operationState != nil and app.status.operationState.phase in"
_CONDITIONS: Final[Mapping[str, Condition]] = {
    "on-sync-succeeded": Condition(("app-sync-succeeded",), f"{_PHASE} ['Succeeded']", _ONCE),
    "on-sync-failed": Condition(("app-sync-failed",), f"{_PHASE} ['Error', 'Failed']", _ONCE),
    "on-health-degraded": Condition(("app-health-degraded",), "app.status.health.status == 'Degraded'", _ONCE),
}


def _template(kind: str, field: str, said: str) -> Mapping[str, object]:
    name = f"{{{{.{field}.metadata.namespace}}}}/{{{{.{field}.metadata.name}}}}"
    return {"message": f"{kind} {name} {said}", "email": {"subject": f"{kind} {name} {said}"}}


STOCK: Final = Settings(
    triggers={
        **{f"on-{name}": (Condition((name,)),) for name in _ROLLOUT},
        **{n: (c,) for n, c in _CONDITIONS.items()},
    },
    templates={
        **{name: _template("Rollout", "rollout", said) for name, said in _ROLLOUT.items()},
        **{name: _template("Application", "app", said) for name, said in _APPLICATION.items()},
    },
)
