"""Every network on the semi-synthetic set, beside Bayes' rule: ``scripts/reproduce semi_synthetic``."""

__all__: list[str] = []
