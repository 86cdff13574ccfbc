"""The digits, and the protocol that the published numbers of this bundle come from."""

__all__: list[str] = []
