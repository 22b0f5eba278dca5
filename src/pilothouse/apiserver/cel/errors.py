"""What can go wrong with an expression.

ValueError
└── CelCompileError     the text is no valid expression of the wanted type
Exception
└── CelError            evaluation failed: missing key, wrong type, overflow
    └── CostExceededError   it would have run too long
"""

from __future__ import annotations

__all__ = ["CelCompileError", "CelError", "CostExceededError", "Issue", "render"]

# Longer lines are not shown below a message.
_MAX_SNIPPET = 16384


class CelError(Exception):
    """An evaluation that failed; the message is the one of Kubernetes (`no such key: x`)."""


class CostExceededError(CelError):
    """An evaluation that was stopped since it went over its cost limit."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class Issue(Exception):
    """One thing wrong in a text, with the offset (in characters) where."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class CelCompileError(ValueError):
    """A text that does not compile.

    The message is Kubernetes': `compilation failed: ERROR: <input>:1:5: undefined field 'x'` with the line below, or a
    sentence about the type of the result. `issues` are what was found, by offset.
    """

    def __init__(self, message: str, issues: tuple[Issue, ...] = ()) -> None:
        super().__init__(message)
        self.issues = issues


def render(text: str, issues: list[Issue]) -> str:
    """Return the report of a compilation: each issue with its line and a mark below the place."""
    found = sorted(issues, key=lambda issue: issue.offset)
    return "\n".join(_one(text, issue) for issue in found)


def _one(text: str, issue: Issue) -> str:
    before = text[: issue.offset]
    line = before.count("\n")
    column = len(before) - (before.rfind("\n") + 1)
    result = f"ERROR: <input>:{line + 1}:{column + 1}: {issue.message}"
    snippet = text.split("\n")[line].replace("\t", " ")
    if len(snippet) <= _MAX_SNIPPET:
        marks = "".join("." if ord(char) < 0x80 else "\uff0e" for char in snippet[:column])
        here = snippet[column : column + 1]
        mark = "\uff3e" if here and ord(here) >= 0x80 else "^"
        result += f"\n | {snippet}\n | {marks}{mark}"
    return result
