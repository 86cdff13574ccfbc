"""Metrics on tensors."""

__all__: list[str] = []
