"""Double-tier feature distillation (DTFD-MIL)."""

from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import GatedAttention
from monai_mil_ext.networks.layers import attention_pool, masked_softmax
from monai_mil_ext.networks.layers.compact import compact_order
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["DTFDMIL"]

DISTILL = ("AFS", "MaxS", "MaxMinS", "MAS")
SPLITS = ("score", "position")


class DTFDMIL(BagNet):
    r"""DTFD-MIL, proposed in `Double-Tier Feature Distillation MIL <https://arxiv.org/abs/2203.12081>`_.

    The instances :math:`x_n` of a bag are dealt to M pseudo-bags :math:`P_m`. A first tier classifies each pseudo-bag,
    and a second one classifies what is distilled from all of them:

    .. math::
        h_n = \operatorname{ReLU}(W_p x_n), \quad a = \operatorname{softmax}_{n \in P_m} s(h_n), \quad
        z_m = \sum_{n \in P_m} a_n h_n, \quad y_m = W_1 z_m + b_1, \quad
        \text{logits} = W_2 \sum_i \operatorname{softmax}_i(t(d_i)) \, d_i + b_2

    with the scores s and t of two :py:class:`GatedAttention`. ``distill`` chooses the rows :math:`d_i`: ``"AFS"`` takes
    :math:`z_m`; the others take instances :math:`h_n` of each pseudo-bag: ``"MaxS"`` the k of the highest probability
    of the last class, :math:`\operatorname{softmax}(a_n W_1 h_n)`, ``"MaxMinS"`` also the k of the lowest, and
    ``"MAS"`` the k of the highest attention. One logit is ranked as it is. Of a pseudo-bag of less than 2k instances,
    ``"MaxMinS"`` takes some twice, as published, unless ``unique`` is set.

    In training, each step deals the instances at random, by PyTorch's generator. In evaluation nothing is drawn:
    instances are dealt in turn, by descending score or in their order, so that a bag always has the same output. A bag
    of n < M instances has n pseudo-bags.

    ``branch_tap`` puts out the logits :math:`y_m` (B, M, C) for :py:class:`BranchLossHandler`, those of missing
    pseudo-bags being minus infinity. The published training needs this term: its second tier does not train the first
    one (``detach``), and the classifier of the first tier has no other gradient (``logits_see_all_weights`` is False).
    ``instance_tap`` puts out the probabilities (B, N, C) by which instances are ranked. The attention is the weight of
    an instance in its pseudo-bag times that of the pseudo-bag (``"AFS"``), or the second tier's weight of the instance.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a projected instance.
        attention_size: size of the hidden layer of both attentions.
        num_groups: number M of pseudo-bags.
        num_instances: number k of instances that are distilled from a pseudo-bag, not used by ``"AFS"``.
        distill: ``"AFS"``, ``"MaxS"``, ``"MaxMinS"`` or ``"MAS"``.
        detach: whether, in training, gradients of the second tier end at the distilled rows.
        split: order in which evaluation deals the instances: ``"score"``, which does not depend on their order, or
            ``"position"``, for instances in an order (then ``permutation_invariant`` is False).
        unique: whether no instance is distilled twice.

    Raises:
        ValueError: when a size is not positive, a choice is unknown, or the input has the wrong shape.

    References:
        Zhang et al., "DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for Histopathology Whole
        Slide Image Classification", arXiv:2203.12081. The published code also splits at random in evaluation.

    Example:
        >>> net, tiers = DTFDMIL(in_features=8, num_classes=2, hidden_size=4), []
        >>> _ = net.branch_tap.register_forward_hook(lambda module, args, output: tiers.append(output.shape))
        >>> net(torch.rand(1, 9, 8)).shape, tiers
        (torch.Size([1, 2]), [torch.Size([1, 4, 2])])
    """

    logits_see_all_weights = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 512,
        attention_size: int = 128,
        num_groups: int = 4,
        num_instances: int = 1,
        distill: str = "AFS",
        detach: bool = True,
        split: str = "score",
        unique: bool = False,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=hidden_size)
        check_positive(num_groups=num_groups, num_instances=num_instances)
        check_choice("distill", distill, DISTILL)
        check_choice("split", split, SPLITS)
        self.in_features = in_features
        self.num_groups = num_groups
        self.num_instances = num_instances
        self.distill = distill
        self.detach = detach
        self.split = split
        self.unique = unique
        self.permutation_invariant = split == "score"
        self.embed = nn.Linear(in_features, hidden_size, bias=False)
        self.attend = GatedAttention(hidden_size, attention_size)
        self.classify_group = nn.Linear(hidden_size, num_classes)
        self.attend_distilled = GatedAttention(hidden_size, attention_size)
        self.classify = nn.Linear(hidden_size, num_classes)
        self.branch_tap = nn.Identity()
        self.instance_tap = nn.Identity()

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h = torch.relu(self.embed(zero_out_padding(x, mask)))
        scores = self.score_tap(self.attend(h))
        full_mask = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask
        members = self._deal(scores.detach(), full_mask)
        weights = _softmax_within(scores, members)
        pooled = attention_pool(weights, h)
        exists = members.any(1)
        self._first_tier_logits(pooled, exists)
        ranked = self._rank_values(h, weights.sum(2, keepdim=True))
        if self.distill == "AFS":
            rows, valid = pooled, exists
            index = torch.zeros_like(exists, dtype=torch.long)  # not used
        else:
            index, valid = self._choose(ranked, members)
            rows = functional.pad(h, [0, 0, 0, 1]).gather(1, index.unsqueeze(-1).expand(-1, -1, h.shape[2]))
        if self.detach and self.training:
            rows = rows.detach()
        row_weights = masked_softmax(self.attend_distilled(rows.to(self.classify.weight.dtype)), valid)
        embedding = attention_pool(row_weights, rows).squeeze(1)
        if self.distill == "AFS":
            attention = (weights * row_weights.transpose(1, 2)).sum(2, keepdim=True)
        else:  # the row beyond the bag takes the weights, all zero, of missing instances
            zeros = torch.zeros_like(functional.pad(weights[..., 0], [0, 1]))
            attention = zeros.scatter_add(1, index, row_weights.squeeze(2))[:, : h.shape[1]].unsqueeze(2)
        return BagOutput(self.classify(embedding.to(self.classify.weight.dtype)), attention, scores, embedding)

    def _deal(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Deal the valid instances to pseudo-bags in turn, so that their sizes differ by one at most: (B, N, M)."""
        if self.training:
            rank = _ranks(torch.rand(mask.shape, device=mask.device), mask)
        elif self.split == "score":
            rank = _ranks(-scores[..., 0].to(torch.promote_types(scores.dtype, torch.float32)), mask)
        else:
            rank = compact_order(mask)
        num_groups = mask.sum(1, keepdim=True).clamp(min=1, max=self.num_groups)
        group = torch.remainder(rank, num_groups).unsqueeze(-1)
        return (group == torch.arange(self.num_groups, device=mask.device)) & mask.unsqueeze(-1)

    def _first_tier_logits(self, pooled: Tensor, exists: Tensor) -> None:
        """Put out the logits (B, M, C) of pseudo-bags."""
        logits = self.classify_group(pooled.to(self.classify_group.weight.dtype))
        self.branch_tap(logits.masked_fill(~exists.unsqueeze(-1), float("-inf")))

    def _rank_values(self, h: Tensor, attention: Tensor) -> Tensor:
        """Return the values (B, N) by which instances are chosen.

        Probabilities are ranked in float64: of a million instances, whose evidence is a millionth, they differ by less
        than float32 resolves.
        """
        weight = self.classify_group.weight.detach().transpose(0, 1).expand(h.shape[0], -1, -1)
        evidence = attention.detach() * attention_pool(weight, h.detach().transpose(1, 2)).transpose(1, 2)
        probability = torch.softmax(evidence.double(), 2) if evidence.shape[2] > 1 else evidence
        self.instance_tap(probability.to(evidence.dtype))
        return attention.detach()[..., 0] if self.distill == "MAS" else probability[..., -1]

    def _choose(self, values: Tensor, members: Tensor) -> Tuple[Tensor, Tensor]:
        """Return indices (B, R) of the instances that are distilled, and whether the pseudo-bag has as many."""
        signs = [1.0, -1.0] if self.distill == "MaxMinS" else [1.0]
        chosen: List[Tensor] = []
        for sign in signs:
            ranked = (sign * values).unsqueeze(2).masked_fill(~members, float("-inf"))
            padded = functional.pad(ranked, [0, 0, 0, self.num_instances], value=float("-inf"))
            top, index = padded.topk(self.num_instances, 1)
            index = torch.where(top > float("-inf"), index, members.shape[1])
            chosen.append(index.transpose(1, 2))
            if self.unique:
                taken = torch.zeros_like(functional.pad(members, [0, 0, 0, 1])).scatter(1, index, True)
                members = members & ~taken[:, :-1]
        indices = torch.cat(chosen, 2).flatten(1)
        return indices, indices < members.shape[1]

    def reference_names(self) -> Dict[str, str]:
        """Map names of weights of the published code to those of this network, one dictionary for its four modules."""
        names = {"dim_reduction.fc1.weight": "embed.weight"}
        tiers = (("attention", "attend"), ("att_classifier.attention", "attend_distilled"))
        layers = (("attention_V.0", "value"), ("attention_U.0", "gate"), ("attention_weights", "score"))
        for theirs, ours in tiers:
            for published, layer in layers:
                names |= {f"{theirs}.{published}.{p}": f"{ours}.{layer}.{p}" for p in ("weight", "bias")}
        for theirs, ours in (("classifier", "classify_group"), ("att_classifier.classifier", "classify")):
            names |= {f"{theirs}.fc.{p}": f"{ours}.{p}" for p in ("weight", "bias")}
        return names


def _ranks(keys: Tensor, mask: Tensor) -> Tensor:
    """Return the rank (B, N) of each instance by its key, from 0; padding is last."""
    order = keys.masked_fill(~mask, float("inf")).argsort(1)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    return torch.zeros_like(order).scatter(1, order, places)


def _softmax_within(scores: Tensor, members: Tensor) -> Tensor:
    """Compute the softmax (B, N, M) of scores (B, N, 1) over the members (B, N, M) of each pseudo-bag."""
    groups = members.shape[2]
    each = scores.repeat_interleave(groups, 0)
    weights = masked_softmax(each, members.transpose(1, 2).flatten(0, 1))
    return weights.squeeze(2).unflatten(0, [-1, groups]).transpose(1, 2)
