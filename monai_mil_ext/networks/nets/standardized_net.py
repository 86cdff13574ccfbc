"""Network with the standardization of its features and targets, which its weights carry."""

from typing import Any, Optional

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["StandardizedNet"]


class StandardizedNet(BagNet):
    r"""Network that standardizes the features of its instances, and returns logits in the unit of the targets.

    With mean :math:`\mu` and scale :math:`s` of each feature, and :math:`m` and :math:`d` of the targets of a
    regression in the training part,

    .. math:: z = m + d \, g\left( \frac{x - \mu}{s} \right)

    The four are buffers, so that they are saved with the weights and exported with the network. At first they change
    nothing; :py:meth:`set_statistics` sets them. Class attributes such as ``permutation_invariant`` are those of the
    network.

    Args:
        net: network g from standardized features (B, N, F) to logits.
        in_features: number F of features.

    Raises:
        ValueError: when ``in_features`` is not positive, or bags have another number of features.

    Example:
        >>> from monai_mil_ext.networks.nets import MeanMIL
        >>> net = StandardizedNet(MeanMIL(in_features=2, num_classes=1), in_features=2)
        >>> net = net.set_statistics(mean=[1.0, 5.0], scale=[0.5, 2.0], output_mean=40.0, output_scale=10.0)
        >>> mean_bag = torch.tensor([[[1.0, 5.0]]])
        >>> torch.equal(net(mean_bag), 40 + 10 * net.net(torch.zeros(1, 1, 2)))
        True
    """

    mean: Tensor
    scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(self, net: BagNet, in_features: int) -> None:
        super().__init__()
        check_positive(in_features=in_features)
        self.net = net
        self.in_features = in_features
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("scale", torch.ones(in_features))
        self.register_buffer("output_mean", torch.zeros(()))
        self.register_buffer("output_scale", torch.ones(()))
        self.score_tap = net.score_tap  # the same tap under two names
        self.take_properties(net)

    def set_statistics(
        self, mean: Any, scale: Any, output_mean: float = 0.0, output_scale: float = 1.0
    ) -> "StandardizedNet":
        """Set the statistics of the training part, and return the network.

        Args:
            mean: mean (F,) of each feature.
            scale: standard deviation (F,) of each feature.
            output_mean: mean of the targets.
            output_scale: standard deviation of the targets.

        Raises:
            ValueError: when there are not F values each, one is not finite, or a scale is not positive.
        """
        values = {"mean": mean, "scale": scale, "output_mean": output_mean, "output_scale": output_scale}
        tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}
        for name, tensor in tensors.items():
            buffer = self.get_buffer(name)
            if tensor.shape != buffer.shape:
                raise ValueError(f"`{name}` must have shape {tuple(buffer.shape)}, got {tuple(tensor.shape)}.")
            value = tensor.to(buffer)
            if not value.isfinite().all() or (name.endswith("scale") and not (value > 0).all()):
                rule = "positive and finite" if name.endswith("scale") else "finite"
                raise ValueError(f"`{name}` must be {rule}, got values from {tensor.min():.4g} to {tensor.max():.4g}.")
            buffer.copy_(value)
        return self

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`; the logits are in the unit of the targets."""
        output: BagOutput = self.net.forward_bag(self.change_input(x, mask), mask)
        return self.change_output(output)

    def change_input(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Standardize instances (B, N, F)."""
        self.check_input(x, mask, self.in_features)
        return ((x - self.mean) / self.scale).to(x.dtype)

    def change_output(self, output: BagOutput) -> BagOutput:
        """Return an output of the network in the unit of the targets."""
        logits = output.logits * self.output_scale + self.output_mean
        return BagOutput(logits, output.attention, output.scores, output.embedding)
