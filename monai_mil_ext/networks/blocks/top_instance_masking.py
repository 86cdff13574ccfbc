"""Random masking of the instances with the highest scores, in training."""

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_fraction, check_positive

__all__ = ["TopInstanceMasking"]


class TopInstanceMasking(nn.Module):
    r"""Masking of a random part of the highest scores with minus infinity, in training only (STKIM of ACMIL).

    Of the :math:`k' = \min(k, n)` highest of n valid instances, :math:`\lfloor k' p \rfloor` are chosen at random,
    independently for each row of scores; at least one instance of a bag is kept.

    Args:
        num_instances: number k of the highest instances.
        rate: fraction p of them that is masked.

    Raises:
        ValueError: when ``num_instances`` is not positive or ``rate`` is not in [0, 1].

    References:
        Zhang et al., "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
        arXiv:2311.07125.

    Example:
        >>> mask_top = TopInstanceMasking(num_instances=4, rate=0.5)
        >>> mask_top(torch.rand(1, 9, 1), torch.ones(1, 9) > 0).isinf().sum().item()
        2
    """

    masked: Tensor

    def __init__(self, num_instances: int = 10, rate: float = 0.6) -> None:
        super().__init__()
        check_positive(num_instances=num_instances)
        check_fraction(rate=rate)
        self.num_instances = num_instances
        self.rate = rate
        masked = torch.tensor([int(top * rate) for top in range(num_instances + 1)])
        self.register_buffer("masked", masked, persistent=False)  # numbers of masked of the highest, by how many exist

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Mask scores (B, N, K); ``mask`` (B, N) is True for a valid instance."""
        if not self.training or self.rate == 0:
            return scores
        size = mask.sum(1)
        top = size.clamp(max=self.num_instances)
        num_masked = torch.minimum(self.masked[top], (size - 1).clamp(min=0))
        ranked = scores.detach().masked_fill(~mask.unsqueeze(-1), float("-inf"))
        highest = ranked.topk(min(self.num_instances, scores.shape[1]), 1).indices
        # ranks beyond the size of a small bag are drawn last
        draw = torch.rand(highest.shape, device=scores.device)
        rank = torch.arange(highest.shape[1], device=scores.device)
        draw = torch.where((rank < top.unsqueeze(1)).unsqueeze(-1), draw, 2.0)
        chosen = draw.argsort(1).argsort(1) < num_masked[:, None, None]
        masked = torch.zeros_like(scores, dtype=torch.bool).scatter(1, highest, chosen)
        return scores.masked_fill(masked, float("-inf"))
