"""Encoders from models of ``timm``."""

import os
from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import optional_dependency

from .checkpoint import load_encoder_weights
from .encoder_base import InputSpec
from .hub_models import explain_hub_errors
from .instance_encoder import InstanceEncoder

__all__ = ["timm_encoder"]

timm = optional_dependency("timm", "timm")


def timm_encoder(
    model: str,
    checkpoint: Optional[Union[str, "os.PathLike[str]"]] = None,
    input_spec: Optional[InputSpec] = None,
    output: Union[str, Callable[[Any], Tensor]] = "mean",
    gray: bool = False,
    frozen: bool = True,
    amp_dtype: Optional[torch.dtype] = None,
) -> InstanceEncoder:
    """Create an encoder from a ``timm`` model, without its head.

    Normalization and image size are those of the pretrained configuration of the model. As ``timm`` needs torchvision,
    this function is tested with a stand-in for the functions and attributes of ``timm`` that it uses.

    Args:
        model: name of the model.
        checkpoint: file of weights, of which only tensors are read; ``None`` lets timm download its own.
        input_spec: specification of the images, instead of the pretrained configuration.
        output: see :py:class:`InstanceEncoder`.
        gray: see :py:class:`InstanceEncoder`.
        frozen: see :py:class:`InstanceEncoder`.
        amp_dtype: see :py:class:`InstanceEncoder`.

    Raises:
        OptionalImportError: without ``timm`` (``pip install monai-mil-ext[timm]``).
        OSError: when the weights can't be downloaded; it says whether the hub can't be reached or denies access.
        ValueError: when the checkpoint does not match.
    """
    with explain_hub_errors(model, "its file as `checkpoint`"):
        net = timm.create_model(model, pretrained=checkpoint is None, num_classes=0)
    if checkpoint is not None:
        load_encoder_weights(net, checkpoint, ("head.", "fc.", "classifier."))
    if input_spec is None:
        config = timm.data.resolve_model_data_config(net)
        channels, *size = config["input_size"]
        input_spec = InputSpec(channels, size, config["mean"], config["std"])
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    return InstanceEncoder(_ForwardFeatures(net), input_spec, output, prefix, gray, frozen=frozen, amp_dtype=amp_dtype)


class _ForwardFeatures(nn.Module):
    """Network that returns the features before the head: tokens (N, T, F) or a map (N, F, h, w)."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Run the model on images (N, C, h, w)."""
        features: Tensor = self.net.forward_features(x)
        # some models (Swin) return maps with the features on the last axis
        channels_last = features.ndim == 4 and features.shape[1] != self.net.num_features == features.shape[-1]
        return features.movedim(-1, 1) if channels_last else features
