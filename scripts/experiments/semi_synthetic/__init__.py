"""Networks on the semi-synthetic set, compared with Bayes' rule: ``scripts/reproduce semi_synthetic``."""

__all__: list[str] = []
