"""A new operator project: its names, checked and made to fit each other, and the text of its files."""

from __future__ import annotations

import builtins
import difflib
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.util import find_spec
from string import Template
from typing import Final

from pilothouse import __version__
from pilothouse.kinds import names
from pilothouse.kinds.registry import builtin

from .errors import OperatorError

__all__ = ["Project", "ProjectError", "files_of"]

_LINE: Final = 120
_MAX_NAME: Final = 40
_MAX_KIND: Final = 26
_MAX_PLURAL: Final = 36
_MAX_GROUP: Final = 56
"""With these no line of the files becomes longer than `_LINE`."""
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_KIND: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
_VERSION: Final = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")
_RESERVED: Final = frozenset({"pilothouse", "tests", "samples", "manifests"})
_FILES: Final[Mapping[str, str]] = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "Makefile": "Makefile",
    "Procfile": "Procfile",
    "requirements.txt": "requirements.txt",
    "gitignore": ".gitignore",
    "init.py": "$package/__init__.py",
    "main.py": "$package/__main__.py",
    "kinds.py": "$package/kinds.py",
    "reconciler.py": "$package/reconciler.py",
    "conftest.py": "tests/conftest.py",
    "test_operator.py": "tests/test_operator.py",
    "test_manifests.py": "tests/test_manifests.py",
    "sample.yaml": "samples/$singular.yaml",
}
"""Templates, without their ending, and where each goes."""


class ProjectError(OperatorError, ValueError):
    """A project cannot be called or placed like this; the message names the option and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The names of a project; those not given follow from its own.

    name: of the distribution and of all that installs it, `website-operator`. kind, plural, group, version: of the kind
    that it begins with. Raises ProjectError.
    """

    name: str
    kind: str = ""
    plural: str = ""
    group: str = "example.com"
    version: str = "v1alpha1"

    def __post_init__(self) -> None:
        self._check_name()
        if not self.kind:
            object.__setattr__(self, "kind", _kind_of(self.name))
        self._check_kind()
        if not self.plural:
            object.__setattr__(self, "plural", _plural_of(self.singular))
        self._check_paths()

    @property
    def package(self) -> str:
        """The name of the Python package."""
        return self.name.replace("-", "_")

    @property
    def singular(self) -> str:
        """The kind in lower case."""
        return self.kind.lower()

    def _check_name(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > _MAX_NAME:
            wanted = f"a lower-case letter, then lower-case letters, digits and '-', at most {_MAX_NAME}"
            close = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-0123456789")[:_MAX_NAME].strip("-")
            hint = f"; how about {close}?" if close else ""
            raise ProjectError(f"NAME {self.name!r}: want {wanted}{hint}")
        package, other = self.package, f"how about {self.name}-operator?"
        if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in _RESERVED:
            raise ProjectError(f"NAME {self.name!r}: there is a package {package} already; {other}")
        owners = metadata.packages_distributions().get(package, []) if find_spec(package) is not None else []
        if any(owner.lower().replace("_", "-") != self.name for owner in owners):
            raise ProjectError(f"NAME {self.name!r}: it would hide {package}, which {owners[0]} installs; {other}")

    def _check_kind(self) -> None:
        if not _KIND.fullmatch(self.kind) or len(self.kind) > _MAX_KIND:
            close = "".join(part[:1].upper() + part[1:] for part in re.findall(r"[A-Za-z0-9]+", self.kind))[:_MAX_KIND]
            hint = f"; how about {close}?" if _KIND.fullmatch(close) and close != self.kind else ""
            raise ProjectError(f"--kind {self.kind!r}: want CamelCase, letters and digits, at most {_MAX_KIND}{hint}")
        taken = _taken()
        for each in (self.kind, f"{self.kind}Spec", f"{self.kind}Status", f"{self.kind}Reconciler"):
            if each in taken:
                raise ProjectError(f"--kind {self.kind}: Python, Kubernetes or Pilothouse has a {each}; choose another")

    def _check_paths(self) -> None:
        if names.dns1035_label(self.plural) or len(self.plural) > _MAX_PLURAL:
            wanted = f"lower-case letters and digits, at most {_MAX_PLURAL}, such as {_plural_of(self.singular)}"
            raise ProjectError(f"--plural {self.plural!r}: want {wanted}")
        if names.dns1123_subdomain(self.group) or "." not in self.group or len(self.group) > _MAX_GROUP:
            wanted = f"a domain of yours, such as example.com, at most {_MAX_GROUP} characters"
            raise ProjectError(f"--group {self.group!r}: want {wanted}")
        if self.group.endswith((".k8s.io", ".kubernetes.io")):
            raise ProjectError(f"--group {self.group}: Kubernetes keeps it for itself; want a domain of yours")
        if not _VERSION.fullmatch(self.version):
            close = difflib.get_close_matches(self.version, ["v1", "v1beta1", "v1alpha1", "v2"], 1)
            hint = close[0] if close else "v1alpha1"
            raise ProjectError(f"--version {self.version!r}: want v1, v1beta1 or v1alpha1; how about {hint}?")


def _kind_of(name: str) -> str:
    bare = name.removesuffix("-operator").removesuffix("-controller")
    return "".join(part.capitalize() for part in bare.split("-"))


def _taken() -> set[str]:
    """Return the names that mean something else: Python's, Kubernetes' kinds, and what the files import or make."""
    imported = (line for name in _FILES if name.endswith(".py") for line in _template(name).splitlines())
    words = (re.findall(r"\b[A-Z]\w*", line) for line in imported if line.startswith(("from ", "import ", "Child")))
    return {*dir(builtins), *keyword.kwlist, *(each.kind for each in builtin())}.union(*words)


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / f"{name}.tmpl").read_text("utf-8")


def _plural_of(singular: str) -> str:
    if re.search(r"(s|x|z|ch|sh)$", singular):
        return f"{singular}es"
    if re.search(r"[^aeiou]y$", singular):
        return f"{singular[:-1]}ies"
    return f"{singular}s"


def files_of(project: Project) -> dict[str, str]:
    """Return the text of each file of a project by its path, but for what is made of these later: manifests/."""
    kind, package = project.kind, project.package
    values = {
        "name": project.name,
        "package": package,
        "kind": kind,
        "singular": project.singular,
        "plural": project.plural,
        "group": project.group,
        "version": project.version,
        "pilothouse": __version__,
        "declaration": _class(
            kind, "Resource", *(f'{each}="{getattr(project, each)}"' for each in ("group", "version", "plural"))
        ),
        "import_kinds": _import(".kinds", kind, f"{kind}Status"),
        "import_kinds_tests": _import(f"{package}.kinds", kind, f"{kind}Spec"),
    }
    return {
        Template(path).substitute(values): Template(_template(name)).substitute(values) for name, path in _FILES.items()
    }


def _import(module: str, *wanted: str) -> str:
    """Write an import as the formatter does, for names may be long."""
    line = f"from {module} import {', '.join(wanted)}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"from {module} import (", *(f"    {each}," for each in wanted), ")"])


def _class(name: str, *arguments: str) -> str:
    """Write the head of a class as the formatter does."""
    words = ", ".join(arguments)
    if len(line := f"class {name}({words}):") <= _LINE:
        return line
    lines = [f"    {words}"] if len(words) + 4 <= _LINE else [f"    {each}," for each in arguments]
    return "\n".join([f"class {name}(", *lines, "):"])
