"""Whole networks, one paper a file."""

__all__: list[str] = []
