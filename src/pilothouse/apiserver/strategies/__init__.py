"""What the server itself sets and keeps in objects of each kind, before they are validated and stored."""

__all__: list[str] = []
