"""Real bags for this bundle, and the protocols that its numbers come from."""

__all__: list[str] = []
