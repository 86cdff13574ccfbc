"""Ensemble of networks, whose logits are those of the average prediction."""

import math
from typing import List, Optional, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from monai_mil_ext.utils import check_choice
from monai_mil_ext.utils.probabilities import TASKS

from .bag_net import BagNet, BagOutput

__all__ = ["BagEnsemble"]


class BagEnsemble(BagNet):
    r"""Ensemble of networks for one task, such as those of the folds of a study.

    It averages the *predictions* of its members and returns the logits that give this average, so that losses,
    transforms, metrics and exporters use it as any other network:

    ==================== ================================================== ======================================
    task                 average over members m                             logits
    ==================== ================================================== ======================================
    ``"classification"`` probabilities :math:`p_c`, softmax, or sigmoid of  :math:`\log p_c`, or
                         a single logit                                     :math:`\log p - \log (1 - p)`
    ``"multilabel"``     probabilities :math:`p_c = \sigma(z_c)`            :math:`\log p_c - \log (1 - p_c)`
    ``"ordinal"``        :math:`q_c = \sigma(\min_{j \le c} z_j)`, of a     :math:`\log q_c - \log (1 - q_c)`
                         class above c
    ``"survival"``       survival :math:`S_t = \prod_{s \le t} (1 -         :math:`\log h_t - \log (1 - h_t)`,
                         \sigma(z_s))`                                      :math:`h_t = 1 - S_t / S_{t-1}`
    ``"regression"``,    z                                                  z
    ``"cox"``
    ==================== ================================================== ======================================

    All is computed as logarithms, at least in float32, so that saturated logits stay exact. Attention is the mean of
    the members', if all have it; of members with different numbers of heads, the mean over heads is averaged. Heads of
    different members are unrelated, unless each is that of a class. There are no ``scores``, which a loss could only
    compare with those of one member, and no ``embedding``. Other class attributes, such as ``permutation_invariant``,
    are True if they are for all members.

    Args:
        members: networks with the same number of logits.
        task: task that the members were trained for.

    Raises:
        ValueError: when there are no members, or the task is unknown.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> members, x = [ABMIL(8, 2), ABMIL(8, 2)], torch.rand(1, 5, 8)
        >>> probabilities = torch.stack([member(x).softmax(1) for member in members])
        >>> torch.allclose(BagEnsemble(members)(x).softmax(1), probabilities.mean(0))
        True
    """

    gives_scores = False

    def __init__(self, members: Sequence[BagNet], task: str = "classification") -> None:
        super().__init__()
        check_choice("task", task, TASKS)
        if not len(members):
            raise ValueError("`members` must be one or more networks, got none.")
        self.members = nn.ModuleList(members)
        self.task = task
        self.take_properties(*members)
        self.gives_scores = False

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute logits and attention, see :py:class:`BagNet`."""
        outputs: List[BagOutput] = []
        for member in self.members:
            outputs.append(member.forward_bag(x, mask))  # type: ignore[operator]
        return self.combine(outputs)

    def combine(self, outputs: List[BagOutput]) -> BagOutput:
        """Return the output of the ensemble from those of its members."""
        logits: List[Tensor] = []
        attention: List[Tensor] = []
        for output in outputs:
            logits.append(output.logits)
            member_attention = output.attention  # TorchScript narrows the type of a variable only
            if member_attention is not None:
                attention.append(member_attention)
        mean: Optional[Tensor] = _mean_attention(attention) if len(attention) == len(logits) else None
        return BagOutput(self.average(torch.stack(logits)), mean, None, None)

    def average(self, logits: Tensor) -> Tensor:
        """Return the logits (B, K) of the average prediction of members with logits (M, B, K)."""
        z = logits if logits.dtype == torch.float64 else logits.float()
        if self.task in ["regression", "cox"]:
            z = z.mean(dim=0)
        elif self.task == "classification" and z.shape[2] > 1:
            z = z.log_softmax(dim=2).logsumexp(dim=0) - math.log(z.shape[0])
        elif self.task == "survival":
            z = _mean_odds(z, pad(logsigmoid(-z)[:, :, :-1].cumsum(dim=2), (1, 0)))  # weighted by survival before t
        elif self.task == "ordinal":
            z = _mean_odds(_cumulative_minimum(z), torch.zeros_like(z))
        else:
            z = _mean_odds(z, torch.zeros_like(z))
        return z.to(logits.dtype)


def _mean_odds(z: Tensor, log_weight: Tensor) -> Tensor:
    """Return the logits (B, K) of weighted means over members of the probabilities with logits ``z`` (M, B, K)."""
    return (log_weight + logsigmoid(z)).logsumexp(dim=0) - (log_weight + logsigmoid(-z)).logsumexp(dim=0)


def _cumulative_minimum(z: Tensor) -> Tensor:
    """Return the cumulative minimum of ``z`` (M, B, K) over K; ONNX has no operator for ``cummin``."""
    is_before = torch.ones(z.shape[2], z.shape[2], dtype=torch.bool, device=z.device).tril()
    return z.unsqueeze(2).expand(-1, -1, z.shape[2], -1).masked_fill(~is_before, math.inf).amin(dim=3)


def _mean_attention(attention: List[Tensor]) -> Tensor:
    """Return the mean (B, N, A) of attention of several members, over their heads too if these differ in number."""
    same = True
    for a in attention:
        same = same and a.shape[2] == attention[0].shape[2]
    if same:
        return torch.stack(attention).mean(dim=0)
    return torch.stack([a.mean(dim=2, keepdim=True) for a in attention]).mean(dim=0)
