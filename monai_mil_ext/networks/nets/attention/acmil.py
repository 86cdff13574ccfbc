"""Attention-challenging multiple instance learning (ACMIL)."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.blocks import GatedAttention, TopInstanceMasking
from monai_mil_ext.networks.nets.attention_pool_net import AttentionPoolNet
from monai_mil_ext.utils import check_positive

__all__ = ["ACMIL"]


class ACMIL(AttentionPoolNet):
    r"""ACMIL, proposed in `Attention-Challenging Multiple Instance Learning <https://arxiv.org/abs/2311.07125>`_.

    Given a bag X of instances :math:`x_n`, ACMIL pools it by K branches of gated attention and classifies the mean of
    the branches; in training each branch also has its own classifier:

    .. math::
        h_n = \operatorname{ReLU}(W_p x_n), \quad a_{\cdot k} = \operatorname{softmax}_n s_k(h_n), \quad
        z_k = \sum_n a_{nk} h_n, \quad y_k = C_k z_k, \quad \text{logits} = C_0 \frac{1}{K} \sum_k z_k

    with the scores :math:`s` of :py:class:`GatedAttention`, masked in training by :py:class:`TopInstanceMasking`. The
    training loss adds the mean cross-entropy of the branches and :py:class:`BranchDiversityLoss` on the attention:
    handlers hook into ``branch_tap``, whose output are the branch logits (B, K, C), and into ``mask_top``, whose output
    are the masked scores. The logits do not depend on the branch classifiers (``logits_see_all_weights`` is False),
    which get their gradients from the branch loss alone.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a projected instance.
        attention_size: size of the hidden layer of the attention.
        num_branches: number K of branches.
        num_instances: number of the highest instances of a branch, of which some are masked in training.
        mask_rate: fraction of them that is masked; 0 masks none.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1], or the input has the wrong shape.

    References:
        Zhang et al., "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
        arXiv:2311.07125.

    Example:
        >>> net, shapes = ACMIL(in_features=8, num_classes=2, hidden_size=4), []
        >>> _ = net.branch_tap.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
        >>> net.forward_bag(torch.rand(1, 6, 8)).attention.shape, shapes
        (torch.Size([1, 6, 5]), [torch.Size([1, 5, 2])])
    """

    logits_see_all_weights = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 512,
        attention_size: int = 128,
        num_branches: int = 5,
        num_instances: int = 10,
        mask_rate: float = 0.6,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=hidden_size)
        check_positive(num_branches=num_branches)
        self.in_features = in_features
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_size, bias=False), nn.ReLU())
        self.attend = GatedAttention(hidden_size, attention_size, num_branches)
        self.mask_top = TopInstanceMasking(num_instances, mask_rate)
        self.classify = nn.Linear(hidden_size, num_classes)
        self.classify_branch = nn.ModuleList([nn.Linear(hidden_size, num_classes) for _ in range(num_branches)])
        self.branch_tap = nn.Identity()

    def score_instances(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Project and score instances, see :py:class:`AttentionPoolNet`."""
        h = self.embed(x)
        return h, self.attend(h)

    def challenge(self, scores: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Mask top instances in training, see :py:class:`AttentionPoolNet`."""
        full_mask = torch.ones_like(h[..., 0], dtype=torch.bool) if mask is None else mask
        challenged: Tensor = self.mask_top(scores, full_mask)
        return challenged

    def classify_pooled(self, pooled: Tensor) -> Tuple[Tensor, Tensor]:
        """Classify the mean of the branches, see :py:class:`AttentionPoolNet`."""
        branches = []
        for k, classify in enumerate(self.classify_branch):
            branches.append(classify(pooled[:, k].to(self.classify.weight.dtype)))
        self.branch_tap(torch.stack(branches, 1))
        embedding = pooled.mean(1)
        return self.classify(embedding.to(self.classify.weight.dtype)), embedding
