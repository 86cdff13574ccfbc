"""Networks and regressions on the classical MIL data sets: ``scripts/reproduce classical``."""

__all__: list[str] = []
