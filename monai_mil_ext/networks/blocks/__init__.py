"""Parts that networks are put together from."""

from .attention_scores import GatedScores, TanhScores

__all__ = ["GatedScores", "TanhScores"]
