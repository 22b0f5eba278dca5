"""Names that objects of rollouts carry: labels, annotations, reasons. Argo's, but for those of pilothouse.dev."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BLUE_GREEN_PAUSE",
    "CANARY_PAUSE",
    "DEADLINE",
    "DESIRED_REPLICAS",
    "EPHEMERAL_METADATA",
    "EXPERIMENT_NAME",
    "EXPERIMENT_TEMPLATE",
    "GATEWAY_PLUGIN",
    "HASH",
    "INCONCLUSIVE_EXPERIMENT",
    "INCONCLUSIVE_RUN",
    "INSTANCE",
    "JUDGEMENT_PLUGIN",
    "MADE_RULES",
    "MANAGED_BY",
    "REGIONS_PLUGIN",
    "REVISION",
    "RUN_TYPE",
    "STEP_INDEX",
    "WATCH_AFTER",
    "WORKLOAD_GENERATION",
]

HASH: Final = "rollouts-pod-template-hash"
REVISION: Final = "rollout.argoproj.io/revision"
DESIRED_REPLICAS: Final = "rollout.argoproj.io/desired-replicas"
WORKLOAD_GENERATION: Final = "rollout.argoproj.io/workload-generation"
EPHEMERAL_METADATA: Final = "rollout.argoproj.io/ephemeral-metadata"
MANAGED_BY: Final = "argo-rollouts.argoproj.io/managed-by-rollouts"
INSTANCE: Final = "argo-rollouts.argoproj.io/controller-instance-id"
DEADLINE: Final = "scale-down-deadline"
RUN_TYPE: Final = "rollout-type"
STEP_INDEX: Final = "step-index"
EXPERIMENT_NAME: Final = "experiment.argoproj.io/name"
EXPERIMENT_TEMPLATE: Final = "experiment.argoproj.io/template-name"

CANARY_PAUSE: Final = "CanaryPauseStep"
BLUE_GREEN_PAUSE: Final = "BlueGreenPause"
INCONCLUSIVE_RUN: Final = "InconclusiveAnalysisRun"
INCONCLUSIVE_EXPERIMENT: Final = "InconclusiveExperiment"

GATEWAY_PLUGIN: Final = "argoproj-labs/gatewayAPI"
"""The key of `trafficRouting.plugins` whose configuration names Gateway API routes."""
REGIONS_PLUGIN: Final = "pilothouse.dev/regions"
"""The plugin step that sets weights by region."""
JUDGEMENT_PLUGIN: Final = "pilothouse.dev/traffic"
"""The key of a metric's `plugin` that the data plane's own windows answer."""
MADE_RULES: Final = "pilothouse.dev/made-rules"
"""The annotation of a route that names the rules that steps have made, so that they are known when no step is."""
WATCH_AFTER: Final = "pilothouse.dev/watch-after-promotion"
"""The annotation that says how long background analysis goes on with all traffic at the new version."""
