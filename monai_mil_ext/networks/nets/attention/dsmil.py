"""Dual-stream multiple instance learning (DSMIL)."""

from typing import Dict, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import attention_pool, masked_max, masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_choice, check_positive, check_rate

__all__ = ["DSMIL"]

COMBINE = ("bag", "mean_logit")


class DSMIL(BagNet):
    r"""DSMIL, proposed in `Dual-stream Multiple Instance Learning Network <https://arxiv.org/abs/2011.08939>`_.

    Given a bag X of instances :math:`x_n`, the first stream classifies each instance, and the second attends to the
    instances that resemble the critical one of each class:

    .. math::
        p_n = W_i x_n + b_i, \quad m_c = \operatorname{argmax}_n p_{nc}, \quad s_{nc} = q_n^\top q_{m_c} / \sqrt{D},
        \quad z_c = \sum_n \operatorname{softmax}_n(s_{\cdot c})_n \, v_n, \quad
        \text{logits}_k = \sum_c K_{kc}^\top z_c + b_k

    with queries :math:`q_n = \tanh(W_2 \operatorname{ReLU}(W_1 x_n + b_1) + b_2)` of size D and values
    :math:`v_n = x_n`. Logits are those of independent positive classes: a negative bag has none
    (:py:class:`MultiLabelLoss`), and one class is enough for tumor against normal. The published loss is the mean of
    the losses of both streams: :py:class:`BranchLossHandler` hooks into ``branch_tap``, whose output (B, 1, C) are the
    maxima of the instance logits. ``instance_tap`` puts out the instance logits (B, N, C). The first of equal instances
    is the critical one. Without ``combine="mean_logit"`` the logits have no gradient for the first stream
    (``logits_see_all_weights`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        query_size: size D of a query.
        nonlinear_query: whether queries have a hidden layer; otherwise they are linear.
        value_layer: whether values are :math:`\operatorname{ReLU}(W_v x_n + b_v)`.
        dropout: dropout rate of the instances before their values.
        combine: ``"bag"`` for the logits of the second stream (the published code), ``"mean_logit"`` for the mean of
            both streams.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1), ``combine`` is unknown, or the input has the
            wrong shape.

    References:
        Li, Li, Eliceiri, "Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification with
        Self-supervised Contrastive Learning", arXiv:2011.08939.

    Example:
        >>> net, streams = DSMIL(in_features=8, num_classes=2), []
        >>> _ = net.branch_tap.register_forward_hook(lambda module, args, output: streams.append(output.shape))
        >>> net.forward_bag(torch.rand(1, 6, 8)).attention.shape, streams
        (torch.Size([1, 6, 2]), [torch.Size([1, 1, 2])])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        query_size: int = 128,
        nonlinear_query: bool = True,
        value_layer: bool = False,
        dropout: float = 0.0,
        combine: str = "bag",
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, query_size=query_size)
        check_rate(dropout=dropout)
        check_choice("combine", combine, COMBINE)
        self.in_features = in_features
        self.combine = combine
        self.logits_see_all_weights = combine == "mean_logit"
        self.scale = query_size**-0.5
        more = [nn.ReLU(), nn.Linear(query_size, query_size), nn.Tanh()] if nonlinear_query else []
        self.classify_instance = nn.Linear(in_features, num_classes)
        self.query = nn.Sequential(nn.Linear(in_features, query_size), *more)
        project = [nn.Linear(in_features, in_features), nn.ReLU()] if value_layer else []
        self.value = nn.Sequential(nn.Dropout(dropout), *project)
        self.classify = _FullConv(num_classes, num_classes, in_features)
        self.instance_tap = nn.Identity()
        self.branch_tap = nn.Identity()
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d)):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        x = zero_out_padding(x, mask)
        instance_logits = self.instance_tap(self.classify_instance(x))
        highest = self._max_of_each_class(instance_logits, mask)
        self.branch_tap(highest.unsqueeze(1))
        q = self.query(x)
        scores = self.score_tap(torch.matmul(q, self._critical(q, instance_logits, mask).transpose(1, 2)) * self.scale)
        attention = masked_softmax(scores, mask)
        pooled = attention_pool(attention, self.value(x))
        logits = self.classify(pooled.to(self.classify.weight.dtype))
        if self.combine == "mean_logit":
            logits = (logits + highest) / 2
        return BagOutput(logits, attention, scores, pooled.flatten(1))

    def _max_of_each_class(self, instance_logits: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Return the highest logit (B, C) of the valid instances; of an empty bag, that of an instance of zeros."""
        highest, _ = masked_max(instance_logits, mask)
        if instance_logits.shape[1] and mask is None:
            return highest
        not_empty = torch.zeros_like(highest, dtype=torch.bool) if mask is None else mask.any(1, keepdim=True)
        return torch.where(not_empty, highest, self.classify_instance.bias.to(highest.dtype))

    def _critical(self, q: Tensor, instance_logits: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Return the queries (B, C, D) of the critical instances; of an empty bag, those of its first row."""
        ranked = instance_logits.detach()
        if mask is not None:
            ranked = ranked.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        if not q.shape[1]:  # an argmax over nothing would raise
            q, ranked = functional.pad(q, [0, 0, 0, 1]), functional.pad(ranked, [0, 0, 0, 1])
        index = ranked.argmax(1)
        return q.gather(1, index.unsqueeze(-1).expand(-1, -1, q.shape[2]))

    def reference_names(self) -> Dict[str, str]:
        """Map names of weights of the published code to those of this network."""
        names = {f"i_classifier.fc.0.{p}": f"classify_instance.{p}" for p in ("weight", "bias")}
        names |= {f"b_classifier.fcc.{p}": f"classify.{p}" for p in ("weight", "bias")}
        names |= {f"b_classifier.q.{name}": f"query.{name}" for name, _ in self.query.named_parameters()}
        return names | {f"b_classifier.v.{name}": f"value.{name}" for name, _ in self.value.named_parameters()}


class _FullConv(nn.Conv1d):
    """One-dimensional convolution whose kernel is as long as its input, as the product of matrices that it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, C) of embeddings (B, C, F)."""
        return functional.linear(x.flatten(1), self.weight.flatten(1), self.bias)
