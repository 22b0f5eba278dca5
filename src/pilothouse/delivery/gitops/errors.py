"""The errors of GitOps.

DeliveryError
├── SourceError             what git, Helm or Kustomize give cannot be had
│   ├── RepositoryError     a repository cannot be reached or read
│   ├── RevisionError       there is no such branch, tag or commit
│   ├── SignatureError      a commit is not signed as the project demands
│   ├── ManifestError       a file of the source is refused; it names file and document
│   └── ToolError           a program is missing, too old or failed
├── PermissionDenied        the project does not allow it
└── TemplateError           a template of an ApplicationSet cannot be filled in
"""

from __future__ import annotations

from pilothouse.delivery.errors import DeliveryError

__all__ = [
    "ManifestError",
    "PermissionDenied",
    "RepositoryError",
    "RevisionError",
    "SignatureError",
    "SourceError",
    "TemplateError",
    "ToolError",
]


class SourceError(DeliveryError):
    """What an application's source says cannot be had."""


class RepositoryError(SourceError):
    """A repository cannot be reached or read; the message has no credentials in it."""


class RevisionError(SourceError):
    """A repository has no such branch, tag or commit."""


class SignatureError(SourceError):
    """A commit is not signed as the project demands."""


class ManifestError(SourceError):
    """A file of the source is refused."""

    def __init__(self, file: str, problem: str, document: int = 0) -> None:
        self.file = file
        self.document = document
        where = f"{file}, document {document}" if document else file
        super().__init__(f"{where}: {problem}")


class ToolError(SourceError):
    """A program such as helm or kustomize is missing, too old, or failed."""


class PermissionDenied(DeliveryError):
    """The project does not allow it."""


class TemplateError(DeliveryError):
    """A template of an ApplicationSet cannot be filled in."""
