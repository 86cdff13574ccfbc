"""Attention-based multiple instance learning (ABMIL)."""

from typing import Optional, Tuple

from torch import Tensor, nn

from monai_mil_ext.networks.blocks import GatedAttention, TanhAttention
from monai_mil_ext.networks.nets.attention_pool_net import AttentionPoolNet
from monai_mil_ext.utils import check_positive, check_rate

__all__ = ["ABMIL"]


class ABMIL(AttentionPoolNet):
    r"""ABMIL, proposed in `Attention-based Deep Multiple Instance Learning <https://arxiv.org/abs/1802.04712>`_.

    Given a bag X of instances :math:`x_n`, ABMIL classifies the attention-weighted mean of its projected instances:

    .. math::
        h_n = \operatorname{ReLU}(W_p x_n), \quad a_{\cdot k} = \operatorname{softmax}_n s_k(h_n), \quad
        z_k = \sum_n a_{nk} h_n, \quad \text{logits} = W_c [z_1; \dots; z_H] + b_c

    with the scores :math:`s` of :py:class:`GatedAttention` or :py:class:`TanhAttention`. Without ``hidden_size``,
    :math:`h_n = x_n`.

    With ``per_class``, each class c has its own attention and its own linear classifier, as in the multi-branch form of
    CLAM,

    .. math:: \text{logits}_c = w_c^\top z_c + b_c

    so that the attention of a class is the heat map of its logit alone. Use it for labels that may occur together.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a projected instance; ``None`` scores and pools ``x`` itself.
        attention_size: size of the hidden layer of the attention.
        gated: whether the hidden layer of the attention is gated.
        num_heads: number H of attention heads; the classifier takes the H embeddings concatenated.
        dropout: dropout rate of the projected instances.
        per_class: whether there is one attention head per class, H = C; ``num_heads`` must then be 1.
        bias: whether the projection has a bias.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1), ``num_heads`` and ``per_class`` are both
            set, or the input has the wrong shape.

    References:
        Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", arXiv:1802.04712.

        Per class: Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide images",
        arXiv:2004.09666.

    Example:
        >>> import torch
        >>> net = ABMIL(in_features=8, num_classes=2, hidden_size=4)
        >>> x, mask = torch.rand(2, 5, 8), torch.arange(5) < torch.tensor([[5], [3]])
        >>> net(x, mask).shape
        torch.Size([2, 2])
        >>> net.forward_bag(x, mask).attention.sum(1).round(decimals=4).tolist()
        [[1.0], [1.0]]
        >>> ABMIL(in_features=8, num_classes=3, per_class=True).forward_bag(x, mask).attention.shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: Optional[int] = None,
        attention_size: int = 128,
        gated: bool = True,
        num_heads: int = 1,
        dropout: float = 0.0,
        per_class: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        size = in_features if hidden_size is None else hidden_size
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=size)
        check_rate(dropout=dropout)
        if per_class and num_heads != 1:
            raise ValueError(f"`num_heads` must be 1 with `per_class`, got {num_heads!r}.")
        self.in_features = in_features
        self.per_class = per_class
        project = [] if hidden_size is None else [nn.Linear(in_features, size, bias=bias), nn.ReLU()]
        self.embed = nn.Sequential(*project, nn.Dropout(dropout))
        num_rows = num_classes if per_class else num_heads
        self.attend = (GatedAttention if gated else TanhAttention)(size, attention_size, num_rows)
        self.classify = nn.Linear(num_heads * size, num_classes)

    def score_instances(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Project and score instances, see :py:class:`AttentionPoolNet`."""
        h = self.embed(x)
        return h, self.attend(h)

    def classify_pooled(self, pooled: Tensor) -> Tuple[Tensor, Tensor]:
        """Classify pooled instances, see :py:class:`AttentionPoolNet`; the embedding has all heads."""
        embedding, pooled = pooled.flatten(1), pooled.to(self.classify.weight.dtype)
        if self.per_class:
            logits = (pooled * self.classify.weight).sum(2) + self.classify.bias
        else:
            logits = self.classify(pooled.flatten(1))
        return logits, embedding
