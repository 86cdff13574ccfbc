"""Experiments that produce the numbers in docs: protocols, analyses, benchmarks and their tables."""

__all__: list[str] = []
