"""Encoder of whole volumes with a 3D network."""

from typing import Optional

import torch
from torch import Tensor, nn

from .encoder_base import EncoderBase, InputSpec

__all__ = ["VolumeEncoder"]


class VolumeEncoder(EncoderBase):
    """Encoder of volumes (B, C, X, Y, Z) to feature maps (B, F, x, y, z), each position of which is an instance.

    :py:class:`monai_mil_ext.transforms.VolumeTokensd` converts a map to a bag, with positions in mm.

    Args:
        net: network whose output is a map.
        input_spec: see :py:class:`InstanceEncoder`.
        gray: see :py:class:`InstanceEncoder`.
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        ValueError: when volumes are not as expected, or the output of the network is not a map.

    Example:
        >>> VolumeEncoder(nn.Conv3d(1, 8, 4, stride=4))(torch.rand(1, 1, 16, 16, 8)).shape
        torch.Size([1, 8, 4, 4, 2])
    """

    def __init__(
        self,
        net: nn.Module,
        input_spec: Optional[InputSpec] = None,
        gray: bool = False,
        frozen: bool = True,
        amp_dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__(net, input_spec, gray, frozen, amp_dtype)
        if self.spatial_dims != 3:
            raise ValueError(f"`net` must be a network of volumes, got one of {self.spatial_dims} axes.")

    def forward(self, x: Tensor) -> Tensor:
        """Encode volumes (B, C, X, Y, Z) to maps (B, F, x, y, z)."""
        features = self.encode(x)
        if not isinstance(features, Tensor) or features.ndim != 5:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"`net` must give a map (B, F, x, y, z), got {got}.")
        return features.float() if self.amp_dtype is not None else features
