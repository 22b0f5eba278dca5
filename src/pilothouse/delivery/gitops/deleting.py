"""The end of an application: what it has goes first, where its finalizer wants that."""

from __future__ import annotations

from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.delivery.resources.applications import Application
from pilothouse.operator import Context, Result

from .evaluation import Evaluator
from .executing import Executor
from .hooks import options_of

__all__ = ["FINALIZERS", "delete_application"]

FINALIZERS: Final = {
    "resources-finalizer.argocd.argoproj.io": "Foreground",
    "resources-finalizer.argocd.argoproj.io/foreground": "Foreground",
    "resources-finalizer.argocd.argoproj.io/background": "Background",
}
_AGAIN_SECONDS: Final = 2.0


async def delete_application(
    app: Application, context: Context, evaluator: Evaluator, executor: Executor
) -> Result | None:
    """Delete what an application has, but for `Delete=false`, and let it go once all is gone."""
    finalizers = [*(app.metadata.finalizers or ())]
    own = [name for name in finalizers if name in FINALIZERS]
    if not own:
        return None
    kinds = [(f"{each.group}/{each.version}".lstrip("/"), each.kind) for each in app.status.resources]
    await evaluator.live.ensure(kinds)
    instance = evaluator.instance(app)
    there = evaluator.live.of_application(instance)
    left = {key: obj for key, obj in there.items() if "Delete=false" not in options_of(obj)}
    for key, obj in left.items():
        if not obj["metadata"].get("deletionTimestamp"):
            await executor.delete(key, obj, FINALIZERS[own[0]])
    if evaluator.live.of_application(instance).keys() & left.keys():
        return Result(_AGAIN_SECONDS)
    rest = [name for name in finalizers if name not in FINALIZERS]
    metadata = {"finalizers": rest or None, "resourceVersion": app.metadata.resource_version}
    await ignore_not_found(context.patch(app, {"metadata": metadata}))
    return None
