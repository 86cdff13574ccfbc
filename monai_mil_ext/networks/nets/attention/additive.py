"""Additive multiple instance learning."""

from typing import Dict, Optional, Tuple

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import attention_pool, masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_choice, check_positive

__all__ = ["AdditiveMIL"]

NORMS = ("layer", "batch", "none")


class AdditiveMIL(BagNet):
    r"""Additive MIL, proposed in `Additive MIL: Intrinsically Interpretable MIL <https://arxiv.org/abs/2206.01794>`_.

    Given a bag X of instances :math:`x_n`, additive MIL classifies each instance, weighted by its attention, and adds:

    .. math:: a = \operatorname{softmax}_n s(x_n), \quad r_n = \operatorname{MLP}(a_n x_n), \quad
        \text{logits} = \sum_n r_n

    so that :math:`r_{nc}` is the signed contribution of instance n to class c: positive for it, negative against it.
    A forward hook on ``contribution_tap`` reads the contributions (B, N, C), zero at padding, and
    :py:class:`ContributionWrapper` reports them as the attention. MLP(0) is not zero, so each instance adds an offset,
    however small its attention, and logits grow with the size of the bag. With ``centered``,
    :math:`r_n = \operatorname{MLP}(a_n x_n) - \operatorname{MLP}(0)`: an instance without attention adds nothing.
    Each is then a small difference, rounded to about 1e-7 of MLP(0), and the rounding of like instances adds up.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size of the two hidden layers of the scores and of the classifier.
        norm: normalization of the hidden layers of the scores: ``"layer"``, ``"batch"`` (published; in training, bags
            of a batch then depend on one another) or ``"none"``.
        centered: whether MLP(0) is subtracted from each contribution; the published network does not.

    Raises:
        ValueError: when a size is not positive, ``norm`` is unknown, or the input has the wrong shape.

    References:
        Javed et al., "Additive MIL: Intrinsically Interpretable Multiple Instance Learning for Pathology",
        arXiv:2206.01794.

    Example:
        >>> net, shares = AdditiveMIL(in_features=8, num_classes=2, hidden_size=4), []
        >>> _ = net.contribution_tap.register_forward_hook(lambda module, args, output: shares.append(output))
        >>> torch.allclose(net(torch.rand(1, 6, 8)), shares[0].sum(1))
        True
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 256,
        norm: str = "layer",
        centered: bool = False,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=hidden_size)
        check_choice("norm", norm, NORMS)
        self.in_features = in_features
        self.centered = centered
        sizes = (in_features, hidden_size)
        self.score_layers = nn.ModuleList([_ScoreLayer(size, hidden_size, norm) for size in sizes])
        self.score = nn.Linear(hidden_size, 1)
        self.classify = nn.Sequential(
            nn.Linear(in_features, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, num_classes),
        )
        self.contribution_tap = nn.Identity()

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Compute logits (B, C) of instances (B, N, F), without the embedding, which no logit needs."""
        self.check_input(x, mask, self.in_features)
        return self._sum_contributions(zero_out_padding(x, mask), mask)[0]

    @torch.jit.export  # `forward` does not call it
    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`; the embedding is the sum of the weighted instances."""
        self.check_input(x, mask, self.in_features)
        x = zero_out_padding(x, mask)
        logits, attention, scores = self._sum_contributions(x, mask)
        return BagOutput(logits, attention, scores, attention_pool(attention, x).squeeze(1))

    def _sum_contributions(self, x: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor, Tensor]:
        """Return logits, attention and scores of instances whose padding is zero."""
        h = x
        for layer in self.score_layers:
            h = layer(h, mask)
        scores = self.score_tap(self.score(h))
        attention = masked_softmax(scores, mask)
        contributions = self.classify((attention * x).to(self.score.weight.dtype))
        contributions = contributions.to(torch.promote_types(contributions.dtype, torch.float32))
        if self.centered:
            weight = self.score.weight
            contributions = contributions - self.classify(weight.new_zeros([1, self.in_features]))
        contributions = self.contribution_tap(zero_out_padding(contributions, mask))
        return contributions.sum(1).to(self.score.weight.dtype), attention, scores

    reference_ignored = ("*num_batches_tracked",)

    def reference_names(self) -> Dict[str, str]:
        """Map names of weights of the authors' supplement to those of this network, with ``norm="batch"``."""
        names = {f"classifier.model.{i}.{p}": f"classify.{i}.{p}" for i in (0, 2, 4) for p in ("weight", "bias")}
        for layer, first in ((0, 0), (1, 3)):
            names |= {f"pointer.model.{first}.{p}": f"score_layers.{layer}.project.{p}" for p in ("weight", "bias")}
            for p in ("weight", "bias", "running_mean", "running_var"):
                names[f"pointer.model.{first + 1}.{p}"] = f"score_layers.{layer}.norm.{p}"
        return names | {f"pointer.model.6.{p}": f"score.{p}" for p in ("weight", "bias")}


class _ScoreLayer(nn.Module):
    """Linear layer, normalization over the valid instances, and leaky ReLU."""

    def __init__(self, in_features: int, out_features: int, norm: str) -> None:
        super().__init__()
        self.project = nn.Linear(in_features, out_features)
        self.is_batch_norm = norm == "batch"
        self.norm = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": _NoNorm}[norm](out_features)
        self.activate = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor, mask: Optional[Tensor]) -> Tensor:
        h = self.project(x)
        if not self.is_batch_norm:
            h = self.norm(h)
        elif self.training and mask is not None:
            h = h.masked_scatter(mask.unsqueeze(-1), self.norm(h[mask]))  # statistics of the valid instances alone
        else:
            h = self.norm(h.flatten(0, 1)).view_as(h)
        activated: Tensor = self.activate(h)
        return activated


class _NoNorm(nn.Identity):
    """Identity with the constructor of a normalization."""

    def __init__(self, size: int) -> None:
        super().__init__()
