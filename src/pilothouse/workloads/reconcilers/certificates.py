"""The controllers of certificate requests: nodes' own are approved, old ones go. The API server itself signs."""

from __future__ import annotations

import json
from typing import Final

from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import CertificateSigningRequest, SubjectAccessReview, to_dict
from pilothouse.kinds.structs.authorization import ResourceAttributes, SubjectAccessReviewSpec
from pilothouse.operator import Context, Manager, Reconciler, Result, controller
from pilothouse.workloads.certificates import expires_in, is_decided, recognize

__all__ = ["add_certificate_approval", "add_certificate_cleaning"]

_PATH: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_log = get_logger("pilothouse.workloads.certificates")


class Approver(Reconciler[CertificateSigningRequest]):
    """Approves requests of nodes whose users are allowed to have them approved."""

    async def reconcile(self, obj: CertificateSigningRequest, context: Context) -> Result | None:
        """Approve a request, or leave it to somebody else."""
        if is_decided(obj):
            return None
        try:
            found = recognize(obj)
        except ValueError as error:
            _log.warning("a certificate request cannot be read", request=obj.metadata.name, error=str(error))
            return None
        for each in found:
            if await self._may(obj, each.permission, context):
                await self._approve(obj, each.message, context)
                return None
        return None

    async def _may(self, obj: CertificateSigningRequest, permission: str, context: Context) -> bool:
        about = ResourceAttributes(
            group="certificates.k8s.io",
            resource="certificatesigningrequests",
            verb="create",
            subresource=permission,
            version="*",
        )
        spec = SubjectAccessReviewSpec(
            user=obj.spec.username,
            uid=obj.spec.uid,
            groups=obj.spec.groups,
            extra=obj.spec.extra,
            resource_attributes=about,
        )
        answer = await context.client.create(SubjectAccessReview(spec=spec))
        return answer.status.allowed is True

    async def _approve(self, obj: CertificateSigningRequest, message: str, context: Context) -> None:
        tree, time = to_dict(obj), times.format_seconds(context.clock.now())
        condition = {
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": message,
            "lastUpdateTime": time,
            "lastTransitionTime": time,
        }
        status = dict(tree.get("status") or {})
        tree["status"] = status | {"conditions": [*(status.get("conditions") or ()), condition]}
        target = f"{_PATH}/{obj.metadata.name}/approval"
        body = json.dumps(tree).encode()
        try:
            await context.client.request("PUT", target, body, content_type="application/json")
        except NotFound:
            _log.info("a certificate request is gone", request=obj.metadata.name)


class Cleaner(Reconciler[CertificateSigningRequest]):
    """Deletes requests that are over."""

    async def reconcile(self, obj: CertificateSigningRequest, context: Context) -> Result | None:
        """Delete a request, or wait until it is old enough."""
        left = expires_in(obj, context.clock.now())
        if left > 0:
            return Result(requeue_after=left + 1.0)
        await context.delete(obj)
        return None


def add_certificate_approval(manager: Manager) -> None:
    """Add the controller that approves nodes' requests."""
    controller(manager, "certificatesigningrequest-approving-controller").for_(CertificateSigningRequest).build(
        Approver()
    )


def add_certificate_cleaning(manager: Manager) -> None:
    """Add the controller that deletes old requests."""
    name = "certificatesigningrequest-cleaner-controller"
    controller(manager, name).for_(CertificateSigningRequest).build(Cleaner())
