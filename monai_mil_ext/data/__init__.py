"""Bags on disk and in batches."""

__all__: list[str] = []
