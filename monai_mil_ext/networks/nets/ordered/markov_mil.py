"""MarkovMIL, which adds up the evidence of all sets of runs of neighboring instances."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import GatedAttention
from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.layers.run_chain import sum_over_runs
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_choice, check_positive, check_positive_number

__all__ = ["MarkovMIL"]

EVIDENCE = ("linear", "gated")


class MarkovMIL(BagNet):
    r"""MarkovMIL, a network of this package for labels that are caused by any number of runs of neighboring instances.

    Given a bag X of ordered instances :math:`x_n`, MarkovMIL averages the odds of all sets R of runs that neither
    overlap nor touch, each an explanation of a positive label, such as the slices of one lesion or of several:

    .. math::
        s_n = A \, (w^\top x_n + v), \quad
        p(R) \propto \prod_{r \in R} \lambda \, (1 - \rho) \, \rho^{|r| - 1}, \quad
        p(R \mid X) \propto p(R) \, e^{\sum_{r \in R} \sum_{n \in r} s_n}, \quad R \ne \emptyset

        \text{logit} = \log \sum_{R \ne \emptyset} p(R) \, e^{\sum_{r \in R} \sum_{n \in r} s_n} + b, \quad
        a_n \propto \sum_{R \ni n} p(R \mid X)

    for each class separately, so that a binary label needs one logit. There are :math:`2^N - 1` sets; since whether an
    instance is in a run forms a Markov chain, a forward and a backward pass sum over them exactly, in
    O(log N) steps and O(N log N) time. The rate :math:`\lambda` of runs, their mean length :math:`1 / (1 - \rho)` and
    the height A of the evidence are learned. With a free height, a penalty on the evidence
    (:py:class:`~monai_mil_ext.handlers.ProximalL1Handler`) selects features without weakening it.

    Scores are the logarithm of the probability of an instance to be in a run,
    :math:`\log \sigma(\text{logit}) + \log \sum_{R \ni n} p(R \mid X)`, whose exponential can be compared between bags;
    attention is their softmax. It depends on the order of instances (``permutation_invariant`` is False). The weights
    of the evidence are initialized to zero. :py:class:`WindowMIL` assumes one run and learns its width.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits, each with its own evidence and chain.
        run_length: initial value of the mean length of a run.
        run_rate: initial value of :math:`\lambda`.
        evidence: ``"linear"`` as above, or ``"gated"``, which takes the scores of
            :py:class:`~monai_mil_ext.networks.blocks.GatedAttention` for :math:`w^\top x_n + v`.
        attention_size: size of the hidden layer of gated evidence.

    Raises:
        ValueError: when a size or the rate is not positive, the length is not greater than 1, the evidence is unknown,
            or the input has the wrong shape.

    References:
        Rabiner, "A tutorial on hidden Markov models and selected applications in speech recognition", 1989.

    Example:
        >>> net = MarkovMIL(in_features=1, num_classes=1, run_length=2.0)
        >>> _ = net.evidence.weight.data.fill_(9.0)
        >>> bag = torch.tensor([0.0, 1.0, 1.0, 0.0, -1.0, 0.0, 1.0, 1.0, 1.0, 0.0]) - 0.5
        >>> net.forward_bag(bag.view(1, -1, 1)).scores.exp().flatten().round().int().tolist()
        [0, 1, 1, 0, 0, 0, 1, 1, 1, 0]
    """

    permutation_invariant = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        run_length: float = 10.0,
        run_rate: float = 0.02,
        evidence: str = "linear",
        attention_size: int = 128,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes)
        check_positive_number(run_length=run_length, run_rate=run_rate)
        if run_length <= 1:
            raise ValueError(f"`run_length` must be greater than 1, got {run_length!r}.")
        check_choice("evidence", evidence, EVIDENCE)
        self.in_features = in_features
        if evidence == "linear":
            self.evidence: nn.Module = nn.Linear(in_features, num_classes)
            self._start_at_zero(self.evidence)
        else:
            self.evidence = GatedAttention(in_features, attention_size, num_classes)
            self._start_at_zero(self.evidence.score)
        self.raw_height = nn.Parameter(torch.full([num_classes], math.log(math.e - 1)))
        self.raw_stay = nn.Parameter(torch.full([num_classes], math.log(run_length - 1)))
        self.log_rate = nn.Parameter(torch.full([num_classes], math.log(run_rate)))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        s = zero_out_padding(self.evidence(zero_out_padding(x, mask)), mask)
        s = s.to(torch.promote_types(s.dtype, torch.float32))
        if mask is None:
            mask = torch.ones_like(x[..., 0], dtype=torch.bool)
        # one more row of padding, so that there is a step also in a bag without instances
        s, mask = functional.pad(s, [0, 0, 0, 1]), functional.pad(mask, [0, 1])
        order = compact_order(mask)
        s = compact(s * functional.softplus(self.raw_height).to(s.dtype), order)
        log_odds, log_posterior = self._log_odds(s, compact(mask.unsqueeze(2), order))
        logits = log_odds + self.bias
        scores = uncompact(log_posterior + functional.logsigmoid(logits).unsqueeze(1), order)
        scores = zero_out_padding(scores, mask)
        attention = masked_softmax(scores, mask)[:, :-1]
        return BagOutput(logits.to(self.bias.dtype), attention, self.score_tap(scores[:, :-1]), None)

    def _log_odds(self, s: Tensor, valid: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute log-odds (B, C), averaged over all sets of runs, and log-posteriors (B, N, C) of evidence (B, N, C).

        The second half of the 2C chains has no evidence: it gives the sum by which the average divides.
        """
        num_classes = s.shape[2]
        stay = functional.logsigmoid(self.raw_stay).to(s.dtype)
        enter = self.log_rate.to(s.dtype) + functional.logsigmoid(-self.raw_stay).to(s.dtype)
        s = torch.cat([s, torch.zeros_like(s)], 2)
        total, log_posterior = sum_over_runs(s, torch.cat([enter, enter]), torch.cat([stay, stay]), valid)
        return total[:, :num_classes] - total[:, num_classes:], log_posterior[:, :, :num_classes]

    @staticmethod
    def _start_at_zero(layer: nn.Linear) -> None:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
