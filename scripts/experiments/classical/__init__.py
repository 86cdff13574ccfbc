"""Networks and regressions on the classical sets of bags: ``scripts/reproduce classical``."""

__all__: list[str] = []
