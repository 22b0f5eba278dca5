"""The kinds of delivery, as Argo has them: classes from which definitions are made."""

__all__: list[str] = []
