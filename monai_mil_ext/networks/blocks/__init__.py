"""Parts that networks are put together from."""

__all__: list[str] = []
