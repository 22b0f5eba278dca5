"""Act on resources: typed reconcilers, a builder that reads as a sentence, and the manager that runs them.

Everything is imported when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import controller
    from .certificates import CertificateError, CertificatePolicy
    from .companions import Companion
    from .context import Context
    from .controllers import Controller
    from .crd_conversion import ConversionWebhook
    from .crd_errors import DefinitionError
    from .crd_markers import (
        Default,
        Description,
        Embedded,
        Format,
        ListType,
        MapType,
        Maximum,
        MaxLength,
        Minimum,
        MinLength,
        MultipleOf,
        Pattern,
        PreserveUnknown,
        RawSchema,
        Rule,
        Timestamp,
    )
    from .crds import PrinterColumn, Scale, custom_resource, definition
    from .deployment import Installation, manifests_of
    from .errors import (
        AlreadyOwned,
        BuildError,
        NotConverged,
        NotRegistered,
        OperatorError,
        SchemeConflict,
        TerminalError,
    )
    from .generic import GenericReconciler, Readiness
    from .handlers import owner_of
    from .harness import Harness
    from .installing import install
    from .manager import LeaderElection, Manager
    from .rbac import needs
    from .reconciler import Reconciler, Request, Result
    from .scheme import Scheme
    from .webhook_builder import webhook
    from .webhook_configurations import webhook_manifests
    from .webhook_conversion import converts
    from .webhook_handlers import Mutator, Validator
    from .webhook_options import WebhookOptions
    from .webhook_review import AdmissionRequest, Denied

__all__ = [
    "AdmissionRequest",
    "AlreadyOwned",
    "BuildError",
    "CertificateError",
    "CertificatePolicy",
    "Companion",
    "Context",
    "Controller",
    "ConversionWebhook",
    "Default",
    "DefinitionError",
    "Denied",
    "Description",
    "Embedded",
    "Format",
    "GenericReconciler",
    "Harness",
    "Installation",
    "LeaderElection",
    "ListType",
    "Manager",
    "MapType",
    "MaxLength",
    "Maximum",
    "MinLength",
    "Minimum",
    "MultipleOf",
    "Mutator",
    "NotConverged",
    "NotRegistered",
    "OperatorError",
    "Pattern",
    "PreserveUnknown",
    "PrinterColumn",
    "RawSchema",
    "Readiness",
    "Reconciler",
    "Request",
    "Result",
    "Rule",
    "Scale",
    "Scheme",
    "SchemeConflict",
    "TerminalError",
    "Timestamp",
    "Validator",
    "WebhookOptions",
    "controller",
    "converts",
    "custom_resource",
    "definition",
    "install",
    "manifests_of",
    "needs",
    "owner_of",
    "webhook",
    "webhook_manifests",
]

_HOMES = {
    "builder": "controller",
    "certificates": "CertificateError CertificatePolicy",
    "companions": "Companion",
    "context": "Context",
    "controllers": "Controller",
    "crd_conversion": "ConversionWebhook",
    "crd_errors": "DefinitionError",
    "crd_markers": (
        "Default Description Embedded Format ListType MapType MaxLength Maximum MinLength Minimum MultipleOf Pattern "
        "PreserveUnknown RawSchema Rule Timestamp"
    ),
    "crds": "PrinterColumn Scale custom_resource definition",
    "deployment": "Installation manifests_of",
    "errors": "AlreadyOwned BuildError NotConverged NotRegistered OperatorError SchemeConflict TerminalError",
    "generic": "GenericReconciler Readiness",
    "handlers": "owner_of",
    "harness": "Harness",
    "installing": "install",
    "manager": "LeaderElection Manager",
    "rbac": "needs",
    "reconciler": "Reconciler Request Result",
    "scheme": "Scheme",
    "webhook_builder": "webhook",
    "webhook_conversion": "converts",
    "webhook_handlers": "Mutator Validator",
    "webhook_configurations": "webhook_manifests",
    "webhook_options": "WebhookOptions",
    "webhook_review": "AdmissionRequest Denied",
}


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        home = next((home for home, names in _HOMES.items() if name in names.split()), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
