"""The controller that deletes bootstrap tokens when their time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.kinds.status import Conflict
from pilothouse.kinds.structs import Namespace, Secret
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import where
from pilothouse.workloads.bootstraptokens import NAMESPACE, TOKEN_TYPE, expires_in

__all__ = ["add_token_cleaning"]

_ALL: Final = Request("", NAMESPACE)


class TokenCleaner(Reconciler[Namespace]):
    """Deletes what is over of the tokens, all of which are in one namespace; only they are cached, no other secrets."""

    def __init__(self, manager: Manager) -> None:
        self._tokens = manager.factory.informer(Secret, namespace=NAMESPACE, fields=f"type={TOKEN_TYPE}")
        self._tokens.add_handler(
            on_add=lambda _obj, _initial: self.enqueue(_ALL),
            on_update=lambda _old, _new: self.enqueue(_ALL),
            name="bootstrap tokens",
        )
        self.enqueue: Callable[[Request], None] = _nowhere

    async def reconcile(self, obj: Namespace, context: Context) -> Result | None:
        """Delete tokens that are over, and come again when the next one is."""
        await self._tokens.wait_synced()
        now, following = context.clock.now(), []
        for secret in self._tokens.lister().list():
            left = expires_in(secret.data, now)
            if left:
                following.append(left)
            elif left == 0.0 and secret.metadata.deletion_timestamp is None:
                await self._delete(secret, context)
        return Result(requeue_after=min(following)) if following else None

    @staticmethod
    async def _delete(secret: Secret, context: Context) -> None:
        name, uid = secret.metadata.name, secret.metadata.uid
        try:
            await ignore_not_found(context.client.delete(Secret, name, NAMESPACE, uid=uid))
        except Conflict:  # it is another one of this name by now
            return


def _nowhere(_: Request) -> None:
    return None


def add_token_cleaning(manager: Manager) -> None:
    """Add the controller of bootstrap tokens."""
    cleaner = TokenCleaner(manager)
    made = (
        controller(manager, "token-cleaner-controller")
        .for_(Namespace, where(lambda found: found.metadata.name == NAMESPACE))
        .build(cleaner)
    )
    cleaner.enqueue = made.queue.add
