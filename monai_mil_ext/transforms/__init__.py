"""Transforms of bags, in array and dictionary form."""

__all__: list[str] = []
