"""Preparation of data for this bundle."""

__all__: list[str] = []
