"""Ignite handlers."""

__all__: list[str] = []
