"""Mean and max pooling of a bag, the baselines of attention."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import masked_max
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.attention_pool_net import AttentionPoolNet
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_positive

__all__ = ["InstanceMaxMIL", "MaxMIL", "MeanMIL"]


class _LinearNet(BagNet):
    """Base class of networks with a single linear layer."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes)
        self.in_features = in_features
        self.classify = nn.Linear(in_features, num_classes)


class MeanMIL(_LinearNet, AttentionPoolNet):
    r"""Mean pooling with a linear classifier; attention is uniform, and there are no scores.

    .. math:: a_n = \frac{1}{N}, \quad \text{logits} = W \sum_n a_n x_n + b

    Classifying each instance and averaging the logits gives the same result.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.

    Raises:
        ValueError: when a size is not positive or the input has the wrong shape.

    Example:
        >>> MeanMIL(in_features=8, num_classes=2).forward_bag(torch.rand(1, 4, 8)).attention.flatten().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    gives_scores = False

    def score_instances(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return instances as they are, with equal scores."""
        return x, torch.zeros_like(x[..., :1])

    def tap_scores(self, scores: Tensor) -> Optional[Tensor]:
        """Return no scores."""
        return None

    def classify_pooled(self, pooled: Tensor) -> Tuple[Tensor, Tensor]:
        """Classify the mean instance, see :py:class:`AttentionPoolNet`."""
        embedding = pooled.squeeze(1)
        return self.classify(embedding.to(self.classify.weight.dtype)), embedding


class MaxMIL(_LinearNet):
    r"""Max pooling with a linear classifier; attention is the fraction of features whose maximum an instance holds.

    .. math::
        z_f = \max_n x_{nf}, \quad \text{logits} = W z + b, \quad
        a_n = \frac{1}{F} \sum_f [n = \operatorname{argmax}_k x_{kf}]

    The first of equal instances counts. There are no scores, and the attention has no gradient.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.

    Raises:
        ValueError: when a size is not positive or the input has the wrong shape.

    Example:
        >>> bag = torch.tensor([[[1.0, 5.0], [2.0, 3.0]]])
        >>> MaxMIL(in_features=2, num_classes=2).forward_bag(bag).attention.flatten().tolist()
        [0.5, 0.5]
    """

    gives_scores = False

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        embedding, attention = masked_max(x, mask)
        return BagOutput(self.classify(embedding), attention, None, embedding)


class InstanceMaxMIL(_LinearNet):
    r"""Linear classifier of each instance; a bag gets the maximum logit of each class.

    .. math:: s_n = W x_n + b, \quad \text{logits}_c = \max_n s_{nc}

    The scores (B, N, C) are the instance logits. The attention (B, N, C) is one for the instance with the maximum logit
    of a class (the first of equal instances) and has no gradient. A bag without instances has logits 0.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.

    Raises:
        ValueError: when a size is not positive or the input has the wrong shape.

    Example:
        >>> output = InstanceMaxMIL(in_features=8, num_classes=2).forward_bag(torch.rand(1, 4, 8))
        >>> torch.equal(output.logits, (output.attention * output.scores).sum(1))
        True
    """

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        scores = self.score_tap(self.classify(zero_out_padding(x, mask)))
        # each class as a bag of its own with one feature, so that the fraction of maxima is one or zero
        bags, instances, classes = scores.shape
        class_bags = scores.transpose(1, 2).flatten(0, 1).unsqueeze(-1)
        class_mask = None if mask is None else mask.repeat_interleave(classes, 0)
        logits, attention = masked_max(class_bags, class_mask)
        attention = attention.view(bags, classes, instances).transpose(1, 2)
        return BagOutput(logits.view(bags, classes), attention, scores, None)
