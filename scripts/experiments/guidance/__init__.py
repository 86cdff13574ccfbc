"""Guidance of attention compared side by side: ``scripts/reproduce guidance``."""

__all__: list[str] = []
